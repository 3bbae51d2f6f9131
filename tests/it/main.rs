//! The integration tests: one binary.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod config_load;
mod config_validate;
mod schemas;
