//! What the path's unit tests share.

use super::*;
use crate::incoming::coalesce::{Gathering, Windows};
use crate::incoming::settings::Format;
use crate::model::record::Position;

pub(crate) fn settings(entity: &str) -> EntitySettings {
    let row = Catalog::embedded().unwrap().entity(entity).unwrap().clone();
    EntitySettings {
        topic: format!("bigcommerce.main.{entity}").into(),
        key: Arc::new(str::to_owned),
        include: row.include.iter().filter(|i| i.default).map(|i| i.name.clone()).collect(),
        row,
        query: BTreeMap::new(),
        windows: Windows { quiet: Duration::from_millis(250), max_wait: Duration::from_secs(2) },
        confirm_gone: Duration::from_secs(60),
        suppress_unchanged: false,
        suppress_echo: false,
        second_read: None,
        format: Format::CloudEvents,
        parameters: None,
        filter: None,
        transform: None,
    }
}

pub(crate) fn store() -> StoreSettings {
    StoreSettings {
        name: "main".into(),
        hash: "abc123".into(),
        entities: ["product", "order", "inventory_item", "product_variant"]
            .into_iter()
            .map(|name| (name.to_owned(), Arc::new(settings(name))))
            .collect(),
        intake: "bigcommerce.main.webhooks".into(),
        dead_letters: "bigcommerce.main.dlq".into(),
        ledger: "bigcommerce.main.ledger".into(),
        max_record_bytes: 1_000_000,
    }
}

pub(crate) fn gathering(ops: &[Op]) -> Gathering {
    let hints = ops.iter().enumerate().map(|(offset, op)| gathered(offset, *op)).collect();
    Gathering { hints, ..Gathering::default() }
}

fn gathered(offset: usize, op: Op) -> Gathered {
    let trigger = Trigger {
        key: EntityKey::parse("product/1").unwrap(),
        op,
        scope: format!("store/product/{}", op.participle()),
        row: None,
    };
    let partition = Partition { topic: "bigcommerce.main.webhooks".into(), number: 0 };
    let record = InRecord {
        position: Position { partition, offset: i64::try_from(offset).unwrap() },
        timestamp_ms: Some(0),
        key: Some(Bytes::from_static(b"product/1")),
        value: Some(Bytes::from_static(b"{}")),
        headers: Vec::new(),
    };
    let hint = Hint {
        trigger,
        event: format!("msg_{offset}"),
        created_at: Some(1_767_225_600),
        received_ms: 1_767_225_600_500,
        traceparent: None,
        carried_ms: None,
    };
    Gathered { hint, record }
}
