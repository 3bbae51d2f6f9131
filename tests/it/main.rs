//! The one integration binary: a file per part of the bridge, each on real sockets.

mod console_http;

mod receiver_callbacks;
mod receiver_durable;
mod receiver_http;
mod receiver_signatures;
mod receiver_slow;
mod receiver_support;
