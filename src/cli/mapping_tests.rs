//! `bcbridge test`: the examples that stand beside the mappings in the settings, each run as a real record would be.
//! Needs neither Kafka nor a store. Exit code 0 when all pass, 1 when one fails, 64 when the settings are wrong.

use std::process::ExitCode;

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{ConfigArg, EXIT_FAILURE, Output, say, store};
use crate::app::outgoing::{fixed, mapping};
use crate::catalog::Catalog;
use crate::config::{Expected, IncomingSettings, MappingTest, OutgoingSettings, Settings};
use crate::model::record::{InRecord, Partition, Position};
use crate::outgoing::{Trial, trial};

/// Differences told of one test: more would hide the first ones.
const MAX_DIFFERENCES: usize = 10;
/// Longest value in a difference.
const MAX_SHOWN_CHARS: usize = 200;

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

/// What came of one test.
#[derive(Debug, Serialize)]
struct Ran {
    /// Where it stands in the settings.
    at: String,
    /// Its name.
    name: String,
    /// The topic of an outgoing entry, the entity of an incoming one.
    of: String,
    passed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
    /// The request that the record leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Value>,
}

pub(super) fn run(args: &Args, output: Output) -> Result<ExitCode> {
    let settings = match store::load(&args.config) {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let ran = all(&settings, &Catalog::embedded()?.with_rows(&settings.catalog)?);
    let failed = ran.iter().filter(|test| !test.passed).count();
    match output {
        Output::Json => say(format_args!("{}", serde_json::to_string_pretty(&ran)?))?,
        Output::Table => show(&ran, failed)?,
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

fn show(ran: &[Ran], failed: usize) -> Result<()> {
    for test in ran {
        let word = if test.passed { "ok  " } else { "FAIL" };
        say(format_args!("{word}  {}  {}  ({})", test.of, test.name, test.at))?;
        for failure in &test.failures {
            say(format_args!("      {failure}"))?;
        }
    }
    match ran.len() {
        0 => say(format_args!("no tests: write `tests:` beside a transform")),
        all => say(format_args!("{} passed, {failed} failed", all - failed)),
    }
}

fn all(settings: &Settings, catalog: &Catalog) -> Vec<Ran> {
    let outgoing = settings.outgoing.iter().flat_map(|entry| {
        entry.tests.iter().map(|test| {
            let trial = trial(&record(entry, test), catalog, fixed(entry).as_ref(), &mapping(entry));
            ran(test, &entry.topic, trial)
        })
    });
    let incoming = settings.incoming.iter().flat_map(|entry| {
        entry.tests.iter().map(|test| Ran {
            at: test.at.clone(),
            name: test.name.clone(),
            of: entry.entity.clone(),
            ..judged(published(entry, &test.input), &test.expected)
        })
    });
    outgoing.chain(incoming).collect()
}

/// The record that a test describes.
fn record(entry: &OutgoingSettings, test: &MappingTest) -> InRecord {
    let json = |value: &Value| Bytes::from(value.to_string());
    let text =
        |value: &Value| value.as_str().map_or_else(|| json(value), |text| Bytes::from(text.to_owned()));
    let partition = Partition { topic: entry.topic.as_str().into(), number: 0 };
    InRecord {
        position: Position { partition, offset: 0 },
        timestamp_ms: test.timestamp_ms,
        key: test.key.as_ref().map(text),
        value: (!test.input.is_null()).then(|| json(&test.input)),
        headers: test
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Bytes::from(value.clone())))
            .collect(),
    }
}

/// What became of an input: left out, refused (by the name of a reason, where there is one), or made into something.
enum Became {
    LeftOut,
    Refused { reason: &'static str, detail: String },
    Made(Value),
}

fn ran(test: &MappingTest, topic: &str, trial: Trial) -> Ran {
    let (became, request) = match trial {
        Trial::LeftOut => (Became::LeftOut, None),
        Trial::Command { made, request } => (Became::Made(made), Some(request)),
        Trial::Refused { reason, detail, .. } => (Became::Refused { reason: reason.name(), detail }, None),
    };
    let of = topic.to_owned();
    Ran { at: test.at.clone(), name: test.name.clone(), of, request, ..judged(became, &test.expected) }
}

fn published(entry: &IncomingSettings, entity: &Value) -> Became {
    let refused = |error: crate::transform::MappingError| Became::Refused {
        reason: "transform_failed",
        detail: error.to_string(),
    };
    match entry.filter.as_ref().map_or(Ok(true), |filter| filter.test(entity)) {
        Ok(true) => entry.transform.run(entity).map_or_else(refused, Became::Made),
        Ok(false) => Became::LeftOut,
        Err(error) => refused(error),
    }
}

fn judged(became: Became, expected: &Expected) -> Ran {
    let failures = match (became, expected) {
        (Became::LeftOut, Expected::Filtered) => Vec::new(),
        (Became::Refused { reason, detail }, Expected::Error(error)) => {
            let same = reason == error || (!error.is_empty() && detail.contains(error.as_str()));
            if same { Vec::new() } else { vec![format!("refused for another reason: {reason}: {detail}")] }
        }
        (Became::Made(made), Expected::Out(expected)) => {
            let mut found = Vec::new();
            differences(expected, &made, "", &mut found);
            let more = found.len().saturating_sub(MAX_DIFFERENCES);
            found.truncate(MAX_DIFFERENCES);
            found.extend((more > 0).then(|| format!("and {more} more")));
            found
        }
        (Became::LeftOut, Expected::Out(_) | Expected::Error(_)) => {
            vec!["the filter leaves it out".to_owned()]
        }
        (Became::Refused { reason, detail }, Expected::Out(_) | Expected::Filtered) => {
            vec![format!("refused: {reason}: {detail}")]
        }
        (Became::Made(made), Expected::Error(_) | Expected::Filtered) => {
            vec![format!("not refused and not left out: {}", shown(&made))]
        }
    };
    let passed = failures.is_empty();
    Ran { at: String::new(), name: String::new(), of: String::new(), passed, failures, request: None }
}

/// Where two values differ, each place as jq would write it.
fn differences(expected: &Value, found: &Value, at: &str, out: &mut Vec<String>) {
    let place = |at: &str| if at.is_empty() { ".".to_owned() } else { at.to_owned() };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                let at = format!("{at}.{name}");
                match found.get(name) {
                    Some(found) => differences(value, found, &at, out),
                    None => out.push(format!("{at}: expected {}, found nothing", shown(value))),
                }
            }
            for (name, value) in found.iter().filter(|(name, _)| !expected.contains_key(*name)) {
                out.push(format!("{at}.{name}: expected nothing, found {}", shown(value)));
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            if expected.len() != found.len() {
                let (wanted, count) = (expected.len(), found.len());
                out.push(format!("{}: expected {wanted} elements, found {count}", place(at)));
            }
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                differences(expected, found, &format!("{at}[{index}]"), out);
            }
        }
        // 1 and 1.0 are the same number to jq.
        (Value::Number(a), Value::Number(b)) if a == b || a.as_f64() == b.as_f64() => {}
        _ if expected == found => {}
        _ => out.push(format!("{}: expected {}, found {}", place(at), shown(expected), shown(found))),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_told_with_its_place() {
        let told = |expected: Value, found: Value| {
            let mut out = Vec::new();
            differences(&expected, &found, "", &mut out);
            out
        };
        assert!(told(json!({"a": 1, "b": [1.0]}), json!({"b": [1], "a": 1})).is_empty());
        assert_eq!(
            told(json!({"a": {"b": [1, 2]}, "c": 1}), json!({"a": {"b": [1, 3]}, "d": "x"})),
            [
                ".a.b[1]: expected 2, found 3",
                ".c: expected 1, found nothing",
                ".d: expected nothing, found \"x\""
            ]
        );
        assert_eq!(told(json!([1]), json!([])), [".: expected 1 elements, found 0"]);
        assert_eq!(told(json!(null), json!(1)), [".: expected null, found 1"]);
    }

    #[test]
    fn what_is_expected_to_fail_must_fail_for_that_reason() {
        let refused = || Became::Refused { reason: "bad_id", detail: "path has no \"product_id\"".into() };
        assert!(judged(refused(), &Expected::Error("bad_id".into())).passed);
        assert!(judged(refused(), &Expected::Error("product_id".into())).passed);
        assert!(!judged(refused(), &Expected::Error("bad_json".into())).passed);
        assert!(!judged(refused(), &Expected::Filtered).passed);
        assert!(!judged(Became::Made(json!(1)), &Expected::Filtered).passed);
        assert!(judged(Became::LeftOut, &Expected::Filtered).passed);
    }
}
