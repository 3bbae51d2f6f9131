//! What the simulator was asked and what it accepted: every write, the last requests, and counters.
//!
//! Writes are kept so that a test can compare histories, and may be appended to a file as JSON lines. Every list has a
//! bound; what falls off is counted, never silent.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

/// Accepted writes kept in memory (about 1 KB each).
const WRITES_MAX: usize = 500_000;
/// Requests kept in memory (about 200 B each).
const REQUESTS_MAX: usize = 200_000;

/// A write that the simulator accepted (answered, or would have answered, with 2xx).
#[derive(Debug, Clone, Serialize)]
pub struct Write {
    /// From 1, in order of effect.
    pub seq: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
    /// `POST`, `PUT` or `DELETE`.
    pub method: String,
    /// From `/v2` or `/v3` on.
    pub path: String,
    /// The raw query string, without `?`.
    pub query: String,
    /// The request's body.
    pub body: Option<Value>,
    /// The status of the answer.
    pub status: u16,
    /// The id of the request, as in the answer's `X-Request-Id`.
    pub request_id: String,
    /// The connection was cut on purpose before the caller saw the answer.
    pub answer_cut: bool,
}

/// One API request.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// From 1, in order of arrival.
    pub seq: u64,
    /// Unix time of arrival in milliseconds.
    pub unix_ms: u64,
    /// The HTTP method.
    pub method: String,
    /// From `/v2` or `/v3` on.
    pub path: String,
    /// The raw query string, without `?`.
    pub query: String,
    /// The status of the answer; 0 when the connection was cut instead.
    pub status: u16,
    /// What was left of the quota.
    pub left: u32,
    /// The id of the request.
    pub request_id: String,
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
    /// Events that occurred in the store.
    pub events: u64,
    /// Writes and requests that no longer fit the lists.
    pub forgotten: u64,
}

/// The log behind the control API.
#[derive(Debug, Default)]
pub(crate) struct History {
    writes: VecDeque<Write>,
    requests: VecDeque<Request>,
    file: Option<File>,
    write_seq: u64,
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
    pub(crate) fn write(&mut self, mut write: Write) {
        self.write_seq += 1;
        self.stats.writes += 1;
        write.seq = self.write_seq;
        if let Some(file) = &mut self.file
            && let Ok(mut line) = serde_json::to_vec(&write)
        {
            line.push(b'\n');
            if let Err(error) = file.write_all(&line) {
                tracing::error!(%error, "the sandbox's history file cannot be written; it stops here");
                self.file = None;
            }
        }
        if self.writes.len() == WRITES_MAX {
            self.writes.pop_front();
            self.stats.forgotten += 1;
        }
        self.writes.push_back(write);
    }

    /// Adds a request and counts it.
    pub(crate) fn request(&mut self, mut request: Request) {
        self.stats.calls += 1;
        self.stats.reads += u64::from(matches!(request.method.as_str(), "GET" | "HEAD"));
        self.stats.status_429 += u64::from(request.status == 429);
        self.stats.unauthorized += u64::from(request.status == 401);
        self.stats.server_errors += u64::from(request.status >= 500);
        self.stats.cut += u64::from(request.status == 0);
        request.seq = self.stats.calls;
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
            self.stats.forgotten += 1;
        }
        self.requests.push_back(request);
    }

    /// Counts a call by the pattern of its path; there are as many patterns as routes.
    pub(crate) fn call(&mut self, pattern: &'static str, method: &str, status: u16) {
        *self.calls.entry(pattern).or_default().entry(format!("{method} {status}")).or_default() += 1;
    }

    /// Calls by pattern, then by method and status.
    pub(crate) fn calls(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.calls.iter().map(|(pattern, counts)| ((*pattern).to_owned(), counts.clone())).collect()
    }

    pub(crate) fn writes(&self) -> Vec<Write> {
        self.writes.iter().cloned().collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.iter().cloned().collect()
    }

    /// Writes the file through to the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.sync_data())
    }
}
