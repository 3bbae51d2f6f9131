//! How one event becomes one line, as text or as JSON.
//!
//! Values come from callbacks, records and replies, so they are hostile until shown: control characters (the newline
//! that forges a line, the escape that drives a terminal), and those that turn the direction of writing, are escaped;
//! a value is cut at [`VALUE_BYTES`] and the message at [`MESSAGE_BYTES`]. A line never contains a raw newline and
//! writing never fails the caller.

use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FormattedFields, format::Writer as Line};
use tracing_subscriber::registry::LookupSpan;

/// The longest value of a field, in bytes before escaping: an id, a path or a reason fits, a body does not.
pub(super) const VALUE_BYTES: usize = 256;

/// The longest message, in bytes before escaping: our own sentences with a few values in them fit.
pub(super) const MESSAGE_BYTES: usize = 1024;

/// Stands where something was cut; three bytes, which count towards the limit.
const CUT: char = '…';

/// Writes an event as a line.
pub(super) struct Lines {
    /// JSON, or else text.
    pub(super) json: bool,
}

/// Writes the fields of a span; they are kept and repeated on each line of the span's events.
pub(super) struct Fields {
    /// JSON members, or else `key=value` words.
    pub(super) json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Line<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::new(self.json);
        event.record(&mut parts);
        let metadata = event.metadata();
        let target = parts.log_target.as_deref().unwrap_or(metadata.target());
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map(|f| f.fields.clone()).unwrap_or_default();
            spans.push((span.name(), fields));
        }
        if self.json {
            write!(line, r#"{{"timestamp":"{now:.6}","level":"{}","target":"#, metadata.level())?;
            quoted(&mut line, target)?;
            line.write_str(r#","message":"#)?;
            quoted(&mut line, &parts.message)?;
            write!(line, r#","fields":{{{}}},"spans":["#, parts.fields)?;
            for (index, (name, fields)) in spans.iter().enumerate() {
                let (before, between) =
                    (if index > 0 { "," } else { "" }, if fields.is_empty() { "" } else { "," });
                write!(line, r#"{before}{{"name":"{name}"{between}{fields}}}"#)?;
            }
            return line.write_str("]}\n");
        }
        write!(line, "{now:.6} {:>5} {target}: {}", metadata.level(), escaped(&parts.message))?;
        if !parts.fields.is_empty() {
            write!(line, " {}", parts.fields)?;
        }
        for (name, fields) in spans {
            write!(line, " {name}{{{fields}}}")?;
        }
        line.write_char('\n')
    }
}

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut parts = Parts::new(self.json);
        fields.record(&mut parts);
        writer.write_str(&parts.fields)
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::new(self.json);
        fields.record(&mut parts);
        if !current.fields.is_empty() && !parts.fields.is_empty() {
            current.fields.push(parts.separator());
        }
        current.fields.push_str(&parts.fields);
        Ok(())
    }
}

/// What the fields of an event or a span come to.
struct Parts {
    json: bool,
    /// Cut, not escaped.
    message: String,
    /// The other fields, ready to be printed.
    fields: String,
    /// Where a record that came through the `log` crate really comes from.
    log_target: Option<String>,
}

impl Parts {
    fn new(json: bool) -> Self {
        Self { json, message: String::new(), fields: String::new(), log_target: None }
    }

    fn separator(&self) -> char {
        if self.json { ',' } else { ' ' }
    }

    fn key(&mut self, name: &str) {
        if !self.fields.is_empty() {
            let separator = self.separator();
            self.fields.push(separator);
        }
        // Writing to a string cannot fail.
        let _ = if self.json { write!(self.fields, "\"{name}\":") } else { write!(self.fields, "{name}=") };
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if is_of_the_bridge(field) {
            return;
        }
        self.key(field.name());
        let _ = write!(self.fields, "{value}");
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let limit = if field.name() == "message" { MESSAGE_BYTES } else { VALUE_BYTES };
        let text = cut(value, limit);
        match field.name() {
            "message" => self.message = text,
            "log.target" => self.log_target = Some(escaped(&text)),
            _ if is_of_the_bridge(field) => {}
            name => {
                self.key(name);
                let bare =
                    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"\\={}".contains(c));
                let _ = if bare && !self.json {
                    self.fields.write_str(&text)
                } else {
                    quoted(&mut self.fields, &text)
                };
            }
        }
    }
}

impl Visit for Parts {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.plain(field, value) } else { self.text(field, format_args!("{value}")) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, format_args!("{}", Chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// An error with its causes: each says its own part, so together they say it once.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Whether a field was added by the bridge from the `log` crate: the place in a library's source, of no use here.
fn is_of_the_bridge(field: &Field) -> bool {
    field.name().starts_with("log.")
}

/// The text with what is dangerous to show escaped, without quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            c if is_dangerous(c) => write!(out, "\\u{:04x}", u32::from(c)),
            c => out.write_char(c),
        };
    }
    out
}

