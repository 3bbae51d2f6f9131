//! The leader's work: scheduled polls, snapshots, sweeps and repairs, and the upkeep of subscriptions.
//!
//! It reads the store's lists and appends hints to the intake, and never publishes an entity itself: what is published
//! goes one way, the incoming path's, so that an old list never overwrites a newer read. It leads on one replica, the owner of the
//! signals topic's only partition; each step is one Kafka transaction that holds the hints of a page and the scan's new
//! state. So a page counts once, a scan goes on after any crash, and a leader that was replaced without knowing writes nothing.
//!
//! It fails per scan: a list that is refused ends the scan with a notification and is tried at its next time; a
//! store in trouble waits, and the others go on.

mod backlog;
pub mod cursor;
mod hints;
mod lane;
mod notify;
pub mod page;
pub mod plan;
pub mod ports;
mod read;
mod runs;
pub mod scan;
pub mod schedule;
pub mod seen;
mod signals;
pub mod stage;
pub mod state;
mod turn;
