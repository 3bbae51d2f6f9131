//! `dlq list`: letters without what they hold. No more are kept in memory than are shown.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::args::ListArgs;
use super::desk::{Desk, described, key, time};
use crate::cli::{Output, say};
use crate::model::letter::Letter;

/// Longest key in a table.
const MAX_KEY_CHARS: usize = 40;
const COLUMNS: [&str; 9] =
    ["store", "letter", "at", "reason", "status", "what", "key", "origin", "attempts/replays"];

pub(super) async fn run(args: ListArgs, output: Output) -> Result<ExitCode> {
    let desk = match Desk::open(&args.config).await? {
        Ok(desk) => desk,
        Err(code) => return Ok(code),
    };
    let (stores, chosen) = match (desk.stores(args.store.as_deref()), args.filter.chosen(&desk.catalog)) {
        (Ok(stores), Ok(chosen)) => (stores, chosen),
        (Err(error), _) | (_, Err(error)) => return Ok(super::wrong(&error)),
    };
    let limit = args.limit as usize;
    let mut kept = BTreeMap::new();
    let mut count = 0_u64;
    for store in &stores {
        desk.read_chosen(store, &chosen, |letter| {
            count += 1;
            kept.insert((letter.at_ms, letter.position.clone()), (store.name.clone(), letter));
            if kept.len() > limit {
                if args.oldest {
                    kept.pop_last()
                } else {
                    kept.pop_first()
                };
            }
            Ok(())
        })
        .await?;
    }
    let mut letters: Vec<(String, Letter)> = kept.into_values().collect();
    if !args.oldest {
        letters.reverse();
    }
    show(&letters, output)?;
    if output == Output::Table {
        say(format_args!("{} of {}", letters.len(), super::letters(count)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(letters: &[(String, Letter)], output: Output) -> Result<()> {
    match output {
        Output::Json => {
            let rows: Vec<Value> = letters.iter().map(|(store, letter)| described(store, letter)).collect();
            say(format_args!("{}", serde_json::to_string_pretty(&rows)?))
        }
        Output::Table => {
            say(format_args!("{}", table(letters.iter().map(|(store, letter)| (store.as_str(), letter)))))
        }
    }
}

/// Letters as a table.
pub(super) fn table<'a>(letters: impl Iterator<Item = (&'a str, &'a Letter)>) -> comfy_table::Table {
    let mut table = super::table(&COLUMNS);
    for (store, letter) in letters {
        let place = format!("{}/{}", letter.position.partition.number, letter.position.offset);
        let status = letter.status.map_or_else(String::new, |status| status.to_string());
        let counts = format!("{}/{}", letter.attempts, letter.replays);
        let cells = [
            store.to_owned(),
            place,
            time(letter.at_ms),
            letter.reason.clone(),
            status,
            what(letter),
            short(key(letter)),
            origin(letter),
            counts,
        ];
        table.add_row(cells);
    }
    table
}

/// Entity and action of a command, the scope of a callback.
fn what(letter: &Letter) -> String {
    match (&letter.scope, &letter.entity, &letter.action) {
        (Some(scope), ..) => scope.clone(),
        (None, Some(entity), Some(action)) => format!("{entity} {action}"),
        (None, entity, action) => entity.clone().or_else(|| action.clone()).unwrap_or_default(),
    }
}

/// Where the record stood; only the topic where it stood nowhere.
pub(super) fn origin(letter: &Letter) -> String {
    let topic = || letter.origin_topic.as_deref().unwrap_or_default().to_owned();
    letter.origin.as_ref().map_or_else(topic, ToString::to_string)
}

/// A sender's text that cannot disturb a terminal.
fn short(text: Option<String>) -> String {
    let text = text.unwrap_or_default();
    let cut: String = text.chars().filter(|c| !c.is_control()).take(MAX_KEY_CHARS).collect();
    if text.chars().count() > MAX_KEY_CHARS { format!("{cut}…") } else { cut }
}
