//! What the simulator was asked and what it accepted: every write, the last requests, and counters.
//!
//! Writes are kept so that a test can compare histories, and may be appended to a file as JSON lines. They are kept small:
//! a body stays the bytes it came as, and what a million commands leave behind fits into some hundred megabytes. Every
//! list has a bound; what falls off is counted, never silent.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Accepted writes kept in memory (about 200 B each, beside their bodies).
const WRITES_MAX: usize = 500_000;
/// Bytes of bodies kept in memory: a million items of 100 bytes. The oldest bodies go first; their hashes stay.
const BODIES_MAX: usize = 128 * 1024 * 1024;
/// Requests kept in memory (about 200 B each).
const REQUESTS_MAX: usize = 200_000;
/// Writes taken out under one lock while somebody looks through them.
const GLANCE: usize = 1_000;

/// A write that the simulator accepted: it answered, or would have answered, with 2xx, or it kept a part of a batch that
/// it refused.
#[derive(Debug, Clone, Serialize)]
pub struct Write {
    /// From 1, in order of effect.
    pub seq: u64,
    /// Unix time in milliseconds, of the effect.
    pub unix_ms: u64,
    /// `POST`, `PUT` or `DELETE`.
    pub method: String,
    /// From `/v2` or `/v3` on.
    pub path: String,
    /// The raw query string, without `?`.
    pub query: String,
    /// The id of the row that was written; empty where the request names none or several.
    pub key: String,
    /// The request's body; none where there was none, or where it fell off.
    pub body: Option<Value>,
    /// SHA-256 of the body's bytes in hex; empty where there was none.
    pub body_hash: String,
    /// The status of the answer.
    pub status: u16,
    /// The id of the request, as in the answer's `X-Request-Id`.
    pub request_id: String,
    /// The connection was cut on purpose before the caller saw the whole answer.
    pub answer_cut: bool,
    /// It took effect after its connection was cut.
    pub late: bool,
    /// It deleted, or would have deleted, a whole collection.
    pub forbidden: bool,
}

/// One API request.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// From 1, in order of the answers.
    pub seq: u64,
    /// Unix time of the answer in milliseconds.
    pub unix_ms: u64,
    /// The HTTP method.
    pub method: String,
    /// From `/v2` or `/v3` on.
    pub path: String,
    /// The raw query string, without `?`.
    pub query: String,
    /// SHA-256 of the body's bytes in hex; empty where there was none.
    pub body_hash: String,
    /// The status of the answer; 0 when the connection was cut instead.
    pub status: u16,
    /// What was left of the quota.
    pub left: u32,
    /// The id of the request.
    pub request_id: String,
}

/// The hash of a body; none where there is none.
pub(crate) type Hash = Option<[u8; 32]>;

/// Hashes a body.
pub(crate) fn hash(body: &[u8]) -> Hash {
    (!body.is_empty()).then(|| Sha256::digest(body).into())
}

fn hex(hash: &Hash) -> String {
    hash.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
}

/// A request as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) unix_ms: u64,
    pub(crate) method: Box<str>,
    pub(crate) path: Box<str>,
    pub(crate) query: Box<str>,
    pub(crate) hash: Hash,
    pub(crate) status: u16,
    /// The number of the request; its text is made when it is shown.
    pub(crate) request: u64,
}

/// A write as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) asked: Asked,
    pub(crate) key: Box<str>,
    pub(crate) body: Option<Arc<[u8]>>,
    pub(crate) answer_cut: bool,
    pub(crate) late: bool,
    pub(crate) forbidden: bool,
}

/// The text of a request's number.
pub(crate) fn request_id(number: u64) -> String {
    format!("{number:032x}")
}

impl Kept {
    fn show(&self, seq: u64) -> Write {
        let asked = &self.asked;
        Write {
            seq,
            unix_ms: asked.unix_ms,
            method: asked.method.to_string(),
            path: asked.path.to_string(),
            query: asked.query.to_string(),
            key: self.key.to_string(),
            body: self.body.as_ref().and_then(|body| serde_json::from_slice(body).ok()),
            body_hash: hex(&asked.hash),
            status: asked.status,
            request_id: request_id(asked.request),
            answer_cut: self.answer_cut,
            late: self.late,
            forbidden: self.forbidden,
        }
    }
}

/// Totals since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// API requests with a valid path prefix, whatever the answer.
    pub calls: u64,
    /// GET and HEAD among them.
    pub reads: u64,
    /// Accepted writes.
    pub writes: u64,
    /// Answers with 429 for any reason.
    pub status_429: u64,
    /// 429 because the window's quota was used up.
    pub over_quota: u64,
    /// 429 because an endpoint's cap on requests in flight was reached.
    pub over_concurrency: u64,
    /// Answers with 401.
    pub unauthorized: u64,
    /// Answers with 5xx.
    pub server_errors: u64,
    /// Connections cut on purpose.
    pub cut: u64,
    /// DELETEs on a collection without a filter that deleted, or would have deleted, everything.
    pub forbidden_collection_deletes: u64,
    /// Events that occurred in the store; those of stock only while there is a hook.
    pub events: u64,
    /// Writes that took effect after their connection was cut.
    pub late_commits: u64,
    /// Writes and requests that no longer fit the lists.
    pub forgotten: u64,
    /// Bodies of writes that no longer fit.
    pub bodies_forgotten: u64,
}

