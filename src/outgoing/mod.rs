//! outgoing.
