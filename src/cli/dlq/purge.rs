//! `dlq purge`: deletes letters from the beginning of their partitions, which is all that Kafka offers.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::args::PurgeArgs;
use super::desk::{Desk, Note, Store, time};
use super::letters;
use crate::cli::{EXIT_CHANGES, Output, say};
use crate::kafka::span::Range;
use crate::kafka::topics::Topics;
use crate::model::signal::Kind;

/// What would be deleted.
#[derive(Default)]
struct Cut {
    /// The letters, and those that stay.
    letters: u64,
    kept: u64,
    /// Of each partition, the first offset that stays.
    below: BTreeMap<i32, i64>,
}

pub(super) async fn run(args: PurgeArgs, output: Output) -> Result<ExitCode> {
    let given = args.filter.given();
    if !given.is_empty() || (args.before.is_none() && !args.all) {
        return Ok(super::wrong(&refusal(&given)));
    }
    let desk = match Desk::open(&args.config).await? {
        Ok(desk) => desk,
        Err(code) => return Ok(code),
    };
    let stores = match desk.stores(Some(&args.store)) {
        Ok(stores) => stores,
        Err(error) => return Ok(super::wrong(&error)),
    };
    let store = &stores[0];
    let cut = cut(&desk, store, args.before).await?;
    let topic = &store.topics.dead_letters;
    let asked = args.before.map_or_else(|| "--all".to_owned(), |before| format!("--before {}", time(before)));
    let question = format!("Delete {} of {topic} for good, and keep {}?", letters(cut.letters), cut.kept);
    let goes = !args.dry_run && cut.letters > 0 && (args.yes || super::consents(&question)?);
    if goes {
        let id = uuid::Uuid::now_v7().to_string();
        let note = |kind, rows, detail| Note { id: id.clone(), kind, rows, total: cut.letters, detail };
        // Before anything is done: what cannot be noted is not done.
        desk.note(store, note(Kind::Accepted, 0, format!("dlq purge {asked}"))).await?;
        let topics = Topics::new(&desk.client)?;
        topics.delete_below(topic, &cut.below).await.with_context(|| hint(topic))?;
        desk.note(store, note(Kind::DlqPurged, cut.letters, format!("dlq purge {asked}"))).await?;
    }
    let deleted = if goes { cut.letters } else { 0 };
    match output {
        Output::Json => {
            let told = json!({
                "store": store.name, "dry_run": args.dry_run, "letters": cut.letters, "deleted": deleted,
                "kept": cut.kept, "below": cut.below,
            });
            say(format_args!("{}", serde_json::to_string_pretty(&told)?))?;
        }
        Output::Table if goes => say(format_args!("{} deleted, {} kept", letters(deleted), cut.kept))?,
        Output::Table => {
            say(format_args!(
                "{} would be deleted, {} kept; nothing was done",
                letters(cut.letters),
                cut.kept
            ))?;
        }
    }
    let is_done = goes || args.dry_run || cut.letters == 0;
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHANGES) })
}

fn refusal(given: &[&str]) -> anyhow::Error {
    let found = if given.is_empty() { "neither".to_owned() } else { given.join(", ") };
    anyhow::anyhow!(
        "purge takes --before TIME or --all, and no other condition; given is {found}. Kafka deletes the records of a \
         partition only from its beginning, so single letters cannot be taken out. Those that were replayed may stay: no \
         replay takes them twice, and the topic's retention deletes them"
    )
}

fn hint(topic: &str) -> String {
    format!(
        "nothing more was deleted; it needs the right to Delete on {topic}, and cleanup.policy=delete there"
    )
}

/// Up to the first letter of each partition that is not older. Those behind it stay, even where their clock says that
/// they are older.
async fn cut(desk: &Desk, store: &Store, before: Option<i64>) -> Result<Cut> {
    let extent: BTreeMap<i32, Range> = desk.extent(store).await?;
    let mut cut = Cut::default();
    let mut ends = BTreeMap::new();
    desk.read(store, &extent, |letter, _| {
        let (number, offset) = (letter.position.partition.number, letter.position.offset);
        if ends.contains_key(&number) || before.is_some_and(|before| letter.at_ms >= before) {
            ends.entry(number).or_insert(offset);
            cut.kept += 1;
        } else {
            cut.letters += 1;
            cut.below.insert(number, offset + 1);
        }
        Ok(())
    })
    .await?;
    Ok(cut)
}
