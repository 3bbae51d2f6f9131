//! The names and values of a form with files, as the image endpoints take it.
//!
//! Only what the simulator needs: a text field is its text, a file is its name. What is no form has no fields, and the
//! endpoint that misses a field says so.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Fields of one form that are looked at.
const FIELDS_MAX: usize = 64;

/// Reads a form.
pub(crate) fn read(body: &Bytes, boundary: &str) -> Value {
    let text = String::from_utf8_lossy(body);
    let mark = format!("--{boundary}");
    let fields = text.split(mark.as_str()).skip(1).take(FIELDS_MAX).filter_map(field);
    Value::Object(fields.collect::<Map<String, Value>>())
}

fn field(part: &str) -> Option<(String, Value)> {
    let (head, content) = part.split_once("\r\n\r\n")?;
    let name = attribute(head, "name")?;
    let value = attribute(head, "filename")
        .unwrap_or_else(|| content.strip_suffix("\r\n").unwrap_or(content).to_owned());
    Some((name, Value::from(value)))
}

fn attribute(head: &str, name: &str) -> Option<String> {
    let start = head.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix("=\""))?;
    start.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_gives_its_texts_and_the_names_of_its_files() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"description\"\r\n\r\nA cup\r\n\
            --b\r\nContent-Disposition: form-data; name=\"image_file\"; filename=\"cup.png\"\r\n\
            Content-Type: image/png\r\n\r\n\u{1}\u{2}\r\n--b--\r\n";
        let expected = json!({"description": "A cup", "image_file": "cup.png"});
        assert_eq!(read(&Bytes::from(body), "b"), expected);
        assert_eq!(read(&Bytes::from("no form"), "b"), json!({}));
    }
}
