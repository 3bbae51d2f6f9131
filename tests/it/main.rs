//! One integration binary: real sockets, real files, nothing mocked but the far side.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod receiver_callbacks;
mod receiver_durable;
mod receiver_http;
mod receiver_signatures;
mod receiver_slow;
mod receiver_support;
