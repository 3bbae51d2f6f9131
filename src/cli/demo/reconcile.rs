//! The demo's last word: does every topic hold what the store holds, and is every callback accounted for?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::observe::{entity_topics, topic};
use super::{Output, STORE, say};
use crate::catalog::Catalog;
use crate::kafka::read_back::{End, ReadBack, read_back};
use crate::kafka::settings::ClientSettings;
use crate::kafka::topics::Topics;
use crate::model::record::InRecord;
use crate::sandbox::Control;

/// How long the bridge may take to catch up once the shoppers went home. Beyond the re-reads of a state that
/// lags (36 s) and a window of the rate limit (30 s).
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Reading all topics once.
const READ: Duration = Duration::from_secs(30);
/// Differences that are printed.
const SHOWN: usize = 10;

/// What the comparison found.
#[derive(Debug, Default)]
pub(super) struct Report {
    callbacks: usize,
    listed: usize,
    quarantined: usize,
    commands: usize,
    results: usize,
    records: usize,
    /// Records and keys of each entity.
    entities: BTreeMap<String, (usize, usize)>,
    /// Entities of which the sandbox has nothing to compare with.
    uncompared: BTreeSet<String>,
    differences: Vec<String>,
    ran: Duration,
    calls: u64,
    refused: u64,
}

impl Report {
    pub(super) fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }

    pub(super) fn print(&self, output: Output, first: Option<Duration>) -> Result<()> {
        let first = first.map(|first| first.as_secs_f64());
        if output == Output::Json {
            let entities: BTreeMap<_, _> = self
                .entities
                .iter()
                .map(|(name, (records, keys))| (name, json!({ "records": records, "keys": keys })))
                .collect();
            let report = json!({
                "clean": self.is_clean(), "differences": self.differences, "uncompared": self.uncompared,
                "callbacks": self.callbacks, "listed": self.listed, "quarantined": self.quarantined, "commands": self.commands,
                "results": self.results, "records": self.records, "entities": entities,
                "api_calls": self.calls, "api_429": self.refused, "seconds": self.ran.as_secs_f64(),
                "seconds_to_first_record": first,
            });
            return say(format_args!("{report:#}"));
        }
        say(format_args!(
            "\n{} entity records on {} topics in {:.0} s:",
            self.records,
            self.entities.values().filter(|(records, _)| *records > 0).count(),
            self.ran.as_secs_f64()
        ))?;
        for (entity, (records, keys)) in self.entities.iter().filter(|(_, (records, _))| *records > 0) {
            say(format_args!("  {entity:<24} {records:>6} records of {keys:>5} entities"))?;
        }
        say(format_args!("first entity on a topic after {:.1} s", first.unwrap_or_default()))?;
        say(format_args!(
            "{} callbacks answered 200: {} listed in records, {} quarantined",
            self.callbacks, self.listed, self.quarantined
        ))?;
        say(format_args!("{} commands, {} results", self.commands, self.results))?;
        say(format_args!("{} API calls, {} of them refused with 429", self.calls, self.refused))?;
        if !self.uncompared.is_empty() {
            let names = self.uncompared.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            say(format_args!("the sandbox has no rows to compare with of {names}"))?;
        }
        if self.is_clean() {
            return say(format_args!(
                "\nno differences: the topics hold what the store holds, and every callback is accounted for"
            ));
        }
        say(format_args!("\n{} DIFFERENCES", self.differences.len()))?;
        for difference in self.differences.iter().take(SHOWN) {
            say(format_args!("  {difference}"))?;
        }
        Ok(())
    }
}

