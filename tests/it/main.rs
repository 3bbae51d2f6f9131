//! The integration tests: one binary.

mod config_load;
