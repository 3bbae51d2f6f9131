//! Integration tests: the real parts on real sockets, against the built-in broker or Apache Kafka.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod broker_embedded;
mod broker_lab;
mod broker_probe;
mod kafka_append;
mod kafka_consume;
mod kafka_read_back;
mod kafka_support;
mod kafka_transact;
mod receiver_callbacks;
mod receiver_durable;
mod receiver_http;
mod receiver_signatures;
mod receiver_slow;
mod receiver_support;
