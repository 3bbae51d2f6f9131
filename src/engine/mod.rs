//! engine.
pub mod lanes;
