//! Settings: from a YAML file to values that cannot be wrong.
//!
//! Three steps, each in its own file: text to a tree that knows where everything stands, variables put in after
//! parsing (so that a value can never become a key), and the tree to checked [`Settings`]. Never stops at the
//! first mistake, never prints a secret, never reads a clock or the network. Fails with every mistake at once,
//! each with its place, what was found, what is allowed and what to do.

mod catalog;
pub mod defaults;
mod examples;
mod expand;
mod incoming;
mod kafka;
mod load;
mod mistake;
mod names;
mod outgoing;
mod raw;
mod receiver;
mod section;
mod settings;
mod shape;
mod stores;
mod template;
mod tree;
mod values;

pub use load::{Source, find, load, load_source, load_str};
pub use mistake::{ConfigErrors, Mistake, MistakeRow, Mistakes};
pub use names::{CommandParts, EntityNames, RowFault};
pub use raw::schema;
pub(crate) use section::closest;
pub use settings::*;
pub use template::{Fill, Hole, Template, TemplateError};
