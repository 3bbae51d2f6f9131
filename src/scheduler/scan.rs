//! A scan: the reading of all rows of an entity, page by page, below each parent where the list has one. Pure.
//!
//! Its state is a stack of lists, outermost first: the list of orders, then the shipments of one of them. At most one
//! page of parents is held at each depth. The state is written to the ledger with every page, in the transaction
//! that appends the page's hints; so a scan that is cut off anywhere goes on where it was, and no page counts twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cursor::{Ask, Cursor, Seen, Unordered};
use crate::catalog::{Catalog, DEFAULT_PART, Entity, List, placeholders};
use crate::model::hint::Cause;
use crate::model::ids::EntityId;

/// Parents of parents, at most: an option value hangs below an option below a product.
const MAX_DEPTH: usize = 4;

/// Why a scan runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// On a schedule, as the way to subscribe.
    Poll,
    /// On a schedule or after a gap, to repair what callbacks missed.
    Sweep,
    /// Because a person asked for everything.
    Snapshot,
}

impl Kind {
    /// The name: in ids, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Sweep => "sweep",
            Self::Snapshot => "snapshot",
        }
    }

    /// Why its hints are made.
    pub const fn cause(self) -> Cause {
        match self {
            Self::Poll => Cause::Poll,
            Self::Sweep => Cause::Sweep,
            Self::Snapshot => Cause::Snapshot,
        }
    }
}

/// What a scan makes of the rows that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A hint for each row that changed since then, unix milliseconds.
    Changed(i64),
    /// A hint for each row; nothing is said about what is not there.
    Rows,
    /// A hint for each row, and for each id that was published and is not there.
    Whole,
    /// A hint for each row that was never published, and for each id that was published and is not there.
    Ids,
}

impl Mode {
    /// Whether ids are compared with what was published.
    pub const fn compares(self) -> bool {
        matches!(self, Self::Whole | Self::Ids)
    }
}

/// One list on the way from the outermost parents to the entity.
#[derive(Debug, Clone)]
pub struct Level {
    /// The entity that it lists.
    pub row: Arc<Entity>,
    /// What its placeholders are called in the ids of the entity above, in order.
    pub parent_ids: Vec<String>,
}

impl Level {
    /// How it is listed.
    pub fn list(&self) -> &List {
        self.row.list.as_ref().expect("only entities with a list become levels")
    }

    /// The parts of a parent's id that it needs, in its path and its query.
    pub fn names(&self) -> Vec<String> {
        let in_query = |value: &String| {
            let name = value.strip_prefix('{')?.strip_suffix('}')?;
            Some(name.to_owned())
        };
        let list = self.list();
        placeholders(&list.path).map(str::to_owned).chain(list.query.values().filter_map(in_query)).collect()
    }
}

/// The lists that lead to an entity, outermost first; none where one of them is not listed anywhere.
pub fn levels(catalog: &Catalog, row: &Arc<Entity>) -> Option<Vec<Level>> {
    let mut levels = Vec::new();
    let mut current = row.clone();
    while levels.len() < MAX_DEPTH {
        let list = current.list.as_ref()?;
        let Some(over) = list.over.as_deref() else {
            levels.push(Level { row: current, parent_ids: Vec::new() });
            levels.reverse();
            return Some(levels);
        };
        let above = catalog.entity(over)?.clone();
        levels.push(Level { row: current, parent_ids: above.ids.clone() });
        current = above;
    }
    None
}

/// One list below one parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Which of the levels.
    pub level: usize,
    /// Fills the placeholders of its path and its query; the parent's ids by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, String>,
    /// Where it stands.
    pub cursor: Cursor,
    /// Rows of its last page, below which the next level has yet to be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
}

/// A scan's state, as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Names it, and begins the ids of its hints.
    pub id: String,
    /// Why it runs.
    pub kind: Kind,
    /// What it reads.
    pub entity: String,
    /// What it makes of it.
    pub mode: Mode,
    /// When it began, unix milliseconds.
    pub started_ms: i64,
    /// The signal that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Pages read of the entity's own lists, and of its parents'.
    pub pages: u64,
    /// Hints made.
    pub hints: u64,
    /// Rows that it will read, where the store told.
    #[serde(default)]
    pub total: Option<u64>,
    /// The lists, outermost first; empty once all is read.
    pub stack: Vec<Frame>,
}

/// What one page meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turned {
    /// For each row of the page: it belongs to the entity, and was not met on the page before.
    pub fresh: Vec<bool>,
}

