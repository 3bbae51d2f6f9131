//! bcbridge: the bridge between BigCommerce and Kafka.

pub mod app;
pub mod bigcommerce;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod console;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod engine;
pub mod incoming;
pub mod kafka;
pub mod model;
pub mod outgoing;
pub mod receiver;
pub mod runtime;
pub mod sandbox;
pub mod telemetry;
pub mod transform;
