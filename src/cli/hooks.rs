//! `bcbridge hooks plan|apply|status|prune|verify`: webhook subscriptions as code.
//!
//! Each takes stores that are ready to be asked and writes a table or JSON; it returns the exit code. Header values
//! are never written, only their names. A store that can't be asked is an error, and nothing is written then; a hook
//! that can't be changed is a row that says so.

mod command;
mod verify;

use std::io::Write;

use anyhow::Context;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

pub use super::Output;
use crate::bigcommerce::hooks::{self, Applied, Status};
use crate::bigcommerce::hooks_plan::{Action, Change, Hook, Item, Plan, Wanted};
use crate::runtime::ports::Store;

pub(super) use command::{HooksCommand, run};
pub use verify::{Captured, verify};

/// Exit code: there is something to change.
pub const HAS_CHANGES: u8 = super::EXIT_CHANGES;
/// Exit code: something failed.
pub const FAILED: u8 = super::EXIT_FAILURE;

const PLANNED: &[&str] = &["store", "scope", "action", "id", "destination", "why"];
const DONE: &[&str] = &["store", "scope", "action", "id", "destination", "why", "result"];
const SEEN: &[&str] = &["store", "scope", "state", "owner", "id", "destination", "headers", "why"];

/// One store and the subscriptions that it should have.
#[derive(Debug)]
pub struct Target<S> {
    /// The store's API.
    pub store: S,
    /// What it should have.
    pub wanted: Wanted,
}

impl<S: Store> Target<S> {
    fn name(&self) -> &str {
        self.wanted.store()
    }

    async fn plan(&self) -> anyhow::Result<Plan> {
        let plan = hooks::plan(&self.store, &self.wanted).await;
        plan.with_context(|| format!("the webhooks of store {:?}", self.name()))
    }
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
        let plan = target.plan().await?;
        if plan.has_changes() {
            code = HAS_CHANGES;
        }
        rows.extend(plan.items.iter().map(|item| item_row(target.name(), item)));
    }
    write(output, PLANNED, &rows, out)?;
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
        let plan = target.plan().await?;
        let applied = hooks::apply(&target.store, &target.wanted, plan).await;
        code = code.max(collect(target.name(), &applied, &mut rows));
    }
    write(output, DONE, &rows, out)?;
    Ok(code)
}

/// Deletes the hooks that are ours and no longer wanted, once `consent`, which is shown them as a table, agrees. Exit
/// code 0 when none is left, 3 when it did not agree, 1 when one could not be deleted. A store whose plan has changes
/// keeps them all: what replaces them may not be there yet.
///
/// # Errors
/// A store's hooks could not be read, or the output not be written.
pub async fn prune<S: Store>(
    targets: &[Target<S>],
    consent: impl FnOnce(&str) -> anyhow::Result<bool>,
    output: Output,
    out: &mut (impl Write + Send),
) -> anyhow::Result<u8> {
    let mut plans = Vec::new();
    let mut rows = Vec::new();
    for target in targets {
        let plan = target.plan().await?;
        let unwanted = plan.items.iter().filter(|item| matches!(item.action, Action::Unwanted { .. }));
        rows.extend(unwanted.map(|item| item_row(target.name(), item)));
        plans.push(plan);
    }
    if !rows.is_empty() && !consent(&table(PLANNED, &rows))? {
        rows.iter_mut().for_each(|row| row["result"] = json!("not deleted"));
        write(output, DONE, &rows, out)?;
        return Ok(HAS_CHANGES);
    }
    let mut code = 0;
    rows.clear();
    for (target, plan) in targets.iter().zip(plans) {
        let pruned = if plan.has_changes() {
            code = code.max(refuse(target.name(), &plan, &mut rows));
            continue;
        } else {
            hooks::prune(&target.store, plan).await
        };
        code = code.max(collect(target.name(), &pruned, &mut rows));
    }
    write(output, DONE, &rows, out)?;
    Ok(code)
}

fn refuse(store: &str, plan: &Plan, rows: &mut Vec<Value>) -> u8 {
    let before = rows.len();
    for item in plan.items.iter().filter(|item| matches!(item.action, Action::Unwanted { .. })) {
        let mut row = item_row(store, item);
        row["result"] = json!("not deleted: what replaces it may be missing; run hooks apply first");
        rows.push(row);
    }
    if rows.len() > before { FAILED } else { 0 }
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
        let name = target.name();
        let status =
            hooks::status(&target.store).await.with_context(|| format!("the webhooks of store {name:?}"))?;
        rows.extend(status.hooks.iter().map(|hook| hook_row(&target.wanted, hook, &status)));
        for domain in &status.admin.blocked {
            rows.push(json!({
                "store": name, "state": "blocked", "destination": without_query(&domain.destination),
                "time_left_s": domain.time_left_s, "reasons": domain.reasons,
                "why": format!("for {} s more: {}", domain.time_left_s, domain.reasons.join(", ")),
            }));
        }
        let emails = status.admin.emails;
        rows.push(json!({
            "store": name, "state": "notified", "emails": emails,
            "why": format!("{emails} e-mail addresses are told of deactivated hooks and blocked domains"),
        }));
    }
    write(output, SEEN, &rows, out)?;
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
        Change::KeepAwake => "nothing changed it for long".to_owned(),
        Change::CorrectHeaders { names } => format!("these headers differ: {}", names.join(", ")),
    }
}

fn hook_row(wanted: &Wanted, hook: &Hook, status: &Status) -> Value {
    let state = match status.admin.states.get(&hook.id) {
        Some(state) => state.as_str(),
        None if hook.is_active => "active",
        None => "inactive",
    };
    let headers: Vec<_> = hook.headers.keys().map(|name| format!("{name}: ***")).collect();
    json!({
        "store": wanted.store(), "scope": hook.scope, "state": state,
        "owner": if wanted.is_ours(hook) { "bridge" } else { "foreign" }, "id": hook.id,
        "destination": without_query(&hook.destination), "headers": headers.join(", "), "why": "",
    })
}

fn write(output: Output, columns: &[&str], rows: &[Value], out: &mut impl Write) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, rows).context("writing the result")?;
            writeln!(out).context("writing the result")
        }
        Output::Table => writeln!(out, "{}", table(columns, rows)).context("writing the result"),
    }
}

fn table(columns: &[&str], rows: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(&row[*column])));
    }
    table.to_string()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
