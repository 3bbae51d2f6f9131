//! One integration binary: real sockets, real time where time matters.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic, helpers included")]

mod client_lab;
mod client_rates;
mod client_replies;
mod client_safety;
mod client_sandbox;
mod hooks_api;
mod hooks_sandbox;
mod sandbox_api;
mod sandbox_callbacks;
mod sandbox_lab;
