//! JSON to the engine's values and back, and how heavy a value is.

use jaq_json::{Map, Num, Val};
use serde_json::{Number, Value};

use super::limits::Halt;

/// Nesting of any value. serde_json reads no deeper than 128 itself.
const MAX_DEPTH: u32 = 160;
/// What one value costs beside its contents: a slot in its parent and its share of an allocation.
const NODE_BYTES: u64 = 32;

/// What a value amounts to, shared parts counted as often as they appear.
#[derive(Debug, Default)]
pub(super) struct Weight {
    pub(super) nodes: u64,
    pub(super) bytes: u64,
}

/// Weighs `v`, giving up as soon as it is over a limit.
pub(super) fn weight(v: &Val, max_nodes: u64, max_bytes: u64) -> Result<Weight, Halt> {
    let mut weight = Weight::default();
    add(v, &mut weight, 0, (max_nodes, max_bytes))?;
    Ok(weight)
}

fn add(v: &Val, weight: &mut Weight, depth: u32, max: (u64, u64)) -> Result<(), Halt> {
    if depth > MAX_DEPTH {
        return Err(Halt::Depth);
    }
    weight.nodes += 1;
    weight.bytes += NODE_BYTES;
    match v {
        Val::TStr(text) | Val::BStr(text) => {
            weight.bytes += text.len() as u64;
            weight.nodes += text.len() as u64 / 64;
        }
        Val::Num(Num::BigInt(number)) => weight.bytes += number.bits() / 8,
        Val::Num(Num::Dec(digits)) => weight.bytes += digits.len() as u64,
        Val::Null | Val::Bool(_) | Val::Num(Num::Int(_) | Num::Float(_)) => {}
        Val::Arr(items) => {
            for item in items.iter() {
                add(item, weight, depth + 1, max)?;
            }
        }
        Val::Obj(entries) => {
            for (key, value) in entries.iter() {
                add(key, weight, depth + 1, max)?;
                add(value, weight, depth + 1, max)?;
            }
        }
    }
    if weight.nodes > max.0 {
        return Err(Halt::Steps);
    }
    if weight.bytes > max.1 {
        return Err(Halt::Bytes);
    }
    Ok(())
}

/// A record's value for the engine, and its bytes by the same measure.
pub(super) fn from_json(value: &Value, bytes: &mut u64) -> Val {
    *bytes += NODE_BYTES;
    match value {
        Value::Null => Val::Null,
        Value::Bool(v) => Val::Bool(*v),
        Value::Number(number) => Val::Num(match (number.as_i64(), number.as_u64()) {
            (Some(small), _) => Num::from_integral(small),
            (None, Some(large)) => Num::from_integral(large),
            (None, None) => Num::Float(number.as_f64().unwrap_or(f64::NAN)),
        }),
        Value::String(text) => {
            *bytes += text.len() as u64;
            Val::utf8_str(text.clone().into_bytes())
        }
        Value::Array(items) => items.iter().map(|item| from_json(item, bytes)).collect(),
        Value::Object(entries) => {
            let mut map = Map::default();
            for (key, value) in entries {
                *bytes += NODE_BYTES + key.len() as u64;
                map.insert(Val::utf8_str(key.clone().into_bytes()), from_json(value, bytes));
            }
            Val::obj(map)
        }
    }
}

/// The engine's value as JSON. As in jq, what is not a number becomes null and infinity the largest number.
///
/// # Errors
/// When an object has a key that is not text, or a text is not UTF-8.
pub(super) fn to_json(v: &Val) -> Result<Value, String> {
    Ok(match v {
        Val::Null => Value::Null,
        Val::Bool(v) => Value::Bool(*v),
        Val::Num(Num::Int(n)) => Value::from(*n as i64),
        Val::Num(Num::Float(x)) => float(*x),
        Val::Num(number) => {
            let text = number.to_string();
            let whole =
                text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
            whole.unwrap_or_else(|_| float(text.parse().unwrap_or(f64::NAN)))
        }
        Val::TStr(text) | Val::BStr(text) => Value::String(utf8(text)?),
        Val::Arr(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Val::Obj(entries) => {
            let mut object = serde_json::Map::new();
            for (key, value) in entries.iter() {
                let (Val::TStr(name) | Val::BStr(name)) = key else {
                    return Err("result has an object key that is not a text".to_owned());
                };
                object.insert(utf8(name)?, to_json(value)?);
            }
            Value::Object(object)
        }
    })
}

fn float(x: f64) -> Value {
    Number::from_f64(x.clamp(-f64::MAX, f64::MAX)).map_or(Value::Null, Value::Number)
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "result has a text that is not UTF-8".to_owned())
}
