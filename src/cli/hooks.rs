//! `bcbridge hooks plan|apply|status|prune`: webhook subscriptions as code.
//!
//! Each takes stores that are ready to be asked and writes a table or JSON; it returns the exit code. Header values
//! are never written, only their names.

use std::io::Write;

use anyhow::Context;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::bigcommerce::hooks::{self, Applied, Status};
use crate::bigcommerce::hooks_plan::{Action, Change, Hook, Item, Wanted};
use crate::runtime::ports::Store;

/// Exit code: there is something to change.
pub const HAS_CHANGES: u8 = 3;
/// Exit code: something failed.
pub const FAILED: u8 = 1;

/// One store and the subscriptions that it should have.
#[derive(Debug)]
pub struct Target<S> {
    /// The store's API.
    pub store: S,
    /// What it should have.
    pub wanted: Wanted,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON array of objects.
    Json,
}

/// Shows what is to be done; exit code 3 when there is something.
///
/// # Errors
/// A store's hooks could not be read, or the output not be written.
pub async fn plan<S: Store>(
    targets: &[Target<S>],
    output: Output,
    out: &mut (impl Write + Send),
) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    let mut code = 0;
    for target in targets {
        let name = target.wanted.store();
        let plan = hooks::plan(&target.store, &target.wanted)
            .await
            .with_context(|| format!("the webhooks of store {name:?}"))?;
        if plan.has_changes() {
            code = HAS_CHANGES;
        }
        rows.extend(plan.items.iter().map(|item| item_row(name, item)));
    }
    write(output, &["store", "scope", "action", "id", "destination", "why"], &rows, out)?;
    Ok(code)
}

/// Does what the plan shows; exit code 1 when some of it failed.
///
/// # Errors
/// A store's hooks could not be read, or the output not be written.
pub async fn apply<S: Store>(
    targets: &[Target<S>],
    output: Output,
    out: &mut (impl Write + Send),
) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    let mut code = 0;
    for target in targets {
        let name = target.wanted.store();
        let plan = hooks::plan(&target.store, &target.wanted)
            .await
            .with_context(|| format!("the webhooks of store {name:?}"))?;
        let applied = hooks::apply(&target.store, &target.wanted, plan).await;
        code = code.max(collect(name, &applied, &mut rows));
    }
    write(output, &["store", "scope", "action", "id", "destination", "why", "result"], &rows, out)?;
    Ok(code)
}

/// Deletes the hooks that are ours and no longer wanted; exit code 1 when one could not be deleted.
///
/// # Errors
/// A store's hooks could not be read, or the output not be written.
pub async fn prune<S: Store>(
    targets: &[Target<S>],
    output: Output,
    out: &mut (impl Write + Send),
) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    let mut code = 0;
    for target in targets {
        let name = target.wanted.store();
        let plan = hooks::plan(&target.store, &target.wanted)
            .await
            .with_context(|| format!("the webhooks of store {name:?}"))?;
        code = code.max(collect(name, &hooks::prune(&target.store, plan).await, &mut rows));
    }
    write(output, &["store", "scope", "action", "id", "destination", "why", "result"], &rows, out)?;
    Ok(code)
}

/// Shows the hooks and what BigCommerce says of their health.
///
/// # Errors
/// A store's hooks could not be read, or the output not be written.
pub async fn status<S: Store>(
    targets: &[Target<S>],
    output: Output,
    out: &mut (impl Write + Send),
) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    for target in targets {
        let name = target.wanted.store();
        let status =
            hooks::status(&target.store).await.with_context(|| format!("the webhooks of store {name:?}"))?;
        rows.extend(status.hooks.iter().map(|hook| hook_row(name, hook, &status)));
        for domain in &status.blocked {
            rows.push(json!({
                "store": name, "state": "blocked", "destination": domain.destination,
                "why": format!("for {} s: {}", domain.time_left, domain.reasons.join(", ")),
            }));
        }
    }
    write(output, &["store", "scope", "state", "id", "destination", "headers", "why"], &rows, out)?;
    Ok(0)
}

fn collect(store: &str, applied: &[Applied], rows: &mut Vec<Value>) -> u8 {
    let mut code = 0;
    for one in applied {
        let mut row = item_row(store, &one.item);
        match &one.result {
            Ok(Some(id)) => {
                row["id"] = json!(id);
                row["result"] = json!("ok");
            }
            Ok(None) => row["result"] = json!("left alone"),
            Err(error) => {
                code = FAILED;
                row["result"] = json!(error.to_string());
            }
        }
        rows.push(row);
    }
    code
}

fn item_row(store: &str, item: &Item) -> Value {
    let why = match &item.action {
        Action::Update { changes, .. } => changes.iter().map(change).collect::<Vec<_>>().join("; "),
        Action::Full => "the scope already has 10 webhooks of this client".to_owned(),
        Action::Unwanted { .. } => "ours, but no longer wanted; see hooks prune".to_owned(),
        Action::Keep { .. } | Action::Create | Action::Foreign { .. } => String::new(),
    };
    json!({
        "store": store, "scope": item.scope, "action": item.action.name(), "id": item.action.id(),
        "destination": without_query(&item.destination), "why": why,
    })
}

/// Other apps' destinations may carry a secret in their query.
fn without_query(destination: &str) -> String {
    match destination.split_once('?') {
        Some((place, _)) => format!("{place}?***"),
        None => destination.to_owned(),
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::Reactivate => "it is not active".to_owned(),
        Change::CorrectDestination { from } => format!("it delivers to {}", without_query(from)),
        Change::CorrectHeaders { names } => format!("these headers differ: {}", names.join(", ")),
    }
}

fn hook_row(store: &str, hook: &Hook, status: &Status) -> Value {
    let state = match status.states.get(&hook.id) {
        Some(state) => state.as_str(),
        None if hook.is_active => "active",
        None => "inactive",
    };
    let headers: Vec<_> = hook.headers.keys().map(|name| format!("{name}: ***")).collect();
    json!({
        "store": store, "scope": hook.scope, "state": state, "id": hook.id,
        "destination": without_query(&hook.destination), "headers": headers.join(", "), "why": "",
    })
}

fn write(output: Output, columns: &[&str], rows: &[Value], out: &mut impl Write) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, rows).context("writing the result")?;
            writeln!(out).context("writing the result")
        }
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(columns);
            for row in rows {
                table.add_row(columns.iter().map(|column| cell(&row[*column])));
            }
            writeln!(out, "{table}").context("writing the result")
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
