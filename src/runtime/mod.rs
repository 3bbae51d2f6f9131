//! runtime.

pub mod task;

pub use task::spawn;
