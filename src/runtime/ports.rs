//! The ports: what the paths need of the world. One real implementation and one fake of each.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;

use super::lease::Lease;
use crate::model::record::{Assignment, InRecord, OffsetCommit, OutRecord, Partition, Position};
use crate::model::request::{Reply, Request};

/// What a member of a consumer group is told, in order.
#[derive(Debug)]
pub enum Consumed {
    /// These partitions are ours from now on, all of them and no others.
    Assigned(Vec<Assignment>),
    /// Nothing is ours any more; no record of the earlier assignment follows.
    Revoked,
    /// A record of an assigned partition.
    Record(InRecord),
}

/// A member of a consumer group.
pub trait Consume: Send {
    /// Proof of membership at one moment, to be sent along with offsets (KIP-447).
    type Group: Send + 'static;
    /// Why the member cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The next event. May be dropped and called again without losing one.
    fn next(&mut self) -> impl Future<Output = Result<Consumed, Self::Error>> + Send;
    /// Stops and resumes the flow of records, of later assignments as well; membership is kept up all the while.
    fn pause(&mut self, paused: bool) -> Result<(), Self::Error>;
    /// Stops and resumes the flow of one assigned partition; the next assignment begins with none stopped. A record or
    /// two of it may still follow.
    fn hold(&mut self, partition: &Partition, held: bool) -> Result<(), Self::Error>;
    /// Proof of membership, taken now.
    fn group(&self) -> Option<Self::Group>;
    /// What is committed for the assigned partitions, asked of the broker now.
    fn committed(&mut self) -> impl Future<Output = Result<Vec<Assignment>, Self::Error>> + Send;
    /// Leaves the group, without blocking those who share the thread.
    fn leave(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async move { drop(self) }
    }
}

/// What the bridge noted about the work of a partition: a partition of a compacted topic, read to its end.
pub trait Recall: Send {
    /// Why it could not be read.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What belongs to the work of `partition`, as it was committed last.
    fn recall(&mut self, partition: &Partition)
    -> impl Future<Output = Result<Recalled, Self::Error>> + Send;
}

/// What was read back of a ledger for the work of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recalled {
    /// The last value of each key that must be known.
    pub values: BTreeMap<String, Bytes>,
    /// What is left of the others that the path wants: the newest ones where there are very many, about in the order in
    /// which they were written. An earlier one of the same key may still be there.
    pub traces: Vec<Trace>,
}

impl From<BTreeMap<String, Bytes>> for Recalled {
    fn from(values: BTreeMap<String, Bytes>) -> Self {
        Self { values, traces: Vec::new() }
    }
}

/// That an entry is in the ledger, without its key and value: these can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// A hash of its key, as the path makes it.
    pub hash: u64,
    /// When it was written, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// What a path wants of an entry of its ledger, when that is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// It is another path's.
    Nothing,
    /// It must be known.
    Each,
    /// That it is there should be known, while there is room: the newest ones stay.
    Trace(Trace),
    /// That it is there must be known, and not its value; an empty one stands for it.
    Key,
}

/// An entry of a ledger of which only a trace is known.
#[derive(Debug, Clone)]
pub struct Sought {
    /// The ledger's partition that it was written to.
    pub partition: Partition,
    /// Its key.
    pub key: String,
    /// When it was written, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Tells of a value under this key whether it was written then, or later.
    pub is_it: fn(value: &[u8], at_ms: i64) -> bool,
}

/// What a ledger holds of what is sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookedUp {
    /// Its value.
    Found(Bytes),
    /// It was taken out of the ledger on purpose.
    Forgotten,
    /// Nothing, in all of the partition that committed readers see.
    Nothing,
}

/// Reads single entries of ledgers.
pub trait LookUp: Send + Sync + 'static {
    /// An answer to each, in order; none for one about which Kafka could not be asked, or not in good time.
    fn look_up(&self, sought: Vec<Sought>) -> Job<Vec<Option<LookedUp>>>;
}

/// How a transaction failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    /// Nothing of it counts; the same may be tried again.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// Nobody knows; the committed offsets tell.
    #[error("the transaction's outcome is unknown: {0}")]
    Unknown(String),
    /// The membership that it was sent under is over: drop everything and wait to be assigned anew.
    #[error("the transaction was fenced: {0}")]
    Fenced(String),
    /// A record that the broker will never take, such as one that is too large.
    #[error("the broker refused a record: {0}")]
    Refused(String),
    /// The producer cannot go on at all.
    #[error("the transactional producer failed: {0}")]
    Fatal(String),
}

