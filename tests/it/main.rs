//! The one integration binary: a file per part of the bridge, each on real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic, helpers included")]

mod client_lab;
mod client_rates;
mod client_replies;
mod client_safety;
mod console_http;
mod hooks_api;
mod receiver_callbacks;
mod receiver_durable;
mod receiver_http;
mod receiver_signatures;
mod receiver_slow;
mod receiver_support;
mod sandbox_api;
mod sandbox_callbacks;
mod sandbox_lab;
//! Integration tests: the real parts on real sockets, against the built-in broker or Apache Kafka.

mod broker_lab;
mod broker_probe;
//! The integration tests: one binary.

mod config_load;
