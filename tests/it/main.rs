//! Integration tests: the real parts on real sockets, against the built-in broker or Apache Kafka.

mod broker_embedded;
mod broker_lab;
mod broker_probe;
mod kafka_append;
mod kafka_consume;
mod kafka_read_back;
mod kafka_support;
mod kafka_transact;
