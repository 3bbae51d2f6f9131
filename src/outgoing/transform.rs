//! From a record to the command object that its topic's expressions make of it.
//!
//! Pure. A value that is not JSON is refused before any expression sees it, and the refusal says what was found.

use serde_json::{Map, Value};

use super::decode::Fault;
use crate::model::dead_letter::FailedAt;
use crate::model::reason::Reason;
use crate::model::record::InRecord;
use crate::transform;

/// How a topic's records become command objects. The default takes them as they are.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    /// False or null: the record is no command.
    pub filter: Option<transform::Mapping>,
    /// What is made of the others.
    pub to: To,
}

/// What is made of a record.
#[derive(Debug, Clone, Default)]
pub enum To {
    /// The value itself.
    #[default]
    AsIs,
    /// One expression makes the whole object.
    Object(transform::Mapping),
    /// An expression for each part of a request; null leaves the part out. `(name of the part, expression)`.
    Parts(Vec<(&'static str, transform::Mapping)>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Made {
    /// The filter left it out.
    Nothing,
    /// The record's value is the command object, byte for byte.
    AsIs,
    /// This object.
    Object(Value),
}

impl Mapping {
    /// Whether the records are taken as they are, all of them.
    pub(super) fn is_as_is(&self) -> bool {
        self.filter.is_none() && matches!(self.to, To::AsIs)
    }

    /// Applies the expressions. `stage` is where it failed, if it did.
    pub(super) fn apply(&self, record: &InRecord, stage: &mut FailedAt) -> Result<Made, Fault> {
        if self.filter.is_none() && matches!(self.to, To::AsIs) {
            return Ok(Made::AsIs);
        }
        let value = match record.value.as_deref() {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| not_json(bytes, &error))?,
        };
        *stage = FailedAt::Transform;
        let variables = transform::variables(record);
        let failed = |what: &str, error: transform::MappingError| {
            (Reason::TransformFailed, format!("the {what} failed: {error}"))
        };
        if let Some(filter) = &self.filter
            && !filter.test_with(&value, &variables).map_err(|error| failed("filter", error))?
        {
            return Ok(Made::Nothing);
        }
        match &self.to {
            To::AsIs => {
                *stage = FailedAt::Value;
                Ok(Made::AsIs)
            }
            To::Object(mapping) => {
                let made =
                    mapping.run_with(&value, &variables).map_err(|error| failed("transform", error))?;
                if made.is_object() { Ok(Made::Object(made)) } else { Err(no_object(&made)) }
            }
            To::Parts(parts) => {
                let mut object = Map::new();
                for (name, mapping) in parts {
                    let part = mapping.run_with(&value, &variables);
                    let part = part.map_err(|error| failed(&format!("transform of {name}"), error))?;
                    if !part.is_null() {
                        object.insert((*name).to_owned(), checked(name, part)?);
                    }
                }
                Ok(Made::Object(Value::Object(object)))
            }
        }
    }
}

fn no_object(made: &Value) -> Fault {
    let detail = format!("the transform made {}, and not an object with path, query or payload", kind(made));
    (Reason::TransformFailed, detail)
}

fn checked(name: &str, part: Value) -> Result<Value, Fault> {
    if part.is_object() || (name == "payload" && part.is_array()) {
        return Ok(part);
    }
    let wanted = if name == "payload" { "an object or an array" } else { "an object" };
    let detail = format!("the transform of {name} made {}, and not {wanted}", kind(&part));
    Err((Reason::TransformFailed, detail))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What a value is that is not JSON, and what to do.
pub(super) fn not_json(value: &[u8], error: &serde_json::Error) -> Fault {
    let found = match value {
        _ if value.trim_ascii().is_empty() => "the value is empty; send a JSON object".to_owned(),
        [0, a, b, c, d, rest @ ..] => {
            let (schema, json) =
                (u32::from_be_bytes([*a, *b, *c, *d]), rest.trim_ascii_start().starts_with(b"{"));
            let format = if json { "JSON" } else { "Avro" };
            format!(
                "the value is not JSON: it looks like {format} in Confluent wire format (magic byte 0, schema id \
                 {schema}); let the producer write plain JSON, or convert the topic"
            )
        }
        [0x1f, 0x8b, ..] => {
            "the value is not JSON: it looks like gzip; let the producer compress by `compression.type`"
                .to_owned()
        }
        _ => match std::str::from_utf8(value) {
            Err(utf8) => {
                format!("the value is not JSON: it is not UTF-8 from byte {} on", utf8.valid_up_to())
            }
            Ok(_) => format!("the value is not JSON: {error}"),
        },
    };
    (Reason::BadJson, found)
}
