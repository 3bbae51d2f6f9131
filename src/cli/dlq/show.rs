//! `dlq show`: one letter with all that it holds, since somebody asked for that very letter.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::args::ShowArgs;
use super::desk::{Desk, described, hex, time};
use super::list::origin;
use crate::cli::{Output, say};
use crate::kafka::span::{Range, Span};
use crate::model::dead_letter::header;
use crate::model::letter::Letter;
use crate::model::record::InRecord;

/// What is shown of a value unless all is asked for: a screen or two.
const PREVIEW_BYTES: usize = 4 * 1024;

pub(super) async fn run(args: ShowArgs, output: Output) -> Result<ExitCode> {
    let desk = match Desk::open(&args.config).await? {
        Ok(desk) => desk,
        Err(code) => return Ok(code),
    };
    let stores = match desk.stores(Some(&args.store)) {
        Ok(stores) => stores,
        Err(error) => return Ok(super::wrong(&error)),
    };
    let [store] = &stores[..] else { bail!("one store is shown at a time") };
    let (partition, offset) = args.letter;
    let extent = desk.extent(store).await?;
    let Some(range) = extent.get(&partition) else {
        bail!(
            "{} has the partitions 0 to {}, and no {partition}",
            store.topics.dead_letters,
            extent.len() - 1
        );
    };
    let one = Range { from: offset.max(range.from), to: (offset + 1).min(range.to) };
    let mut span =
        Span::open(&desk.client, &store.topics.dead_letters, &BTreeMap::from([(partition, one)])).await?;
    let Some(record) = span.next().await? else {
        bail!(
            "no letter stands at {partition}/{offset}: the partition holds offsets from {} to below {}, some of which are \
             no records; see `dlq list`",
            range.from,
            range.to
        );
    };
    let limit = if args.full { usize::MAX } else { PREVIEW_BYTES };
    let letter = desk.letter(&record);
    match output {
        Output::Json => {
            let whole = whole(&store.name, &letter, &record, limit);
            say(format_args!("{}", serde_json::to_string_pretty(&whole)?))?;
        }
        Output::Table => print(&letter, &record, limit)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(letter: &Letter, record: &InRecord, limit: usize) -> Result<()> {
    let mut table = super::table(&["header", "value"]);
    for (name, value) in record.headers.iter().filter(|(name, _)| name != header::RESPONSE_BODY) {
        table.add_row([plain(name), Content::of(value, limit).text()]);
    }
    let key = record.key.as_deref().map_or_else(|| "none".to_owned(), |key| Content::of(key, limit).text());
    say(format_args!(
        "letter   {}\nat       {}\norigin   {}",
        letter.position,
        time(letter.at_ms),
        origin(letter)
    ))?;
    say(format_args!(
        "reason   {}: {}",
        letter.reason,
        plain(letter.message.as_deref().unwrap_or_default())
    ))?;
    say(format_args!("key      {key}\n\n{table}"))?;
    for (name, bytes) in parts(record) {
        let content = Content::of(bytes, limit);
        say(format_args!("\n{name}: {} bytes, {}\n{}", bytes.len(), content.kind, content.text()))?;
    }
    Ok(())
}

/// The two things that may be long.
fn parts(record: &InRecord) -> impl Iterator<Item = (&'static str, &[u8])> {
    let body = record.headers.iter().find(|(name, _)| name == header::RESPONSE_BODY);
    let body = body.map(|(_, body)| ("response body", &body[..]));
    record.value.as_deref().map(|value| ("value", value)).into_iter().chain(body)
}

/// Contents are texts, JSON too: read and written again, a number could come out another.
fn whole(store: &str, letter: &Letter, record: &InRecord, limit: usize) -> Value {
    let mut whole = described(store, letter);
    whole["message"] = json!(letter.message);
    let headers = record.headers.iter().filter(|(name, _)| name != header::RESPONSE_BODY);
    whole["headers"] = headers
        .map(|(name, value)| json!({ "name": name, "value": Content::of(value, limit).shown }))
        .collect();
    for (name, bytes) in parts(record) {
        let Content { kind, shown, is_cut } = Content::of(bytes, limit);
        whole[name.replace(' ', "_")] =
            json!({ "bytes": bytes.len(), "kind": kind, "content": shown, "is_cut": is_cut });
    }
    whole
}

/// Bytes, as they can be shown.
struct Content {
    kind: &'static str,
    shown: String,
    is_cut: bool,
}

impl Content {
    fn of(bytes: &[u8], limit: usize) -> Self {
        let head = &bytes[..bytes.len().min(limit)];
        let is_cut = head.len() < bytes.len();
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
                let shown =
                    String::from_utf8_lossy(head).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
                Self { kind: if is_json { "JSON" } else { "text" }, shown, is_cut }
            }
            Err(_) => Self { kind: "hexadecimal", shown: hex(&bytes[..bytes.len().min(limit / 2)]), is_cut },
        }
    }

    /// For a terminal.
    fn text(&self) -> String {
        let more = if self.is_cut { "… (cut; see --full)" } else { "" };
        format!("{}{more}", plain(&self.shown))
    }
}

/// Without what could command a terminal.
fn plain(text: &str) -> String {
    let fit =
        |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_shown_as_what_it_is_and_cut_between_characters() {
        for (bytes, limit, kind, text) in [
            (&b"{\"a\": 1.50}"[..], 99, "JSON", "{\"a\": 1.50}"),
            (b"{not json", 99, "text", "{not json"),
            (b"\xff\x00", 99, "hexadecimal", "ff00"),
            ("aé".as_bytes(), 2, "text", "a… (cut; see --full)"),
            (b"a\x1b[2Jb\n", 99, "text", "a\u{fffd}[2Jb\n"),
        ] {
            let content = Content::of(bytes, limit);
            assert_eq!((content.kind, content.text().as_str()), (kind, text));
        }
    }
}
