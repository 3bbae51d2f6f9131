//! The guard of a command: what the store must still hold before it is written.
//!
//! Pure. BigCommerce has no conditional writes, so the thing is read right before its write, and another writer can
//! still come between the two. Nothing of a thing but its version is ever told.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::decode::{Checked, Fault};
use super::plan::{at, scalar};
use crate::catalog::Class;
use crate::catalog::row::{DEFAULT_PART, Entity, ManyStyle};
use crate::model::reason::Reason;
use crate::model::request::{ApiPath, Method, Purpose, Request};

/// Longest version, asked for or found: a date has 31 characters at most.
const MAX_VERSION_CHARS: usize = 64;

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The thing did not change after this, as it was written and as it was read.
    since: Option<(String, Timestamp)>,
    /// The thing has this version.
    version: Option<String>,
}

/// How it is made sure of.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// The read of the thing.
    pub(super) request: Request,
    wanted: Wanted,
    /// The field that holds the version.
    field: String,
    /// Where a row of a list holds the parts of its id, and the parts.
    key: Vec<(String, String)>,
    payload: Option<Bytes>,
}

/// What the read says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// It is as the command wants it.
    AsWanted,
    /// It changed: one clause that names both versions, and the thing.
    Changed { detail: String, row: Value },
    /// It is not there.
    Gone,
    /// No version in the reply, or none that can be compared: one clause that says which.
    Unreadable { detail: String },
}

/// Reads the two fields of a command.
pub(super) fn wanted(since: Option<&Value>, version: Option<&Value>) -> Result<Option<Wanted>, Fault> {
    let bad = |detail: &str| (Reason::BadField, detail.to_owned());
    let since = since.filter(|value| !value.is_null()).map(|value| {
        let text = value.as_str().filter(|text| text.chars().count() <= MAX_VERSION_CHARS);
        let text = text.filter(|text| text.contains(':'));
        let read = text.and_then(|text| Some((text.to_owned(), date(text)?)));
        read.ok_or_else(|| {
            bad("if_unmodified_since must be a date as in 2026-01-31T08:00:00Z or Sat, 31 Jan 2026 08:00:00 +0000")
        })
    });
    let version = version.filter(|value| !value.is_null()).map(|value| {
        let text = scalar(value).filter(|text| (1..=MAX_VERSION_CHARS).contains(&text.chars().count()));
        text.ok_or_else(|| bad("expected_version must be a text or a number, at most 64 characters"))
    });
    let wanted = Wanted { since: since.transpose()?, version: version.transpose()? };
    Ok((wanted.since.is_some() || wanted.version.is_some()).then_some(wanted))
}

/// The guard of a command that asks for one.
pub(super) fn guard(command: &Checked, class: Class) -> Result<Option<Guard>, Fault> {
    let Some(wanted) = &command.guard else { return Ok(None) };
    let (entity, action) = (&*command.entity, &command.action().name);
    let refused = |why: &str| {
        let (name, fields) = (&entity.name, "if_unmodified_since and expected_version");
        (Reason::BadField, format!("{action} of {name} cannot have {fields}: {why}"))
    };
    let Some(field) = &entity.version else {
        return Err(refused("BigCommerce keeps no date of change of it"));
    };
    let ids: Option<Vec<&str>> = entity.ids.iter().map(|name| command.path_id(name)).collect();
    let Some(ids) = ids.filter(|ids| !ids.is_empty() && class != Class::B) else {
        return Err(refused("the command does not name one thing by its id"));
    };
    let request = read(entity, &ids, &|name| command.path_id(name))
        .ok_or_else(|| refused("there is no read of a single one"))?
        .map_err(|bad| (Reason::BadId, bad))?;
    let place =
        |(place, id): (&String, &&str)| (!place.starts_with('@')).then(|| (place.clone(), (*id).to_owned()));
    Ok(Some(Guard {
        request,
        wanted: wanted.clone(),
        field: field.clone(),
        key: entity.key.iter().zip(&ids).filter_map(place).collect(),
        payload: command.payload.clone(),
    }))
}

/// The read of one thing.
fn read<'a>(
    entity: &Entity,
    ids: &[&str],
    id: &dyn Fn(&str) -> Option<&'a str>,
) -> Option<Result<Request, String>> {
    if entity.hint_key.is_some() || !entity.read.rows.is_empty() {
        return None;
    }
    let (template, fixed, narrow) = match (&entity.read.one, &entity.read.many) {
        (Some(template), _) => (template, &entity.read.query, Vec::new()),
        (None, Some(many)) => {
            let part = (*ids.get(many.part)?).to_owned();
            let narrow = match many.style {
                ManyStyle::IdIn => vec![(many.param.clone(), part)],
                ManyStyle::Range => vec![("min_id".into(), part.clone()), ("max_id".into(), part)],
                ManyStyle::All => return None,
            };
            (&many.path, &many.query, narrow)
        }
        (None, None) => return None,
    };
    let value =
        |(name, value): (&String, &String)| match value.strip_prefix('{').and_then(|v| v.strip_suffix('}')) {
            Some(part) => {
                let id = id(part).filter(|id| *id != DEFAULT_PART)?;
                Some((name.clone(), id.to_owned()))
            }
            None => Some((name.clone(), value.clone())),
        };
    let query = fixed.iter().filter_map(value).chain(narrow).collect();
    let path = ApiPath::render(template, id).map_err(|bad| bad.to_string());
    let get = |path| Request { method: Method::Get, path, query, body: None, purpose: Purpose::Command };
    Some(path.map(get))
}

