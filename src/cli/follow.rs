//! Sends a signal and shows the notifications that answer it: a line that moves on a terminal, plain lines
//! elsewhere, JSON lines for programs.
//!
//! A bridge that does not answer is said so after [`PATIENCE`]; the signal stays on its topic. Once it answered, its
//! notifications are followed for as long as it takes.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use super::ends::Results;
use super::{ConfigArg, EXIT_FAILURE, EXIT_USAGE, Output, complain, store};
use crate::app::{Cluster, Load, signals};
use crate::config::Settings;
use crate::kafka::append::IntakeProducer;
use crate::kafka::tail::Tail;
use crate::model::signal::{Ask, Kind, Notification, Signal, Snapshots};

/// How long a running bridge may take to answer: its leader reads signals as they come, unless it just moved.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the signals topic may take to acknowledge.
const APPEND_DEADLINE: Duration = Duration::from_secs(10);

/// Columns of the bar.
const BAR: u64 = 24;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    Not,
    /// Whether the signal was taken.
    ForAnAnswer,
    /// The end of what it started.
    ForTheEnd,
}

/// A checked signal, about to be sent.
pub(super) struct Asking {
    settings: Arc<Settings>,
    signal: Signal,
}

impl Asking {
    /// Loads the settings and checks what is asked; mistakes are printed and become the exit code.
    pub(super) fn prepare(
        config: &ConfigArg,
        ask: impl FnOnce(&Settings) -> Result<Ask>,
    ) -> Result<Self, ExitCode> {
        let settings = store::load(config)?;
        let settings = Arc::new(settings);
        // The rows of the settings are as good as the built-in ones.
        let signal = Load::new(settings.clone()).and_then(|Load { settings, catalog }| {
            signals::checked(&settings, &catalog, signals::fresh(ask(&settings)?))
        });
        match signal {
            Ok(signal) => Ok(Self { settings, signal }),
            Err(error) => {
                complain(format_args!("error: {error:#}"));
                Err(ExitCode::from(EXIT_USAGE))
            }
        }
    }

    /// Sends it and waits.
    pub(super) async fn run(self, wait: Wait, output: Output) -> Result<ExitCode> {
        let Self { settings, signal } = self;
        super::store::needs_a_cluster(&settings)?;
        let cluster = Cluster::reach(&settings, None, None).await?;
        let notifications = signals::notifications_topic(&settings);
        // The end of the notifications is noted before the signal is sent, so that no answer can be missed.
        let tail = match wait {
            Wait::Not => None,
            Wait::ForAnAnswer | Wait::ForTheEnd => {
                Some(Tail::from_end(&cluster.client, &notifications).await?)
            }
        };
        let producer = IntakeProducer::new(cluster.client.clone(), APPEND_DEADLINE)?;
        signals::send(&producer, &signals::signals_topic(&settings), &signal).await?;
        let Some(mut tail) = tail else {
            super::say(format_args!("{}", signal.id))?;
            return Ok(ExitCode::SUCCESS);
        };
        let mut screen = Screen::new(output);
        let last = follow(&mut tail, &signal, wait, &mut screen).await;
        screen.end()?;
        Ok(match last? {
            Some(last) if !last.kind.is_failure() && last.kind != Kind::SnapshotStopped => ExitCode::SUCCESS,
            Some(_) => ExitCode::from(EXIT_FAILURE),
            None => {
                complain(format_args!(
                    "error: no answer within {} s; is the bridge running? The signal {} stays on the topic until it is",
                    PATIENCE.as_secs(),
                    signal.id
                ));
                ExitCode::from(EXIT_FAILURE)
            }
        })
    }
}

/// Shows what is told until what is waited for; gives the last, or none when nobody answered.
async fn follow(
    tail: &mut Tail,
    signal: &Signal,
    wait: Wait,
    screen: &mut Screen,
) -> Result<Option<Notification>> {
    let mut answered = false;
    let began = tokio::time::Instant::now();
    loop {
        let record = if answered {
            tail.next().await?
        } else {
            match timeout(PATIENCE.saturating_sub(began.elapsed()), tail.next()).await {
                Ok(record) => record?,
                Err(_) => return Ok(None),
            }
        };
        let told = record.value.as_deref().map(serde_json::from_slice::<Notification>);
        // What a newer bridge tells and this program does not know is for newer programs.
        let Some(Ok(told)) = told else { continue };
        let ours = told.id == signal.id;
        if !ours && !is_asked_for(&signal.ask, &told) {
            continue;
        }
        answered |= ours;
        screen.show(&told)?;
        let is_answer = matches!(told.kind, Kind::Accepted | Kind::Rejected);
        if ours && (told.is_end() || (wait == Wait::ForAnAnswer && is_answer)) {
            return Ok(Some(told));
        }
    }
}

