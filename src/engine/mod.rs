//! The state machines that both paths share: checkpoint, lanes, budget, back-off.
//!
//! Pure: time and random draws are arguments. Each machine is tested against a naive model.

pub mod backoff;
pub mod budget;
pub mod checkpoint;
pub mod lanes;
pub mod ownership;
