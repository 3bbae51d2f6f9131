//! The program: see `bcbridge --help`, and the library for everything else.

use std::process::ExitCode;

/// For Rust and C alike, so that librdkafka's threads have no heaps of their own: with the C library's allocator a bridge
/// that has been under load for long holds a third more memory than it uses.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    bcbridge::cli::main()
}
