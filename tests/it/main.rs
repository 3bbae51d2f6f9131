//! One integration binary: real sockets, real time where time matters.

mod client_lab;
mod client_rates;
mod client_replies;
mod client_safety;
mod hooks_api;