/// Whether a snapshot's notification is what a signal about snapshots asks for.
fn is_asked_for(ask: &Ask, told: &Notification) -> bool {
    let which: &Snapshots = match ask {
        Ask::TellSnapshot(which)
        | Ask::PauseSnapshot(which)
        | Ask::ResumeSnapshot(which)
        | Ask::StopSnapshot(which) => which,
        Ask::StartSnapshot { .. } | Ask::StartSweep { .. } | Ask::Sync { .. } | Ask::EndHalt { .. } => {
            return false;
        }
    };
    told.kind.is_of_a_snapshot() && which.covers(told.store.as_deref().unwrap_or_default(), &told.id)
}

/// Where notifications are shown.
struct Screen {
    style: Style,
    /// The moving line holds something.
    is_dirty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Moving,
    Plain,
    Json,
}

impl Screen {
    fn new(output: Output) -> Self {
        let style = match output {
            Output::Json => Style::Json,
            Output::Table if std::io::stdout().is_terminal() => Style::Moving,
            Output::Table => Style::Plain,
        };
        Self { style, is_dirty: false }
    }

    fn show(&mut self, told: &Notification) -> Result<()> {
        let mut out = Results;
        match self.style {
            Style::Json => return super::say(format_args!("{}", serde_json::to_string(told)?)),
            Style::Plain => return super::say(format_args!("{}", line(told))),
            Style::Moving => {}
        }
        let clear = if self.is_dirty { "\r\x1b[2K" } else { "" };
        let moves = matches!(told.kind, Kind::SnapshotProgress | Kind::SweepProgress);
        self.is_dirty = moves;
        let shown = if moves { bar(told) } else { line(told) };
        let end = if moves { "" } else { "\n" };
        write!(out, "{clear}{shown}{end}").and_then(|()| out.flush()).context("writing the result")
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_dirty) { super::say(format_args!("")) } else { Ok(()) }
    }
}

/// A notification as one line.
fn line(told: &Notification) -> String {
    let mut text = format!("{}  {}", told.kind.name(), told.id);
    if let Some(entity) = &told.entity {
        text.push_str(&format!("  {entity}"));
    }
    if !matches!(told.kind, Kind::Accepted | Kind::Rejected) {
        text.push_str(&format!("  {}", counts(told)));
    }
    if let Some(detail) = &told.detail {
        text.push_str(&format!("  {detail}"));
    }
    text
}

/// A notification as a bar.
fn bar(told: &Notification) -> String {
    let name = told.entity.as_deref().unwrap_or("all");
    let Some(total) = told.total.filter(|total| *total > 0) else {
        return format!("{name}  {}", counts(told));
    };
    let rows = told.rows.min(total);
    let full = (u128::from(rows) * u128::from(BAR) / u128::from(total)) as usize;
    let percent = u128::from(rows) * 100 / u128::from(total);
    format!("{name}  [{}{}] {percent} %  {}", "#".repeat(full), ".".repeat(BAR as usize - full), counts(told))
}

/// Rows, calls, the rate and how long it may still take.
fn counts(told: &Notification) -> String {
    let rows = match told.total {
        Some(total) => format!("{} of {total} rows", told.rows),
        None => format!("{} rows", told.rows),
    };
    let mut text = format!("{rows}, {} calls", told.calls);
    let Some(rate) = rate(told) else { return text };
    text.push_str(&format!(", {rate:.0} rows/s"));
    let ahead = told.total.map_or(0, |total| total.saturating_sub(told.rows));
    if ahead > 0 && !told.kind.is_end() {
        text.push_str(&format!(", {} left", span(ahead as f64 / rate)));
    }
    text
}

/// Rows a second since the work began; none where that says nothing yet.
fn rate(told: &Notification) -> Option<f64> {
    let seconds = told.at.duration_since(told.started_at?).as_secs_f64();
    (seconds >= 1.0 && told.rows > 0).then(|| told.rows as f64 / seconds)
}

fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(rows: u64, total: Option<u64>, seconds: i64) -> Notification {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        Notification {
            entity: Some("product".to_owned()),
            rows,
            total,
            calls: 2,
            started_at: Some(at(0)),
            ..Notification::new("s-1", Kind::SnapshotProgress, Some("main"), at(seconds))
        }
    }

    #[test]
    fn a_bar_shows_how_far_it_is_how_fast_and_how_long_it_will_take() {
        for (told, expected) in [
            (
                progress(25_000, Some(100_000), 100),
                "product  [######..................] 25 %  25000 of 100000 rows, 2 calls, 250 rows/s, 5 min 0 s left",
            ),
            (progress(500, None, 10), "product  500 rows, 2 calls, 50 rows/s"),
            (progress(0, Some(10), 0), "product  [........................] 0 %  0 of 10 rows, 2 calls"),
            (
                progress(20, Some(10), 4),
                "product  [########################] 100 %  20 of 10 rows, 2 calls, 5 rows/s",
            ),
            (progress(0, Some(0), 5), "product  0 of 0 rows, 2 calls"),
        ] {
            assert_eq!(bar(&told), expected);
        }
    }

    #[test]
    fn long_times_are_told_in_hours_and_short_ones_in_seconds() {
        assert_eq!([0.2, 61.0, 7_260.0].map(span), ["1 s", "1 min 1 s", "2 h 1 min"]);
    }
}