/// The text as a JSON string, in which everything dangerous to show is escaped too.
fn quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if is_dangerous(c) => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// Control characters, line separators, and the marks that turn the direction of writing.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text of `value` in at most `limit` bytes; formatting stops there, so a huge value costs nothing.
fn cut(value: fmt::Arguments<'_>, limit: usize) -> String {
    let mut out = Cut { text: String::new(), limit, over: false };
    // The only error is our own, which says that the limit was reached.
    let _ = out.write_fmt(value);
    if out.over {
        let mut end = limit - CUT.len_utf8();
        while !out.text.is_char_boundary(end) {
            end -= 1;
        }
        out.text.truncate(end);
        out.text.push(CUT);
    }
    out.text
}

struct Cut {
    text: String,
    limit: usize,
    over: bool,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.limit - self.text.len();
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.over = true;
        // Fill up to the limit; `cut` then makes room for its mark.
        let mut end = room;
        while !part.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(&part[..end]);
        // `cut` needs a text that reaches into the last bytes or not; either is fine.
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{captured, captured_with};
    use super::*;
    use tracing_subscriber::EnvFilter;

    fn as_json(act: impl FnOnce()) -> serde_json::Value {
        let ((), log) = captured_with(EnvFilter::new("trace"), true, act);
        assert_eq!(log.matches('\n').count(), 1, "{log}");
        serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}"))
    }

    #[test]
    fn a_line_of_text_has_level_target_message_fields_and_spans() {
        let ((), log) = captured(|| {
            let span = tracing::info_span!("batch", entity.kind = "order");
            span.in_scope(|| {
                tracing::info!(attempt = 2, outcome = "published", why = "a b", "read 3 orders")
            });
        });
        let tail = "INFO bcbridge::telemetry::lines::tests: read 3 orders attempt=2 outcome=published why=\"a b\" batch{entity.kind=order}\n";
        assert!(log.ends_with(tail), "{log}");
        assert!(log.get(..27).unwrap().parse::<jiff::Timestamp>().is_ok(), "{log}");
    }

    #[test]
    fn a_line_of_json_is_one_object_with_typed_values() {
        let value = as_json(|| {
            let span = tracing::info_span!("batch", entity.kind = "order", size = tracing::field::Empty);
            span.record("size", 3);
            span.in_scope(|| tracing::warn!(attempt = 2, ok = false, share = 0.5, odd = f64::NAN, "read"));
        });
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "read");
        assert_eq!(
            value["fields"],
            serde_json::json!({"attempt": 2, "ok": false, "share": 0.5, "odd": "NaN"})
        );
        assert_eq!(value["spans"], serde_json::json!([{"name": "batch", "entity.kind": "order", "size": 3}]));
    }

    #[test]
    fn no_value_can_forge_a_line_or_drive_a_terminal() {
        let hostile = "1\r\n2026 ERROR forged\u{1b}[2J\u{9b}31m\u{202e}\0\u{7f}\u{2028}\"},\"level\":\"x";
        let ((), text) = captured(|| tracing::info!(id = hostile, "scope {hostile}"));
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.trim_end().contains(is_dangerous), "{text:?}");
        let value = as_json(|| tracing::info!(id = hostile, other = ?hostile, "scope {hostile}"));
        assert_eq!(value["fields"]["id"], hostile);
        assert_eq!(value["message"], format!("scope {hostile}"));
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn a_long_value_is_cut_at_its_limit_between_two_characters() {
        for text in
            ["x".repeat(10_000), "é".repeat(5_000), "🦀".repeat(300), format!("x{}", "🦀".repeat(300))]
        {
            let value = as_json(|| tracing::info!(id = text, "{text}"));
            for (shown, limit) in [(&value["fields"]["id"], VALUE_BYTES), (&value["message"], MESSAGE_BYTES)]
            {
                let shown = shown.as_str().unwrap();
                assert!(shown.len() <= limit && shown.len() > limit - 8, "{}", shown.len());
                assert!(shown.ends_with(CUT) && text.starts_with(shown.trim_end_matches(CUT)));
            }
        }
        let whole = "x".repeat(VALUE_BYTES);
        assert_eq!(as_json(|| tracing::info!(id = whole, "m"))["fields"]["id"], whole);
    }

    #[test]
    fn an_error_is_shown_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("store budget is unknown")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("connection reset"));
        let value = as_json(|| tracing::warn!(error = &error as &(dyn Error + 'static), "retrying"));
        assert_eq!(value["fields"]["error"], "store budget is unknown: connection reset");
    }
}