/// Compares until nothing differs, or the patience ends.
pub(super) async fn run(client: &ClientSettings, control: &Control, ran: Duration) -> Result<Report> {
    let until = Instant::now() + PATIENCE;
    let quiet = tokio::time::timeout(PATIENCE, control.quiesce()).await.is_ok();
    loop {
        let mut report = compare(client, control).await?;
        report.ran = ran;
        if !quiet {
            report.differences.push("the sandbox still has callbacks that nobody answered".into());
        }
        if report.is_clean() || Instant::now() > until {
            return Ok(report);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn compare(client: &ClientSettings, control: &Control) -> Result<Report> {
    let mut report = Report::default();
    let mut listed = BTreeSet::new();
    for (entity, topic) in entity_topics(STORE)? {
        let records = read(client, &topic).await?;
        for record in &records {
            listed.extend(record.header("bc_events").unwrap_or("").split(',').map(str::to_owned));
        }
        let last: BTreeMap<String, Option<Value>> = records.iter().filter_map(last_value).collect();
        report.records += records.len();
        report.entities.insert(entity.clone(), (records.len(), last.len()));
        compare_entity(&entity, &last, control, &mut report)?;
    }
    let quarantined: BTreeSet<String> = read(client, &topic(STORE, "dlq"))
        .await?
        .iter()
        .filter_map(|record| record.header("bc_event").map(str::to_owned))
        .collect();
    let answered = control.deliveries().into_iter().filter(|delivery| delivery.status == Some(200));
    for delivery in answered {
        report.callbacks += 1;
        if listed.contains(&delivery.webhook_id) {
            report.listed += 1;
        } else if quarantined.contains(&delivery.webhook_id) {
            report.quarantined += 1;
        } else {
            report.differences.push(format!(
                "callback {} ({} of {}) is in no record",
                delivery.webhook_id, delivery.scope, delivery.entity_id
            ));
        }
    }
    let ids = |records: Vec<InRecord>| -> BTreeSet<String> {
        records
            .iter()
            .filter_map(|r| {
                serde_json::from_slice::<Value>(r.value.as_deref()?).ok()?["id"].as_str().map(str::to_owned)
            })
            .collect()
    };
    let commands = ids(read(client, &topic(STORE, "commands")).await?);
    let results = ids(read(client, &topic(STORE, "results")).await?);
    (report.commands, report.results) = (commands.len(), results.len());
    report.differences.extend(commands.difference(&results).map(|id| format!("command {id} has no result")));
    let stats = control.stats();
    (report.calls, report.refused) = (stats.calls, stats.status_429);
    Ok(report)
}

/// The last record of each entity of a topic must show the store's state; no record means that it never changed.
fn compare_entity(
    entity: &str,
    last: &BTreeMap<String, Option<Value>>,
    control: &Control,
    report: &mut Report,
) -> Result<()> {
    // The sandbox reads the documentation by itself, and has its own name for the variants. What it makes of others'
    // rows, such as a tree of categories, it has no rows of.
    let state = control.state(if entity == "product_variant" { "variant" } else { entity });
    let Ok(state) = state else {
        if !last.is_empty() {
            report.uncompared.insert(entity.to_owned());
        }
        return Ok(());
    };
    let row = Catalog::embedded()?.entity(entity).cloned();
    // These fields hold the sub-resources' rows, where the entity alone holds links.
    let replaced: Vec<String> = row
        .iter()
        .flat_map(|row| row.include.iter())
        .filter(|include| include.path.is_some())
        .map(|include| include.name.clone())
        .collect();
    let differences = &mut report.differences;
    for (key, found) in last {
        let id = key.rsplit(':').next().unwrap_or(key);
        match (state.get(id), found) {
            (None, None) => {}
            (None, Some(_)) => {
                differences.push(format!("{entity}/{key} is gone from the store, and on the topic"))
            }
            (Some(_), None) => {
                differences.push(format!("{entity}/{key} is in the store, and gone on the topic"))
            }
            (Some(truth), Some(found)) => {
                let fields = truth.as_object().into_iter().flatten();
                let wrong =
                    fields.filter(|(name, value)| !replaced.contains(name) && found.get(name) != Some(value));
                differences.extend(wrong.map(|(name, _)| format!("{entity}/{key} differs in {name}")));
            }
        }
    }
    Ok(())
}

fn last_value(record: &InRecord) -> Option<(String, Option<Value>)> {
    let key = String::from_utf8(record.key.as_ref()?.to_vec()).ok()?;
    let value = record.value.as_deref().map(|value| serde_json::from_slice(value).unwrap_or(Value::Null));
    Some((key, value))
}

/// Every committed record of a topic.
async fn read(client: &ClientSettings, topic: &str) -> Result<Vec<InRecord>> {
    let described = Topics::new(client)?.partitions_of(topic).await?;
    let records = Arc::new(Mutex::new(Vec::new()));
    let taken = records.clone();
    let what = ReadBack {
        topic: topic.to_owned(),
        partitions: (0..described).collect(),
        end: End::Stable,
        deadline: READ,
    };
    read_back(client, what, move |record| taken.lock().unwrap_or_else(PoisonError::into_inner).push(record))
        .await?;
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *records))
}
