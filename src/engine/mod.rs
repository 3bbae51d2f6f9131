//! The pure machines: no clock, no randomness, no network; time and random draws are arguments.

pub mod backoff;
pub mod budget;
