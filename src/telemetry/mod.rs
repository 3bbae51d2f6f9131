//! Telemetry: the log, the metrics, the state of readiness and the clock. It stands below everything else.
//!
//! The log goes to stderr, one event a line, as text or JSON; a value is escaped and cut, so that nothing from the
//! network can forge a line or drive a terminal. Metric names are constants in [`names`] and labels come from closed
//! sets. It never sees a body, a token, a name or an address, and it never fails the code that reports to it: only
//! [`init`] can fail, at the start, when `RUST_LOG` cannot be read or the log was set up before.

pub mod clock;
mod lines;
pub mod metrics;
pub mod names;
mod readiness;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::io::{IsTerminal as _, stderr};
use std::str::FromStr;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, ParseError};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, fmt as lines_to};

pub use clock::{Clock, ManualClock, SystemClock};
pub use metrics::Metrics;
pub use readiness::{Readiness, ReadyFlag};

/// The variable that overrides what is logged, in the words of `tracing_subscriber::EnvFilter`.
pub const FILTER_VARIABLE: &str = "RUST_LOG";

/// Libraries that print what goes over the wire when asked for details, credentials included: never below info.
const WIRE_LIBRARIES: [&str; 6] = ["h2", "hyper", "hyper_util", "reqwest", "rustls", "tower"];

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, target, message, fields, spans.
    Text,
    /// For machines: one JSON object a line.
    Json,
    /// [`Text`](Self::Text) when stderr is a terminal, else [`Json`](Self::Json).
    #[default]
    Auto,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "auto" => Ok(Self::Auto),
            other => Err(format!("found `{}`; allowed are `text`, `json` and `auto`", lines::escaped(other))),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Auto => "auto",
        })
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `RUST_LOG` holds something that is no filter.
    #[error(
        "found `{found}` in {FILTER_VARIABLE}; allowed is a list such as `info,bcbridge=debug`; correct or unset it"
    )]
    Filter {
        /// What the variable holds.
        found: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The log was set up before in this process.
    #[error("the log of this process was already set up")]
    Twice(#[from] TryInitError),
}

/// Sets up the log of the process, once: to stderr, in `format`.
///
/// What is logged: `RUST_LOG` where it is set and not empty, else by `verbosity` (the number of `-v`): 0 the life of the
/// process, 1 each batch, 2 each record, 3 the libraries too; -1 errors of the bridge only, for a command that shows
/// what happens by itself. Records of librdkafka arrive under the target
/// `librdkafka`: warnings by default, one level more with each `-v`.
///
/// # Errors
/// See [`InitError`].
pub fn init(format: LogFormat, verbosity: i8) -> Result<(), InitError> {
    let found = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = filter(found.as_deref(), verbosity)?;
    let json = match format {
        LogFormat::Text => false,
        LogFormat::Json => true,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    subscriber(filter, json, stderr).try_init()?;
    Ok(())
}

/// What is let through: the user's words where there are any, else those of the verbosity.
fn filter(found: Option<&str>, verbosity: i8) -> Result<EnvFilter, InitError> {
    let words = found.unwrap_or(match verbosity {
        ..0 => "off,bcbridge=error",
        0 => "info,librdkafka=warn,rdkafka=warn,noida=warn",
        1 => "info,bcbridge=debug,librdkafka=info",
        2 => "info,bcbridge=trace,librdkafka=debug",
        _ => "trace",
    });
    EnvFilter::builder()
        .parse(words)
        .map_err(|source| InitError::Filter { found: lines::escaped(words), source })
}

/// The whole pipeline, with the place where lines go as an argument, for tests.
fn subscriber<W>(filter: EnvFilter, json: bool, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> lines_to::MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = lines_to::layer()
        .with_ansi(false)
        // Told with `eprintln!`, which panics where nobody reads the log any more.
        .log_internal_errors(false)
        .with_writer(writer)
        .event_format(lines::Lines { json })
        .fmt_fields(lines::Fields { json })
        .with_filter(FilterFn::new(|metadata| !tells_the_wire(metadata)));
    tracing_subscriber::registry().with(filter).with(lines)
}

/// Whether an event could print a request with its credentials. It holds whatever `RUST_LOG` says.
fn tells_the_wire(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() > Level::INFO && WIRE_LIBRARIES.contains(&library)
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::{Sink, captured_with};

    #[test]
    fn a_filter_that_cannot_be_read_is_answered_with_what_was_found_and_what_is_allowed() {
        let error = filter(Some("bcbridge=loud\n"), 0).unwrap_err().to_string();
        assert!(error.contains("bcbridge=loud\\n") && error.contains("info,bcbridge=debug"), "{error}");
    }

    #[test]
    fn every_verbosity_is_a_filter_and_the_variable_wins_over_it() {
        for verbosity in 0..=i8::MAX {
            filter(None, verbosity).unwrap();
        }
        let ((), log) = captured_with(filter(Some("error"), 3).unwrap(), false, || tracing::warn!("quiet"));
        assert_eq!(log, "");
    }

    #[test]
    fn a_log_format_reads_what_it_prints() {
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Auto] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("`json`"));
    }

    #[test]
    fn libraries_that_see_tokens_stay_silent_below_info_whatever_is_asked_for() {
        let ((), log) = captured_with(filter(Some("trace"), 0).unwrap(), false, || {
            tracing::trace!(target: "hyper::proto::h1", "x-auth-token: canary");
            tracing::debug!(target: "reqwest", "x-auth-token: canary");
            tracing::info!(target: "reqwest::connect", "connecting");
            tracing::trace!(target: "bcbridge::incoming", "a record");
        });
        assert!(!log.contains("canary"), "{log}");
        assert!(log.contains("connecting") && log.contains("a record"), "{log}");
    }

    #[test]
    fn records_of_the_log_crate_keep_their_target_and_obey_the_filter() {
        // What rdkafka does is done here by hand, since a test must not replace the logger of the whole process.
        let sink = Sink::default();
        let dispatch = tracing::Dispatch::new(subscriber(filter(None, 0).unwrap(), false, sink.clone()));
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(target: "librdkafka", "chatter");
            tracing::warn!(target: "librdkafka", "broker down");
            tracing::info!(target: "log", { log.target = "librdkafka", log.line = 7 }, "through the bridge");
        });
        let log = sink.text();
        assert!(!log.contains("chatter"), "{log}");
        assert!(log.contains("WARN librdkafka: broker down"), "{log}");
        assert!(log.contains("INFO librdkafka: through the bridge\n"), "{log}");
    }
}
