//! For tests: the log of a closure as text.
//!
//! The subscriber is set for the calling thread only, so tests can run beside each other. It never reaches stderr.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where captured lines go.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sink {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What `act` returns and what it logged on this thread, as text at the finest level.
pub(crate) fn captured<T>(act: impl FnOnce() -> T) -> (T, String) {
    captured_with(EnvFilter::new("trace"), false, act)
}

/// The same with a filter and a format.
pub(crate) fn captured_with<T>(filter: EnvFilter, json: bool, act: impl FnOnce() -> T) -> (T, String) {
    let sink = Sink::default();
    let output = tracing::subscriber::with_default(super::subscriber(filter, json, sink.clone()), act);
    (output, sink.text())
}