impl Guard {
    /// Judges the reply to the read.
    pub(super) fn judge(&self, reply: &[u8]) -> Seen {
        if reply.trim_ascii().is_empty() {
            return Seen::Gone;
        }
        let inner = match serde_json::from_slice(reply) {
            Ok(Value::Object(mut envelope)) => match envelope.remove("data") {
                Some(data @ (Value::Object(_) | Value::Array(_))) => data,
                _ => Value::Object(envelope),
            },
            Ok(other) => other,
            Err(_) => return Seen::unreadable("the store gave no version of it"),
        };
        let row = match inner {
            Value::Object(row) => row,
            Value::Array(rows) => {
                let mut rows = rows.into_iter().filter_map(|row| match row {
                    Value::Object(row) => Some(row),
                    _ => None,
                });
                match rows.find(|row| self.is_it(row)) {
                    Some(row) => row,
                    None => return Seen::Gone,
                }
            }
            _ => return Seen::unreadable("the store gave no version of it"),
        };
        let Some(found) = at(&row, &self.field).and_then(scalar).filter(|found| !found.is_empty()) else {
            return Seen::unreadable("the store gave no version of it");
        };
        let (field, told) = (&self.field, found.chars().take(MAX_VERSION_CHARS).collect::<String>());
        match self.wanted.look_at(&found) {
            Look::AsWanted => Seen::AsWanted,
            Look::Differs(expected) => {
                let detail = format!("{field} is {told}, and {expected} was expected");
                Seen::Changed { detail, row: Value::Object(row) }
            }
            Look::NoDate => {
                Seen::unreadable(&format!("{field} is {told}, which is no date that can be compared"))
            }
        }
    }

    fn is_it(&self, row: &Map<String, Value>) -> bool {
        self.key.iter().all(|(place, id)| at(row, place).and_then(scalar).as_deref() == Some(id))
    }

    /// Whether a thing holds all that the command writes. What the read does not show counts against it.
    pub(super) fn is_written(&self, row: &Value) -> bool {
        let Some(payload) = &self.payload else { return false };
        match serde_json::from_slice(payload) {
            Ok(payload @ Value::Object(_)) => holds(row, &payload),
            _ => false,
        }
    }
}

impl Seen {
    fn unreadable(detail: &str) -> Self {
        Self::Unreadable { detail: detail.to_owned() }
    }
}

/// How a version compares to what a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    AsWanted,
    /// This was expected instead.
    Differs(String),
    /// A date was asked for, and this is none.
    NoDate,
}

impl Wanted {
    fn look_at(&self, found: &str) -> Look {
        let found_at = date(found);
        if let Some(version) = &self.version
            && !is_same(version, found, found_at)
        {
            return Look::Differs(version.clone());
        }
        match (&self.since, found_at) {
            (None, _) => Look::AsWanted,
            (Some((_, since)), Some(at)) if at <= *since => Look::AsWanted,
            (Some((text, _)), Some(_)) => Look::Differs(format!("nothing after {text}")),
            (Some(_), None) => Look::NoDate,
        }
    }
}

/// The same text, the same moment, or the version of an entity's record (`bc_version`: seconds, a dot, an offset).
fn is_same(version: &str, found: &str, found_at: Option<Timestamp>) -> bool {
    if version == found {
        return true;
    }
    let Some(at) = found_at else { return false };
    let of_record = version.split_once('.').and_then(|(seconds, _)| seconds.parse().ok());
    date(version) == Some(at) || of_record == Some(at.as_second())
}

/// RFC 3339 (V3), RFC 2822 (V2 orders), seconds since the epoch (hooks), or a date without an offset, which is UTC (V2
/// customer groups).
fn date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let rfc2822 = || jiff::fmt::rfc2822::parse(text).ok().map(|at| at.timestamp());
    let seconds = || text.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let in_utc = || {
        let civil: DateTime = text.contains(':').then(|| text.parse().ok())??;
        TimeZone::UTC.to_timestamp(civil).ok()
    };
    text.parse().ok().or_else(rfc2822).or_else(seconds).or_else(in_utc)
}

