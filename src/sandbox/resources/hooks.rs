//! `/v3/hooks`: the webhooks of the caller's client.

use serde_json::{Value, json};

use super::generic::not_found;
use super::{Answer, Call};
use crate::sandbox::hooks::{Hook, Refusal, Wish};
use crate::sandbox::reply::{Page, Reply};
use crate::sandbox::store::Key;

const LIMIT: usize = 250;

fn refuse((field, text): Refusal) -> Reply {
    Reply::field(422, field, text)
}

fn one(call: &Call<'_>, hook: &Hook) -> Reply {
    Reply::data(200, call.state.hooks.show(hook))
}

fn id(call: &Call<'_>) -> u64 {
    match call.key(0) {
        Key::Int(number) => number,
        Key::Text(_) => 0,
    }
}

fn wanted<'a>(call: &'a Call<'_>) -> Vec<&'a Hook> {
    let is = |name: &str, value: &str| call.query.get(name).is_none_or(|text| text == value);
    let hooks = call.state.hooks.iter().filter(|hook| {
        is("scope", &hook.scope)
            && is("destination", &hook.destination)
            && call.query.get("is_active").is_none_or(|text| matches!(text, "true" | "1") == hook.is_active)
    });
    hooks.collect()
}

pub(crate) fn list(call: &mut Call<'_>) -> Answer {
    let page = Page::of(call.query, LIMIT);
    let hooks = wanted(call);
    let data: Vec<Value> = hooks
        .iter()
        .skip(page.skip())
        .take(page.limit)
        .map(|hook| Value::Object(call.state.hooks.show(hook)))
        .collect();
    let meta = page.meta(hooks.len(), data.len(), call.query);
    Ok(Reply::bare(200, json!({"data": data, "meta": meta})))
}

pub(crate) fn create(call: &mut Call<'_>) -> Answer {
    let hook = call.state.hooks.create(Wish::read(call.body).map_err(refuse)?).map_err(refuse)?;
    Ok(one(call, &hook))
}

pub(crate) fn get(call: &mut Call<'_>) -> Answer {
    let hook = call.state.hooks.get(id(call)).ok_or_else(|| not_found("webhook"))?;
    Ok(one(call, hook))
}

pub(crate) fn update(call: &mut Call<'_>) -> Answer {
    let wish = Wish::read(call.body).map_err(refuse)?;
    let id = id(call);
    let hook = call.state.hooks.update(id, wish).ok_or_else(|| not_found("webhook"))?.map_err(refuse)?;
    Ok(one(call, &hook))
}

pub(crate) fn delete(call: &mut Call<'_>) -> Answer {
    let id = id(call);
    let hook = call.state.hooks.remove(id).ok_or_else(|| not_found("webhook"))?;
    Ok(one(call, &hook))
}

/// `GET /v3/hooks/admin`: every hook with its status, and the blocked destinations.
pub(crate) fn admin(call: &mut Call<'_>) -> Answer {
    let hooks = wanted(call);
    let list: Vec<Value> = hooks
        .iter()
        .map(|hook| {
            let mut shown = call.state.hooks.show(hook);
            let status = match (hook.is_active, hook.deactivated) {
                (true, _) => "active",
                (false, true) => "deactivated",
                (false, false) => "inactive",
            };
            shown.insert("status".to_owned(), Value::from(status));
            Value::Object(shown)
        })
        .collect();
    let blocked: Vec<Value> = call
        .blocked
        .iter()
        .map(|row| {
            let reasons: Vec<Value> = row
                .reasons
                .iter()
                .map(
                    |(text, count, at)| json!({"failure_description": text, "count": count, "timestamp": at}),
                )
                .collect();
            json!({"destination": row.destination, "time_left": row.time_left.as_secs(), "reasons": reasons})
        })
        .collect();
    let page = Page::of(call.query, LIMIT);
    let meta = page.meta(list.len(), list.len(), call.query);
    let data = json!({"emails": call.state.hooks.emails, "hooks_list": list, "blocked_domains": blocked});
    Ok(Reply::bare(200, json!({"data": data, "meta": meta})))
}

/// `PUT /v3/hooks/admin`: who is told about failures.
pub(crate) fn set_emails(call: &mut Call<'_>) -> Answer {
    let emails = call.body.get("emails").and_then(Value::as_array);
    let emails = emails.ok_or_else(|| Reply::field(422, "emails", "emails must be an array of strings"))?;
    let texts: Option<Vec<String>> = emails
        .iter()
        .map(|email| email.as_str().filter(|text| text.contains('@')).map(str::to_owned))
        .collect();
    call.state.hooks.emails = texts.ok_or_else(|| Reply::field(422, "emails", "not an e-mail address"))?;
    Ok(Reply::empty(204))
}
