//! The shell around the pure machines: the runner's loop, the ports it is driven through, named tasks, and the
//! life of the process.
//!
//! Both paths, store to Kafka and Kafka to store, are a [`ports::Stage`] driven by the one runner: take records
//! in order, give each exactly one settlement, and commit settlements in Kafka transactions. A component that
//! ends uninvited ends the process, and a stop is a bounded drain in a known order. The drain handle is always an
//! argument, never a global, so that a test can hold its own.

pub mod drain;
pub mod lease;
pub mod lifecycle;
pub mod ports;
pub mod runner;
pub mod task;

pub use drain::{Drain, DrainTrigger, Tasks};
pub use lifecycle::{Lifecycle, LifecycleError, stop_signal};
pub use task::{install_panic_hook, spawn};
