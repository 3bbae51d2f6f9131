//! Between rdkafka's types and the model's.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::{Offset, TopicPartitionList};

use super::settings::ClientError;
use crate::model::record::{Assignment, InRecord, OffsetCommit, OutRecord, Partition, Position};

/// A copy of a fetched message that owns its bytes.
pub(super) fn in_record(message: &BorrowedMessage<'_>, topic: &mut TopicNames) -> InRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|h| (h.key.to_owned(), Bytes::copy_from_slice(h.value.unwrap_or_default())))
            .collect()
    });
    InRecord {
        position: Position {
            partition: Partition { topic: topic.shared(message.topic()), number: message.partition() },
            offset: message.offset(),
        },
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}

/// One allocation per topic instead of one per record.
#[derive(Debug, Default)]
pub(super) struct TopicNames(Vec<Arc<str>>);

impl TopicNames {
    /// A handful of topics are subscribed to, so a list is quicker than a map, and cannot grow beyond them.
    pub(super) fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.push(name.clone());
        name
    }
}

/// The headers of a record to be sent, in order.
pub(super) fn headers(record: &OutRecord) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    Some(
        record
            .headers
            .iter()
            .fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(value.as_ref()) })),
    )
}

pub(super) fn partitions(list: &TopicPartitionList, topics: &mut TopicNames) -> Vec<Partition> {
    let elements = list.elements();
    elements.iter().map(|e| Partition { topic: topics.shared(e.topic()), number: e.partition() }).collect()
}

pub(super) fn list_of<'a>(partitions: impl IntoIterator<Item = &'a Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

/// What a group has committed, from librdkafka's answer.
pub(super) fn committed(
    list: &TopicPartitionList,
    topics: &mut TopicNames,
) -> Result<Vec<Assignment>, ClientError> {
    list.elements()
        .iter()
        .map(|e| {
            e.error().map_err(|error| {
                ClientError::new(
                    format!("reading the offset committed for {}/{}", e.topic(), e.partition()),
                    &error,
                )
            })?;
            let committed = match e.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let partition = Partition { topic: topics.shared(e.topic()), number: e.partition() };
            Ok(Assignment { partition, committed, metadata: e.metadata().to_owned() })
        })
        .collect()
}

/// Offsets with their metadata, as a transaction takes them.
pub(super) fn offset_list(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, ClientError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for offset in offsets {
        let mut element = list.add_partition(&offset.partition.topic, offset.partition.number);
        element
            .set_offset(Offset::Offset(offset.next))
            .map_err(|error| ClientError::new(format!("committing the offset {}", offset.next), &error))?;
        // librdkafka frees it with the list; none is the same as an empty one.
        if !offset.metadata.is_empty() {
            element.set_metadata(&offset.metadata);
        }
    }
    Ok(list)
}
