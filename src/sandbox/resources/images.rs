//! Images that are uploaded: a file in a form, or the address of one. The simulator keeps where it would be served from.

use serde_json::{Map, Value, json};

use super::generic::not_found;
use super::{Answer, Call, parts};
use crate::sandbox::reply::Reply;
use crate::sandbox::specs;
use crate::sandbox::store::Key;

/// Where the platform serves images from.
const CDN: &str = "https://cdn.example.com/images";

/// Where the image of the request is served from.
fn address(call: &Call<'_>) -> Result<Value, Reply> {
    let text = |name: &str| call.body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match (text("image_url"), text("image_file")) {
        (Some(url), _) if url.starts_with("http") => Ok(Value::from(url)),
        (Some(_), _) => Err(Reply::field(422, "image_url", "must be an address")),
        (None, Some(file)) => Ok(Value::from(format!("{CDN}/{file}"))),
        (None, None) => Err(Reply::field(422, "image_file", "image_file is required")),
    }
}

/// The row that the path names.
fn owner(call: &Call<'_>) -> (&'static str, Key) {
    match call.pattern {
        path if path.contains("/variants/") => ("variant", call.key(1)),
        path if path.contains("/brands/") => ("brand", call.key(0)),
        _ => ("category", call.key(0)),
    }
}

fn set(call: &mut Call<'_>, image: &Value) -> Result<(), Reply> {
    let (name, key) = owner(call);
    let patch = Map::from_iter([("image_url".to_owned(), image.clone())]);
    if call.state.change(specs::known(name), &key, patch) { Ok(()) } else { Err(not_found(name)) }
}

/// `POST .../image` of a variant, a brand or a category.
pub(crate) fn upload(call: &mut Call<'_>) -> Answer {
    let image = address(call)?;
    set(call, &image)?;
    Ok(Reply::data(200, json!({"image_url": image})))
}

/// `DELETE .../image` of a brand or a category.
pub(crate) fn remove(call: &mut Call<'_>) -> Answer {
    set(call, &Value::from(""))?;
    Ok(Reply::empty(204))
}

/// `POST .../modifiers/{modifier_id}/values/{value_id}/image`.
pub(crate) fn upload_for_value(call: &mut Call<'_>) -> Answer {
    let image = address(call)?;
    parts::adjust_value(call, "image_url", &image)?;
    Ok(Reply::data(200, json!({"image_url": image})))
}

/// `POST /v3/settings/favicon/image` and `/v3/settings/logo/image`.
pub(crate) fn upload_for_store(call: &mut Call<'_>) -> Answer {
    let image = address(call)?;
    if call.pattern.contains("/logo/") {
        let patch = Map::from_iter([("logo_image_url".to_owned(), image)]);
        let (spec, key) = (specs::known("settings_logo"), Key::Int(0));
        if spec.template.contains_key("logo_image_url") {
            call.state.put_single(spec, &key, patch);
        }
    }
    Ok(Reply::empty(204))
}
