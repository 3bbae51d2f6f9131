//! The only code that speaks rdkafka: producers, the group consumer, topics, and the probe that shows whether a
//! broker keeps the promises that exactly-once rests on.
//!
//! No rdkafka type leaves this module: records are [`crate::model::record`]'s, and the paths use it through
//! [`crate::runtime::ports`]. What fails here is a [`settings::ClientError`] or one of the ports' errors; no call
//! waits longer than its deadline, and no call that blocks runs on an async thread.

pub mod append;
pub mod backlog;
pub mod consume;
mod convert;
mod deliveries;
pub mod ledger;
pub mod look_up;
pub mod probe;
pub mod read_back;
pub mod settings;
pub mod span;
pub mod tail;
pub mod topics;
pub mod transact;
mod trouble;
