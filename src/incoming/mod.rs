//! Incoming: BigCommerce to Kafka. Hints are consumed, gathered per entity, answered by reads, and published.
//!
//! One file a stage: [`decode`] turns a callback into hints, [`coalesce`] gathers hints about one entity,
//! [`plan`] chooses the fewest reads for many entities, [`hydrate`] makes them, [`judge`] decides what a reply
//! means for an entity, [`publish`] makes the records. [`stage`] is the path as the runner drives it. [`carried`]
//! decides on rows that come along with their hints, [`memory`] keeps what was published, [`echo`] knows which changes
//! are the bridge's own.
//!
//! What always holds: nothing is published but what was read after its hints were consumed, or came with one and is
//! newer than what was published; one read at a time for one entity; every hint ends in exactly one record, dead letter, or counted suppression.

pub mod carried;
pub mod coalesce;
pub mod decode;
pub mod echo;
pub mod hydrate;
pub mod judge;
pub mod known;
mod line;
pub mod memory;
pub mod meter;
pub mod pages;
pub mod plan;
pub mod publish;
pub mod row;
pub mod settings;
#[cfg(test)]
mod sim;
pub mod stage;
