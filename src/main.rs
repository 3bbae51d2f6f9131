//! The program: see `bcbridge --help`, and the library for everything else.

use std::process::ExitCode;

fn main() -> ExitCode {
    bcbridge::cli::main()
}
