//! The nouns of the bridge: ids, records, hints, commands, requests and what comes back of them.
//!
//! Pure data: nothing here reads a clock, the network or the environment. A value of one of these types was
//! checked when it was made and is not checked again.

pub mod command;
pub mod content;
pub mod dead_letter;
pub mod envelope;
pub mod hint;
pub mod ids;
pub mod letter;
pub mod reason;
pub mod record;
pub mod request;
pub mod signal;
pub mod written;
