//! Standard output and standard error as commands use them: a reader that went away (`head`, a pager, a log shipper)
//! ends a command quietly, where `println!` and `eprintln!` would panic.

use std::io::{self, ErrorKind, Write};

/// Standard output. Where its reader had enough, every write fails with an error that [`is_reader_gone`] knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Results;

/// Standard error. Where nobody reads it any more, what is written is dropped: the exit code still tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Complaints;

/// A type of its own: a broken pipe of a connection is no such thing.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the result went away")]
struct ReaderGone;

/// Whether a command failed because the reader of its result had enough.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    let told = |cause: &io::Error| cause.get_ref().is_some_and(|inner| inner.is::<ReaderGone>());
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(told)
}

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, ReaderGone),
        _ => error,
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(named)
    }
}

impl Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes).or_else(|error| match error.kind() {
            ErrorKind::BrokenPipe => Ok(bytes.len()),
            _ => Err(error),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn only_the_reader_of_the_result_ends_a_command_quietly() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        let of_a_connection: anyhow::Result<()> = Err(broken()).context("asking the store");
        assert!(!is_reader_gone(&of_a_connection.unwrap_err()));
        let of_the_reader: anyhow::Result<()> = Err(named(broken())).context("writing the result");
        assert!(is_reader_gone(&of_the_reader.unwrap_err()));
        assert_eq!(named(io::Error::from(ErrorKind::StorageFull)).kind(), ErrorKind::StorageFull);
    }
}
