//! `dlq replay`: decides which letters go back, says so, asks, and has them sent.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::ReplayArgs;
use super::desk::{Desk, Note, Store, conditions};
use super::send::{End, Origins, Sending};
use crate::cli::{EXIT_CHANGES, EXIT_FAILURE, Output, complain, say};
use crate::model::letter::{Judge, Letter, Rules, Verdict};
use crate::model::signal::Kind;

/// Letters that are shown before a replay.
const SHOWN: usize = 20;

pub(super) async fn run(args: ReplayArgs, output: Output) -> Result<ExitCode> {
    let desk = match Desk::open(&args.config).await? {
        Ok(desk) => desk,
        Err(code) => return Ok(code),
    };
    let given = args.filter.given();
    if given.is_empty() != args.all {
        let found = if args.all { format!("--all and {}", given.join(", ")) } else { "neither".to_owned() };
        let error = anyhow::anyhow!("name the letters by conditions, or take --all; given is {found}");
        return Ok(super::wrong(&error));
    }
    let (stores, chosen) = match (desk.stores(Some(&args.store)), args.filter.chosen(&desk.catalog)) {
        (Ok(stores), Ok(chosen)) => (stores, chosen),
        (Err(error), _) | (_, Err(error)) => return Ok(super::wrong(&error)),
    };
    let store = &stores[0];
    let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut judge = Judge::new(Rules { max_replays: args.max_replays, force: args.force });
    // All are read, for what is newer than a letter may be a letter itself.
    desk.read(store, &desk.extent(store).await?, |letter, record| {
        let is_wanted = chosen.covers(&store.name, &letter, &record)?;
        let is_command = letter.origin_topic.as_deref() != Some(&*store.topics.intake);
        Ok(judge.letter(letter, is_wanted, is_command)?)
    })
    .await?;
    let mut origins = Origins::default();
    origins.catch_up(&desk.client, &mut judge).await?;
    let go = judge.order(limit);
    if output == Output::Table {
        preview(&store.name, &go)?;
    }
    let counts = judge.counts();
    let total = go.len() as u64;
    if args.dry_run || total == 0 || !(args.yes || consents(total, &counts)?) {
        return close(&args, store, output, &counts, None);
    }
    let asked = conditions(&args.filter, &chosen);
    let force = if args.force { " --force" } else { "" };
    let id = uuid::Uuid::now_v7().to_string();
    let note = |kind, rows, detail| Note { id: id.clone(), kind, rows, total, detail };
    // Before anything is done: what cannot be noted is not done.
    desk.note(store, note(Kind::Accepted, 0, format!("dlq replay {asked}{force}"))).await?;
    let sending = Sending { desk: &desk, store, rate: args.rate, limit };
    let (sent, end) = sending.run(&mut judge, &mut origins).await;
    let detail = format!("dlq replay {asked}{force}: {}", end.told());
    desk.note(store, note(Kind::DlqReplayed, sent, detail)).await?;
    close(&args, store, output, &judge.counts(), Some((sent, end)))
}

fn consents(total: u64, counts: &BTreeMap<Verdict, u64>) -> Result<bool> {
    let left: u64 = counts.iter().filter(|(verdict, _)| is_left(**verdict)).map(|(_, count)| count).sum();
    super::consents(&format!("Replay {}, and leave {left}?", super::letters(total)))
}

fn preview(store: &str, go: &[&Letter]) -> Result<()> {
    if go.is_empty() {
        return Ok(());
    }
    say(format_args!("{}", super::list::table(go.iter().take(SHOWN).map(|letter| (store, *letter)))))?;
    if go.len() > SHOWN {
        say(format_args!("and {} more", go.len() - SHOWN))?;
    }
    say(format_args!(""))
}

/// Whether letters of this verdict are meant and stay where they are.
fn is_left(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Replay | Verdict::Done => false,
        Verdict::TooOften | Verdict::InDoubt | Verdict::Stale | Verdict::Unsure | Verdict::Lost => true,
    }
}

/// Says how it ended. What is sent counts as done by then.
fn close(
    args: &ReplayArgs,
    store: &Store,
    output: Output,
    counts: &BTreeMap<Verdict, u64>,
    ran: Option<(u64, End)>,
) -> Result<ExitCode> {
    let count = |verdict| counts.get(&verdict).copied().unwrap_or(0);
    let (sent, end) = ran.map_or((0, None), |(sent, end)| (sent, Some(end)));
    match output {
        Output::Json => {
            let left: BTreeMap<&str, u64> =
                counts.iter().map(|(verdict, count)| (verdict.name(), *count)).collect();
            let end = end.as_ref().map(End::told);
            let told: Value = json!({
                "store": store.name, "dry_run": args.dry_run, "replayed": sent, "letters": left, "end": end,
            });
            say(format_args!("{}", serde_json::to_string_pretty(&told)?))?;
        }
        Output::Table => {
            if end.is_some() {
                say(format_args!("{} replayed", super::letters(sent)))?;
            }
            for verdict in Verdict::ALL {
                let before = if verdict == Verdict::Done { sent } else { 0 };
                match count(verdict).saturating_sub(before) {
                    0 => {}
                    count => say(format_args!("{count} {}", verdict.meaning()))?,
                }
            }
        }
    }
    let is_any_left = counts.iter().any(|(verdict, count)| *count > 0 && *verdict != Verdict::Done);
    Ok(match end {
        Some(End::Failed(error)) => {
            complain(format_args!("error: {error}; call it again: what is on its topic is not sent twice"));
            ExitCode::from(EXIT_FAILURE)
        }
        Some(End::Stopped) => {
            complain(format_args!("stopped; call it again, and it goes on where it ended"));
            ExitCode::from(EXIT_FAILURE)
        }
        Some(End::All) | None if args.dry_run || !is_any_left => ExitCode::SUCCESS,
        Some(End::All) | None => ExitCode::from(EXIT_CHANGES),
    })
}
