//! Integration tests: the real parts on real sockets, against the built-in broker or Apache Kafka.

mod broker_lab;
mod broker_probe;
