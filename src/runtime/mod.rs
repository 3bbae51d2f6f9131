//! The tokio shell around the pure machines: named tasks, draining, and the life of the process.
//!
//! Nothing here decides anything about records; it starts, watches and stops the code that does. A task has a name
//! and an owner, a component that ends uninvited ends the process, and a stop is a bounded drain in a known order.
//! The drain handle is always an argument, never a global, so that a test can hold its own.

pub mod drain;
pub mod lifecycle;
pub mod task;

pub use drain::{Drain, DrainTrigger, Tasks};
pub use lifecycle::{Lifecycle, LifecycleError, stop_signal};
pub use task::{install_panic_hook, spawn};