/// Whether all that `part` says is so in `whole`. BigCommerce gives some numbers back as texts.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        (Value::Number(_) | Value::String(_), Value::Number(_) | Value::String(_)) => {
            let number = |value: &Value| scalar(value).and_then(|text| text.parse::<f64>().ok());
            whole == part || (number(whole).is_some() && number(whole) == number(part))
        }
        _ => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wants(since: Value, version: Value) -> Wanted {
        wanted(Some(&since), Some(&version)).unwrap().unwrap()
    }

    #[test]
    fn a_version_is_compared_as_text_as_moment_and_as_the_header_of_a_record() {
        let found = "2026-01-31T08:00:00+00:00";
        for (version, same) in [
            (json!(found), true),
            (json!("2026-01-31T08:00:00Z"), true),
            (json!("Sat, 31 Jan 2026 08:00:00 +0000"), true),
            (json!("1769846400.12"), true),
            (json!(1_769_846_400), true),
            (json!("2026-01-31T08:00:01Z"), false),
            (json!("1769846401.12"), false),
            (json!("v1"), false),
        ] {
            let look = wants(Value::Null, version.clone()).look_at(found);
            assert_eq!(look == Look::AsWanted, same, "{version}");
        }
        let look = wants(Value::Null, json!("v7")).look_at("v7");
        assert_eq!(look, Look::AsWanted, "a version need not be a date");
    }

    #[test]
    fn unmodified_since_takes_the_moment_itself_and_nothing_later() {
        let wanted = wants(json!("2026-01-31T08:00:00Z"), Value::Null);
        for found in [
            "Sat, 31 Jan 2026 08:00:00 +0000",
            "2026-01-31T07:59:59Z",
            "2026-01-31 08:00:00",
            "2026-01-31T08:00:00.000Z",
        ] {
            assert_eq!(wanted.look_at(found), Look::AsWanted, "{found}");
        }
        let expected = Look::Differs("nothing after 2026-01-31T08:00:00Z".into());
        for found in ["2026-01-31T08:00:01Z", "2026-01-31 08:00:01", "Sat, 31 Jan 2026 08:00:01 +0000"] {
            assert_eq!(wanted.look_at(found), expected, "{found}");
        }
        assert_eq!(
            wanted.look_at("no date"),
            Look::NoDate,
            "what cannot be compared is not known to be the same"
        );
    }

    /// As the specifications' samples write the versions of the rows that have one.
    #[test]
    fn every_way_in_which_the_store_writes_a_date_is_read() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (text, moment) in [
            ("2018-09-17T14:53:40.000Z", "2018-09-17T14:53:40Z"),
            ("2022-08-12T04:15:19.150539Z", "2022-08-12T04:15:19.150539Z"),
            ("2025-08-05T15:41:28+00:00", "2025-08-05T15:41:28Z"),
            ("2025-08-05T15:41:28+0000", "2025-08-05T15:41:28Z"),
            ("2022-09-15 23:44:05+00:00", "2022-09-15T23:44:05Z"),
            ("2023-06-08T00:00:20-05:00", "2023-06-08T05:00:20Z"),
            ("2023-07-25 01:15:19", "2023-07-25T01:15:19Z"),
            ("2023-07-25T01:15:19.5", "2023-07-25T01:15:19.5Z"),
            ("Wed, 05 Dec 2018 20:16:55 +0000", "2018-12-05T20:16:55Z"),
            ("Wed, 5 Dec 2018 15:16:55 -0500", "2018-12-05T20:16:55Z"),
            ("1561488106", "2019-06-25T18:41:46Z"),
        ] {
            assert_eq!(date(text), Some(at(moment)), "{text}");
        }
        for text in ["", "2026-01-31", "08:00:00", "v7", "2026-13-31 08:00:00", "Wed, 05 Dec 2018", "string"]
        {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_date_and_no_version_is_refused() {
        for (since, version) in [
            (json!("yesterday"), Value::Null),
            (json!(5), Value::Null),
            (json!("2026-01-31"), Value::Null),
            (Value::Null, json!("")),
            (Value::Null, json!({})),
            (Value::Null, json!("x".repeat(65))),
        ] {
            assert_eq!(
                wanted(Some(&since), Some(&version)).unwrap_err().0,
                Reason::BadField,
                "{since} {version}"
            );
        }
        assert_eq!(wanted(None, None).unwrap(), None);
    }

    #[test]
    fn a_thing_holds_what_was_written_when_each_field_agrees() {
        let row =
            json!({"id": 7, "price": "9.50", "name": "A", "tags": ["x"], "seo": {"title": "t", "more": 1}});
        for (part, same) in [
            (json!({"price": 9.5, "name": "A"}), true),
            (json!({"seo": {"title": "t"}, "tags": ["x"]}), true),
            (json!({"name": "B"}), false),
            (json!({"tags": []}), false),
            (json!({"hidden": 1}), false),
            (json!({"price": null}), false),
        ] {
            assert_eq!(holds(&row, &part), same, "{part}");
        }
    }
}
