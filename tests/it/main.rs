//! The one integration binary: a file per part of the bridge, each on real sockets.

mod console_http;
