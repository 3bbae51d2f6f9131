//! One file per command: arguments in, an exit code out.

pub mod hooks;