impl Scan {
    /// A scan at its beginning. `path` gives the placeholders of lists that are not to be found by their parents.
    pub fn new(
        id: String,
        kind: Kind,
        mode: Mode,
        levels: &[Level],
        path: &BTreeMap<String, String>,
    ) -> Self {
        let fixed = |level: &Level| level.names().iter().all(|name| path.contains_key(name));
        let first = levels.iter().rposition(fixed).unwrap_or(0);
        let level = &levels[first];
        let places =
            level.names().into_iter().filter_map(|name| Some((name.clone(), path.get(&name)?.clone())));
        let frame = Frame {
            level: first,
            places: places.collect(),
            cursor: Cursor::start(level.list()),
            parents: Vec::new(),
        };
        Self {
            id,
            kind,
            entity: levels.last().map(|level| level.row.name.clone()).unwrap_or_default(),
            mode,
            started_ms: 0,
            run: None,
            pages: 0,
            hints: 0,
            total: None,
            stack: vec![frame],
        }
    }

    /// The list to be read next and the page of it; none once all is read.
    pub fn next<'a>(
        &self,
        levels: &'a [Level],
        most: impl Fn(usize, &Level) -> u64,
    ) -> Option<(&Frame, &'a Level, Ask)> {
        let frame = self.stack.last()?;
        let level = levels.get(frame.level)?;
        let ask = frame.cursor.ask(level.list(), most(frame.level, level))?;
        Some((frame, level, ask))
    }

    /// Takes a page of the list that [`Self::next`] named; `ids` are those of its rows, where they have one.
    ///
    /// # Errors
    /// The list is not as the catalogue says; the scan stays where it was.
    pub fn turn(
        &mut self,
        levels: &[Level],
        ask: &Ask,
        seen: &Seen,
        ids: &[Option<EntityId>],
    ) -> Result<Turned, Unordered> {
        let Some(frame) = self.stack.last_mut() else { return Ok(Turned::default()) };
        let Some(level) = levels.get(frame.level) else { return Ok(Turned::default()) };
        let cursor = frame.cursor.next(level.list(), ask, seen)?;
        let is_fresh = |row: &u64| !frame.cursor.has_met(*row);
        let mut fresh: Vec<bool> = seen.rows.iter().map(is_fresh).collect();
        let is_first = frame.cursor == Cursor::start(level.list());
        frame.cursor = cursor;
        self.pages += 1;
        if frame.level + 1 < levels.len() {
            let parents = ids.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
            frame.parents = parents.filter_map(|(id, _)| id.as_ref()).map(ToString::to_string).collect();
            // Once, and before all others (the next is taken from the end): what stands below no parent.
            if levels[frame.level + 1].list().default && is_first {
                let parts = vec![DEFAULT_PART; levels[frame.level + 1].parent_ids.len().max(1)];
                frame.parents.insert(0, parts.join(":"));
            }
            frame.parents.reverse();
            fresh.iter_mut().for_each(|fresh| *fresh = false);
        }
        self.descend(levels);
        Ok(Turned { fresh })
    }

    /// Leaves out the list that is being read: its parent is gone.
    pub fn skip(&mut self, levels: &[Level]) {
        self.stack.pop();
        self.descend(levels);
    }

    /// Whether the list that is being read hangs below a parent that was found by reading.
    pub fn is_below_a_parent(&self) -> bool {
        self.stack.len() > 1
    }

    /// Goes to the next parent, or back up where there is none.
    fn descend(&mut self, levels: &[Level]) {
        while let Some(frame) = self.stack.last_mut() {
            if let Some(parent) = frame.parents.pop() {
                let level = frame.level + 1;
                let Some(next) = levels.get(level) else { return };
                let frame = Frame {
                    level,
                    places: places(next, &parent),
                    cursor: Cursor::start(next.list()),
                    parents: Vec::new(),
                };
                self.stack.push(frame);
                return;
            }
            if frame.cursor != Cursor::End {
                return;
            }
            self.stack.pop();
        }
    }
}

/// The values of a list's placeholders: by the name that the parent gives them, else in order.
fn places(level: &Level, parent: &str) -> BTreeMap<String, String> {
    let parts: Vec<&str> = parent.split(':').collect();
    let value = |(at, name): (usize, &str)| {
        let at = level.parent_ids.iter().position(|id| id == name).unwrap_or(at);
        Some((name.to_owned(), (*parts.get(at)?).to_owned()))
    };
    let named = level.parent_ids.iter().zip(&parts).map(|(name, part)| (name.clone(), (*part).to_owned()));
    // By name, and where the path calls it otherwise, by its place.
    let placed = placeholders(&level.list().path).enumerate().filter_map(value);
    named.chain(placed).collect()
}

#[cfg(test)]
#[path = "scan/tests.rs"]
mod tests;
