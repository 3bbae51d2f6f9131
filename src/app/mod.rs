//! Builds the edges, starts the roles and drains them in order: the only module that knows everybody.

mod intake;
mod names;
