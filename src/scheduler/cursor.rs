//! Where a scan stands in one list, and which page comes next. Pure.
//!
//! What always holds: a row that is in the list from the first page to the last is on some page. A list that can
//! begin at an id is read by ids. One that has only page numbers drifts: when rows vanish, those behind them move
//! up, into pages that were read already. So neighbouring pages overlap by some rows, and a page that shares none
//! with the one before proves nothing: the scan steps back until one does, at last to the beginning.
//!
//! Pages of less than twenty rows cannot overlap everywhere; no list of the catalogue that drifts has such.
//!
//! It never asks for a page itself. What it needs of a page is in [`Seen`].

use serde::{Deserialize, Serialize};

use crate::catalog::{List, Pages};

/// Rows that neighbouring pages share: so many may vanish between two reads without a step back.
const OVERLAP: u64 = 8;
/// Rows of the last page that are remembered; more than the overlap, since the sizes of pages seldom fit it exactly.
const TAIL: usize = 64;
/// Steps back before the list is read from its beginning again.
const MAX_BACK: u32 = 2;

/// Where a scan stands in a list. It is kept in the ledger, so that a scan goes on after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cursor {
    /// Everything is in one reply.
    Whole,
    /// By page numbers.
    Rows {
        /// Rows that lie before the next page, as far as the pages do not drift.
        from: u64,
        /// Hashes of the last rows that were seen.
        tail: Vec<u64>,
        /// Steps back since a page joined the one before.
        back: u32,
        /// The store's own page size, where it is smaller than what was asked for.
        most: Option<u64>,
    },
    /// By page numbers, of a list that takes no size: pages cannot be made to overlap, and may drift.
    Page(u64),
    /// By what the last reply, or its last row, named.
    After(Option<String>),
    /// By the least id.
    From(u64),
    /// There is no further page.
    End,
}

/// One page as it is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Parameters, in order.
    pub query: Vec<(String, String)>,
    /// Rows of a full page; none where the list has no pages.
    pub limit: Option<u64>,
    /// Rows that lie before this page.
    pub start: u64,
    /// Whether it must share a row with the page before.
    pub joins: bool,
}

/// What a page brought, as far as the next one depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// A hash of each row's id, in the order of the page.
    pub rows: Vec<u64>,
    /// The rows' ids as numbers, for lists that are read by them.
    pub numbers: Vec<u64>,
    /// The last row's own id.
    pub last: Option<String>,
    /// `meta.pagination`: this page, all pages and the size of a page.
    pub numbered: Option<Numbered>,
    /// `meta.cursor_pagination`: what comes after; `Some(None)`: nothing does.
    pub after: Option<Option<String>>,
}

/// `meta.pagination` of V3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbered {
    /// This page, from 1.
    pub page: u64,
    /// Pages in all.
    pub pages: u64,
    /// Rows of a page.
    pub size: u64,
}

/// A list that is not ordered, or not narrowed, as the catalogue says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the list was asked for {asked} and brought {found}")]
pub struct Unordered {
    asked: String,
    found: String,
}

impl Cursor {
    /// The beginning of a list.
    pub fn start(list: &List) -> Self {
        if list.keyset.is_some() {
            return Self::From(1);
        }
        match list.pages {
            Pages::None => Self::Whole,
            Pages::V2 | Pages::Page if list.max == 0 => Self::Page(1),
            Pages::V2 | Pages::Page => Self::rows(0),
            Pages::Cursor | Pages::AfterId => Self::After(None),
        }
    }

    fn rows(from: u64) -> Self {
        Self::Rows { from, tail: Vec::new(), back: 0, most: None }
    }

    /// The next page of at most `most` rows; none at the end.
    pub fn ask(&self, list: &List, most: u64) -> Option<Ask> {
        let text = |name: &str, value: &dyn ToString| (name.to_owned(), value.to_string());
        let most = most.max(1);
        Some(match self {
            Self::End => return None,
            Self::Whole => Ask { query: Vec::new(), limit: None, start: 0, joins: false },
            Self::Page(page) => {
                let query = if *page > 1 { vec![text("page", page)] } else { Vec::new() };
                Ask { query, limit: None, start: 0, joins: false }
            }
            Self::Rows { from, most: own, .. } => {
                let most = own.map_or(most, |own| most.min(own)).max(1);
                let (page, limit, joins) = window(*from, most);
                let mut query = vec![text("limit", &limit)];
                if page > 1 {
                    query.push(text("page", &page));
                }
                Ask { query, limit: Some(limit), start: (page - 1) * limit, joins }
            }
            Self::After(after) => {
                let mut query = vec![text("limit", &most)];
                query.extend(after.iter().map(|after| text("after", after)));
                Ask { query, limit: Some(most), start: 0, joins: false }
            }
            Self::From(id) => {
                let keyset = list.keyset.as_ref();
                let limit = (list.max > 0).then_some(most);
                let mut query: Vec<_> = limit.iter().map(|limit| text("limit", limit)).collect();
                if let Some(sort) = keyset.and_then(|keyset| keyset.sort.as_ref()) {
                    query.push(text("sort", sort));
                }
                query.push(text(keyset.map_or("min_id", |keyset| &keyset.param), id));
                Ask { query, limit, start: 0, joins: false }
            }
        })
    }

