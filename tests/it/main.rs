//! The one integration binary: a file per part of the bridge, on real sockets, against the built-in broker or,
//! when `KAFKA_BOOTSTRAP_SERVERS` names it, Apache Kafka.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod all_scopes;
mod bridge_incoming;
mod bridge_kill;
mod bridge_lab;
mod bridge_outgoing;
mod bridge_wrong_input;
mod broker_embedded;
mod broker_lab;
mod broker_probe;
mod catalog_openapi;
mod catalog_rows;
mod client_lab;
mod client_rates;
mod client_replies;
mod client_safety;
mod client_sandbox;
mod config_load;
mod config_validate;
mod console_http;
mod converge_sweep;
mod docker;
mod hooks_api;
mod hooks_sandbox;
mod hooks_verify;
mod hooks_watch;
mod kafka_append;
mod kafka_consume;
mod kafka_read_back;
mod kafka_support;
mod kafka_transact;
mod openapi;
mod openapi_mock;
mod payloads;
mod receiver_callbacks;
mod receiver_durable;
mod receiver_http;
mod receiver_signatures;
mod receiver_slow;
mod receiver_support;
mod replicas;
mod sandbox_api;
mod sandbox_callbacks;
mod sandbox_entities;
mod sandbox_events;
mod sandbox_lab;
mod sandbox_openapi;
mod scale_snapshot;
mod scheduler_runs;
mod schemas;
mod signals_cli;
mod stores_lab;
mod stores_reload;