/// A transactional producer.
pub trait Produce<Group>: Send {
    /// Commits records and offsets together, or neither.
    fn commit(
        &mut self,
        records: Vec<OutRecord>,
        offsets: Vec<OffsetCommit>,
        group: Group,
    ) -> impl Future<Output = Result<(), NotCommitted>> + Send;
    /// Takes on the identity that belongs to an assignment, which fences and finishes whatever an earlier
    /// owner of it left open.
    fn identify(&mut self, owner: &Partition) -> impl Future<Output = Result<(), NotCommitted>> + Send;
}

/// A producer without transactions: what it took is durable.
pub trait Append: Send + Sync + 'static {
    /// Appends records, all of them acknowledged by all in-sync replicas.
    ///
    /// # Errors
    /// Not all of them are known to be durable; some may be.
    fn append(&self, records: Vec<OutRecord>) -> impl Future<Output = Result<(), NotDurable>> + Send;
}

/// Records that are not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka did not acknowledge: {0}")]
pub struct NotDurable(pub String);

/// The REST API of one store.
pub trait Store: Send + Sync + 'static {
    /// Sends a request within the store's rate budget, and says what became of it. Never fails otherwise.
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send;
    /// The same under a lease, which is looked at last of all: when it is over, the request has certainly not been
    /// sent, and the reply is [`Lease::not_sent`].
    fn send_while(&self, request: Request, lease: Lease) -> impl Future<Output = Reply> + Send {
        async move {
            match lease.is_over(tokio::time::Instant::now().into_std()) {
                true => Lease::not_sent(),
                false => self.send(request).await,
            }
        }
    }
}

/// The end of one or more consumed records: what is to be produced, together with their offsets.
#[derive(Debug, Default)]
pub struct Settled {
    /// The records that are done with. Where there are none, `records` must hold one for the ledger with a value that
    /// never stood there under its key: after a transaction of unknown outcome it tells whether that counted.
    pub positions: Vec<Position>,
    /// What comes of them, in order.
    pub records: Vec<OutRecord>,
}

/// Work in the background; it brings back what [`Stage::finish`] takes.
pub type Job<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// One path of the bridge as the runner drives it. It holds no clock: the time is an argument.
///
/// Contract: every record that was accepted is settled exactly once, by [`Settled::positions`]; settlements
/// are committed in the order in which they were returned; after [`Stage::reset`] nothing of before counts.
pub trait Stage: Send {
    /// What a job brings back.
    type Done: Send + 'static;

    /// Takes what the ledger holds for a partition that was just assigned.
    fn restore(&mut self, partition: &Partition, ledger: Recalled);
    /// Bytes that the stage keeps of each open record beside the record itself, about: what was decoded and planned.
    fn weight(&self) -> usize {
        0
    }
    /// Takes a record; may settle it at once.
    fn accept(&mut self, record: InRecord, now: Instant) -> Vec<Settled>;
    /// The jobs that may start now.
    fn start(&mut self, now: Instant) -> Vec<Job<Self::Done>>;
    /// Takes what a job brought back.
    fn finish(&mut self, done: Self::Done, now: Instant) -> Vec<Settled>;
    /// When `start` should be called again, if nothing else happens.
    fn wake_at(&self) -> Option<Instant>;
    /// These settlements are committed: the next ones in the order in which they were returned.
    fn committed(&mut self, _positions: &[Position]) {}
    /// Forgets everything: the assignment is over.
    fn reset(&mut self);

    /// The ledger's record that holds `note` about the owner of a partition, for a stage whose work must not be done
    /// by two owners at once: the runner then hands each partition over, and waits for what was not handed over. None
    /// for a stage whose work may be repeated at any time, such as reading; the work of such a partition begins and
    /// ends at once.
    fn owner_note(&self, _partition: &Partition, _note: Bytes) -> Option<OutRecord> {
        None
    }
    /// Takes the lease under which the work of the assignment that begins may be sent.
    fn lease(&mut self, _lease: Lease) {}
    /// What the next owners should know, committed together with the notes that hand the partitions over. All jobs
    /// have ended, and none will start any more.
    fn hand_over(&mut self) -> Vec<OutRecord> {
        Vec::new()
    }
}