    /// Where the scan stands after a page, and whether a row of it (by its hash) was met on the page before.
    ///
    /// # Errors
    /// The list is not ordered as the catalogue says: reading on would pass rows over, or never end.
    pub fn next(&self, list: &List, ask: &Ask, seen: &Seen) -> Result<Self, Unordered> {
        let is_short = ask.limit.is_none_or(|limit| (seen.rows.len() as u64) < limit);
        Ok(match self {
            Self::End | Self::Whole => Self::End,
            // Where nothing tells the last page, it is the one behind it, which is empty.
            Self::Page(page) => {
                same_page(*page, seen)?;
                match seen.numbered {
                    Some(numbered) if numbered.pages > 0 && numbered.page >= numbered.pages => Self::End,
                    _ if seen.rows.is_empty() => Self::End,
                    _ => Self::Page(page + 1),
                }
            }
            Self::Rows { .. } => {
                if let Some(limit) = ask.limit {
                    same_page(ask.start / limit + 1, seen)?;
                }
                self.next_rows(ask, seen, is_short)
            }
            Self::After(_) if list.pages == Pages::AfterId => match &seen.last {
                Some(last) if !is_short => Self::After(Some(last.clone())),
                _ => Self::End,
            },
            Self::After(_) => match (&seen.after, seen.numbered) {
                _ if seen.rows.is_empty() => Self::End,
                (Some(Some(after)), _) => Self::After(Some(after.clone())),
                // Some lists have cursors only with some filters, and numbers else.
                (None, Some(numbered)) if numbered.pages > 1 => {
                    Self::rows(0).next_rows(&Ask { start: 0, ..ask.clone() }, seen, is_short)
                }
                _ => Self::End,
            },
            Self::From(id) => {
                if let Some(found) = seen.numbers.iter().find(|found| *found < id) {
                    return Err(Unordered { asked: format!("ids from {id} on"), found: found.to_string() });
                }
                if let Some(pair) = seen.numbers.windows(2).find(|pair| pair[0] > pair[1]) {
                    let found = format!("{} before {}", pair[0], pair[1]);
                    return Err(Unordered { asked: "rising ids".into(), found });
                }
                // Of pages of an unknown size, the last is the empty one.
                let may_go_on = !is_short || ask.limit.is_none();
                let more = seen.numbered.map_or(may_go_on, |numbered| numbered.pages > 1);
                match seen.numbers.iter().max() {
                    Some(highest) if more => Self::From(highest.saturating_add(1)),
                    None if !seen.rows.is_empty() => {
                        let asked = format!("ids from {id} on");
                        return Err(Unordered { asked, found: "rows without a number".into() });
                    }
                    _ => Self::End,
                }
            }
        })
    }

    /// Whether this row was on the page before, and so was handled.
    pub fn has_met(&self, row: u64) -> bool {
        matches!(self, Self::Rows { tail, .. } if tail.contains(&row))
    }

    fn next_rows(&self, ask: &Ask, seen: &Seen, is_short: bool) -> Self {
        let Self::Rows { from, tail, back, most } = self else { return Self::End };
        let size = seen.numbered.map(|numbered| numbered.size).filter(|size| *size > 0);
        let smaller = size.filter(|size| ask.limit.is_some_and(|limit| *size < limit));
        if let Some(size) = smaller.filter(|_| ask.start > 0 && *most != smaller) {
            // The store counts pages in another size: where this one began is not what was meant.
            return Self::Rows { from: *from, tail: tail.clone(), back: *back, most: Some(size) };
        }
        let joined = !ask.joins || ask.start == 0 || seen.rows.iter().any(|row| tail.contains(row));
        if !joined {
            let step = ask.limit.unwrap_or(1).saturating_mul(4_u64.pow((*back).min(MAX_BACK)));
            let from = if *back >= MAX_BACK { 0 } else { from.saturating_sub(step) };
            return Self::Rows { from, tail: tail.clone(), back: back + 1, most: *most };
        }
        let is_last = seen.numbered.filter(|n| n.pages > 0).map_or(is_short, |n| n.page >= n.pages);
        if is_last || seen.rows.is_empty() {
            return Self::End;
        }
        let from = ask.start + seen.rows.len() as u64;
        let tail = seen.rows[seen.rows.len().saturating_sub(TAIL)..].to_vec();
        let most = smaller.or(*most);
        let again = ask.limit.is_some_and(|limit| {
            let (page, size, _) = window(from, most.unwrap_or(limit));
            (page, size) == (ask.start / limit + 1, limit)
        });
        // A page that is short but not the last, of a store that hides its page size: in pages of that size, then.
        if is_short && again {
            return Self::Page(1);
        }
        Self::Rows { from, tail, back: 0, most }
    }
}

/// A list that brings another page than it was asked for might never end.
fn same_page(asked: u64, seen: &Seen) -> Result<(), Unordered> {
    match seen.numbered {
        Some(told) if told.page > 0 && told.page != asked => {
            Err(Unordered { asked: format!("page {asked}"), found: format!("page {}", told.page) })
        }
        _ => Ok(()),
    }
}

/// The page number and size whose rows begin before `from` and reach furthest behind it, and whether it must join.
fn window(from: u64, most: u64) -> (u64, u64, bool) {
    for overlap in [OVERLAP, 1] {
        let Some(wanted) = from.checked_sub(overlap) else { continue };
        let reach = |size: &u64| (wanted / size + 1) * size;
        // Large pages first; of those that reach as far, the largest.
        for sizes in [most.div_ceil(2)..=most, 1..=most / 2] {
            let best = sizes.max_by_key(|size| (reach(size), *size));
            if let Some(best) = best.filter(|best| reach(best) > from) {
                return (wanted / best + 1, best, true);
            }
        }
    }
    // Small pages of every size meet at a multiple of them all: there, and only there, none overlaps.
    let size = (1..=most).rev().find(|size| from.is_multiple_of(*size)).unwrap_or(1);
    (from / size + 1, size, false)
}

#[cfg(test)]
#[path = "cursor/tests.rs"]
mod tests;
