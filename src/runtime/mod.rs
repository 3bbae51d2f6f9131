//! The shell around the pure machines: the runner's loop, the ports it is driven through, and named tasks.
//!
//! Both paths, store to Kafka and Kafka to store, are a [`Stage`] driven by the one runner: take records in
//! order, give each exactly one settlement, and commit settlements in Kafka transactions.

pub mod ports;
pub mod runner;
pub mod task;
pub use task::spawn;

#[cfg(test)]
mod sim;
