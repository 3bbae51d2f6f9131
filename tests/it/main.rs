//! The one integration binary: a file per part of the bridge, each on real sockets.

mod console_http;

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod receiver_callbacks;
mod receiver_durable;
mod receiver_http;
mod receiver_signatures;
mod receiver_slow;
mod receiver_support;
//! One integration binary: real sockets, real time where time matters.

mod client_lab;
mod client_rates;
mod client_replies;
mod client_safety;
mod hooks_api;
mod sandbox_api;
mod sandbox_callbacks;
mod sandbox_lab;
