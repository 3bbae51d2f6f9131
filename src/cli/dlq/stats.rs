//! `dlq stats`: how many letters there are of each kind.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::StatsArgs;
use super::desk::{Desk, time};
use crate::cli::{Output, say};
use crate::model::letter::Letter;

/// Values of one kind that are told apart: reasons, statuses and topics are few, and what is not is not the bridge's.
const MAX_VALUES: usize = 200;
/// The value of all further ones.
const OTHERS: &str = "(others)";
const HOUR_MS: i64 = 3_600_000;

#[derive(Default)]
struct Stats {
    letters: u64,
    oldest_ms: Option<i64>,
    newest_ms: Option<i64>,
    by: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

pub(super) async fn run(args: StatsArgs, output: Output) -> Result<ExitCode> {
    let desk = match Desk::open(&args.config).await? {
        Ok(desk) => desk,
        Err(code) => return Ok(code),
    };
    let (stores, chosen) = match (desk.stores(args.store.as_deref()), args.filter.chosen(&desk.catalog)) {
        (Ok(stores), Ok(chosen)) => (stores, chosen),
        (Err(error), _) | (_, Err(error)) => return Ok(super::wrong(&error)),
    };
    let now_ms = Timestamp::now().as_millisecond();
    let mut all = Vec::new();
    for store in &stores {
        let mut stats = Stats::default();
        let counted = desk.read_chosen(store, &chosen, |letter| {
            stats.count(&letter, now_ms);
            Ok(())
        });
        counted.await?;
        all.push((store.name.clone(), stats));
    }
    match output {
        Output::Json => {
            let stores: Vec<Value> = all.iter().map(|(store, stats)| stats.described(store)).collect();
            say(format_args!("{}", serde_json::to_string_pretty(&stores)?))?;
        }
        Output::Table => say(format_args!("{}", table(&all)))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Stats {
    fn count(&mut self, letter: &Letter, now_ms: i64) {
        self.letters += 1;
        let at = letter.at_ms;
        self.oldest_ms = Some(self.oldest_ms.map_or(at, |oldest| oldest.min(at)));
        self.newest_ms = Some(self.newest_ms.map_or(at, |newest| newest.max(at)));
        let status = letter.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let topic = letter.origin_topic.as_deref().unwrap_or("unknown");
        for (by, value) in [
            ("reason", letter.reason.as_str()),
            ("status", status.as_str()),
            ("topic", topic),
            ("age", age(now_ms - at)),
            ("replays", if letter.replays == 0 { "never replayed" } else { "replayed before" }),
        ] {
            let values = self.by.entry(by).or_default();
            let value = if values.len() < MAX_VALUES || values.contains_key(value) { value } else { OTHERS };
            *values.entry(value.to_owned()).or_default() += 1;
        }
    }

    fn described(&self, store: &str) -> Value {
        json!({
            "store": store,
            "letters": self.letters,
            "oldest": self.oldest_ms.map(time),
            "newest": self.newest_ms.map(time),
            "by": self.by,
        })
    }
}

fn age(ms: i64) -> &'static str {
    match ms {
        ..HOUR_MS => "under an hour",
        HOUR_MS..86_400_000 => "under a day",
        86_400_000..604_800_000 => "under a week",
        _ => "a week or more",
    }
}

fn table(all: &[(String, Stats)]) -> comfy_table::Table {
    let mut table = super::table(&["store", "by", "value", "letters"]);
    for (store, stats) in all {
        table.add_row([store.as_str(), "all", "", &stats.letters.to_string()]);
        for (by, values) in &stats.by {
            let mut values: Vec<_> = values.iter().collect();
            values.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (value, count) in values {
                table.add_row([store.as_str(), by, value, &count.to_string()]);
            }
        }
    }
    table
}