/// The log behind the control API.
#[derive(Debug, Default)]
pub(crate) struct History {
    writes: VecDeque<Kept>,
    /// How many of `writes`, from the front, have lost their bodies.
    bare: usize,
    body_bytes: usize,
    requests: VecDeque<(Asked, u32)>,
    file: Option<File>,
    /// Pattern of the path, then method and status, then how many.
    calls: BTreeMap<&'static str, BTreeMap<String, u64>>,
    pub(crate) stats: Stats,
}

impl History {
    /// An empty log, appended to `path` when there is one.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<History> {
        let file = path.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(History { file, ..History::default() })
    }

    /// Adds an accepted write and numbers it.
    pub(crate) fn write(&mut self, write: Kept) {
        self.stats.writes += 1;
        self.stats.late_commits += u64::from(write.late);
        if let Some(file) = &mut self.file
            && let Ok(mut line) = serde_json::to_vec(&write.show(self.stats.writes))
        {
            line.push(b'\n');
            if let Err(error) = file.write_all(&line) {
                tracing::error!(%error, "the sandbox's history file cannot be written; it stops here");
                self.file = None;
            }
        }
        self.body_bytes += write.body.as_ref().map_or(0, |body| body.len());
        self.writes.push_back(write);
        while self.body_bytes > BODIES_MAX && self.bare < self.writes.len() {
            if let Some(body) = self.writes[self.bare].body.take() {
                self.body_bytes -= body.len();
                self.stats.bodies_forgotten += 1;
            }
            self.bare += 1;
        }
        if self.writes.len() > WRITES_MAX
            && let Some(oldest) = self.writes.pop_front()
        {
            self.body_bytes -= oldest.body.map_or(0, |body| body.len());
            self.bare = self.bare.saturating_sub(1);
            self.stats.forgotten += 1;
        }
    }

    /// Adds a request and counts it.
    pub(crate) fn request(&mut self, request: Asked, left: u32) {
        self.stats.calls += 1;
        self.stats.reads += u64::from(matches!(&*request.method, "GET" | "HEAD"));
        self.stats.status_429 += u64::from(request.status == 429);
        self.stats.unauthorized += u64::from(request.status == 401);
        self.stats.server_errors += u64::from(request.status >= 500);
        self.stats.cut += u64::from(request.status == 0);
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
            self.stats.forgotten += 1;
        }
        self.requests.push_back((request, left));
    }

    /// Counts a call by the pattern of its path; there are as many patterns as routes.
    pub(crate) fn call(&mut self, pattern: &'static str, method: &str, status: u16) {
        *self.calls.entry(pattern).or_default().entry(format!("{method} {status}")).or_default() += 1;
    }

    /// Calls by pattern, then by method and status.
    pub(crate) fn calls(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.calls.iter().map(|(pattern, counts)| ((*pattern).to_owned(), counts.clone())).collect()
    }

    /// The next writes after `seq`, with the numbers they have: a handful, so that nobody holds the log for long.
    pub(crate) fn glance(&self, seq: u64) -> Vec<(u64, Kept)> {
        let oldest = self.stats.writes - self.writes.len() as u64 + 1;
        let first = usize::try_from((seq + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let from = oldest.max(seq + 1);
        (from..).zip(self.writes.iter().skip(first).take(GLANCE).cloned()).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        let first = self.stats.calls - self.requests.len() as u64 + 1;
        let show = |(seq, (asked, left)): (u64, &(Asked, u32))| Request {
            seq,
            unix_ms: asked.unix_ms,
            method: asked.method.to_string(),
            path: asked.path.to_string(),
            query: asked.query.to_string(),
            body_hash: hex(&asked.hash),
            status: asked.status,
            left: *left,
            request_id: request_id(asked.request),
        };
        (first..).zip(&self.requests).map(show).collect()
    }

    /// Writes the file through to the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.sync_data())
    }
}

/// A write as the control API shows it.
pub(crate) fn show((seq, kept): &(u64, Kept)) -> Write {
    kept.show(*seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(body: usize) -> Kept {
        let asked = Asked {
            unix_ms: 1,
            method: "PUT".into(),
            path: "/v3/a".into(),
            query: "".into(),
            hash: hash(&[1]),
            status: 200,
            request: 7,
        };
        let body = (body > 0).then(|| vec![b' '; body].into());
        Kept { asked, key: "".into(), body, answer_cut: false, late: false, forbidden: false }
    }

    #[test]
    fn the_oldest_bodies_go_first_and_their_writes_stay() {
        let mut history = History::default();
        for _ in 0..3 {
            history.write(write(BODIES_MAX / 2));
        }
        assert_eq!(history.stats.bodies_forgotten, 1);
        let kept: Vec<bool> = history.glance(0).iter().map(|(_, kept)| kept.body.is_some()).collect();
        assert_eq!(kept, [false, true, true]);
        assert_eq!(history.glance(2)[0].0, 3);
        assert!(history.glance(3).is_empty());
    }

    #[test]
    fn writes_beyond_the_bound_are_counted_and_the_rest_keep_their_numbers() {
        let mut history = History::default();
        for _ in 0..WRITES_MAX + 5 {
            history.write(write(0));
        }
        assert_eq!(history.stats.forgotten, 5);
        assert_eq!(history.glance(0)[0].0, 6);
        assert_eq!(history.glance(WRITES_MAX as u64).len(), 5);
    }
}
