//! The socket as the HTTP library sees it: only judged heads get through, and only in time.
//!
//! The library's own reader forgives too much (see [`super::head`]) and its timers do not cover a connection that
//! sends nothing. So each head is held here until it is whole and plain, then passed on with exactly the body it
//! announced. A refused head looks to the library like the end of the connection, and is answered from here.
//!
//! It never lets a byte through that belongs to no judged request, holds at most one head and one read beyond it,
//! and waits for nothing without a deadline: bodies and answers as a whole are timed by the service, everything else
//! here. It fails as a socket does.

use super::head::{Framing, HeadFault, HeadLimits, find_end, inspect};
use super::metrics::{Outcome, ReceiverMetrics};
use super::settings::{Deadlines, Limits};
use bytes::{Buf as _, BytesMut};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Bytes taken from the socket at once. A callback with its head is under 2 KiB.
const READ_BYTES: usize = 4096;

/// How long a refused peer may take to finish sending and hang up. Closing at once, with its bytes unread, would
/// make the system reset the connection and lose the answer on its way.
const LINGER: Duration = Duration::from_secs(1);

/// How many bytes of a refused peer are read and thrown away meanwhile.
const LINGER_BYTES: usize = 2 * 1024 * 1024;

/// How long a peer may leave an answer of a hundred bytes unread.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// What the service of one connection asks its guard.
#[derive(Debug)]
pub(super) struct ConnectionClock {
    opened: Instant,
    /// When the first byte of the present request came, in microseconds after `opened`.
    request_at_us: AtomicU64,
    heads: AtomicU32,
}

impl ConnectionClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), request_at_us: AtomicU64::new(0), heads: AtomicU32::new(0) })
    }

    /// When the first byte of the present request came.
    pub(super) fn request_at(&self) -> Instant {
        self.opened + Duration::from_micros(self.request_at_us.load(Ordering::Relaxed))
    }

    /// Whether no request has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.heads.load(Ordering::Relaxed) == 0
    }

    fn request_begins(&self) {
        let micros = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.request_at_us.store(micros, Ordering::Relaxed);
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Guard {
    stream: TcpStream,
    limits: HeadLimits,
    deadlines: Deadlines,
    metrics: ReceiverMetrics,
    clock: Arc<ConnectionClock>,
    stage: Stage,
    closing: Closing,
    /// Read from the socket, not yet passed on.
    buffer: BytesMut,
    /// How much of `buffer` was searched for the end of a head.
    scanned: usize,
    timer: Pin<Box<Sleep>>,
    /// What the timer now stands for.
    waiting: Waiting,
    write_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Gathering a head.
    Head,
    /// Passing on so many bytes of a head and its body.
    Pass(u64),
    /// Passing on everything: a chunked body, after which the service closes.
    PassAll,
    /// Nothing more passes; the answer, if any, is written at the close.
    Refused(Option<&'static str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    FirstByte,
    Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Answering { written: usize },
    HangingUp,
    Lingering { discarded: usize },
    Done,
}

impl Guard {
    pub(super) fn new(
        stream: TcpStream,
        limits: &Limits,
        deadlines: &Deadlines,
        metrics: ReceiverMetrics,
        clock: Arc<ConnectionClock>,
    ) -> Self {
        let limits =
            HeadLimits { bytes: limits.head_bytes, headers: limits.headers, uri_bytes: limits.uri_bytes };
        Self {
            stream,
            limits,
            deadlines: deadlines.clone(),
            metrics,
            clock,
            stage: Stage::Head,
            closing: Closing::No,
            buffer: BytesMut::new(),
            scanned: 0,
            timer: Box::pin(sleep(deadlines.first_byte)),
            waiting: Waiting::Nothing,
            write_timer: None,
        }
    }

    /// Takes what the socket has into the buffer; zero at its end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut chunk = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        self.buffer.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    }

    /// Gathers a head until it is judged or refused.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match find_end(&self.buffer, self.scanned, &self.limits) {
                Ok(Some(end)) => {
                    self.judge(end);
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => self.scanned = self.buffer.len(),
                Err(fault) => {
                    self.refuse(fault);
                    return Poll::Ready(Ok(()));
                }
            }
            let was_empty = self.buffer.is_empty();
            match self.fill(cx) {
                Poll::Ready(Ok(0)) => {
                    if !was_empty {
                        self.metrics.ended(Outcome::Malformed);
                    }
                    self.stage = Stage::Refused(None);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) if was_empty => self.clock.request_begins(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.poll_patience(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn judge(&mut self, end: usize) {
        self.waiting = Waiting::Nothing;
        self.scanned = 0;
        self.stage = match inspect(&self.buffer[..end], &self.limits) {
            // The head's own length is bounded by the limits, and the body's has twelve digits at most.
            Ok(Framing::Length(body)) => Stage::Pass(end as u64 + body),
            Ok(Framing::Chunked) => Stage::PassAll,
            Err(fault) => return self.refuse(fault),
        };
        self.clock.heads.fetch_add(1, Ordering::Relaxed);
    }

    fn refuse(&mut self, fault: HeadFault) {
        let (outcome, line) = match fault {
            HeadFault::Malformed => (Outcome::Malformed, "400 Bad Request"),
            HeadFault::UriTooLong => (Outcome::UriTooLong, "414 URI Too Long"),
            HeadFault::TooLarge => (Outcome::HeadTooLarge, "431 Request Header Fields Too Large"),
        };
        self.refuse_with(outcome, line);
    }

    fn refuse_with(&mut self, outcome: Outcome, status: &'static str) {
        self.metrics.ended(outcome);
        self.buffer.clear();
        self.stage = Stage::Refused(Some(status));
    }

    /// Waits for the present deadline; ready when it has passed and the connection is given up.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now_waiting = if self.buffer.is_empty() { Waiting::FirstByte } else { Waiting::Head };
        if self.waiting != now_waiting {
            self.waiting = now_waiting;
            let deadline = match now_waiting {
                Waiting::FirstByte if self.clock.is_fresh() => self.clock.opened + self.deadlines.first_byte,
                Waiting::FirstByte | Waiting::Nothing => Instant::now() + self.deadlines.idle,
                Waiting::Head => self.clock.request_at() + self.deadlines.head,
            };
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(cx));
        if !self.buffer.is_empty() {
            self.refuse_with(Outcome::TimedOut, "408 Request Timeout");
            return Poll::Ready(());
        }
        if self.clock.is_fresh() {
            self.metrics.connections_silent.inc();
        }
        self.stage = Stage::Refused(None);
        Poll::Ready(())
    }

    /// Passes on up to `most` buffered bytes; says how many.
    fn pass(&mut self, out: &mut ReadBuf<'_>, most: u64) -> u64 {
        let room = self.buffer.len().min(out.remaining());
        let count = usize::try_from(most).map_or(room, |most| most.min(room));
        out.put_slice(&self.buffer[..count]);
        self.buffer.advance(count);
        count as u64
    }

    /// Whether the peer may still be sending what nobody will read.
    fn must_linger(&self) -> bool {
        match self.stage {
            Stage::Head | Stage::Pass(0) | Stage::Refused(None) => false,
            Stage::Pass(_) | Stage::PassAll | Stage::Refused(Some(_)) => true,
        }
    }

    /// One step of the close; done when it says so.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.closing = match self.closing {
                Closing::No => {
                    self.timer.as_mut().reset(Instant::now() + LINGER);
                    Closing::Answering { written: 0 }
                }
                Closing::Answering { written } => {
                    let Stage::Refused(Some(status)) = self.stage else {
                        self.closing = Closing::HangingUp;
                        continue;
                    };
                    let answer =
                        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let rest = &answer.as_bytes()[written..];
                    match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                        0 => Closing::Done,
                        n if n == rest.len() => Closing::HangingUp,
                        n => Closing::Answering { written: written + n },
                    }
                }
                Closing::HangingUp => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    if self.must_linger() { Closing::Lingering { discarded: 0 } } else { Closing::Done }
                }
                Closing::Lingering { discarded } if discarded > LINGER_BYTES => Closing::Done,
                Closing::Lingering { discarded } => {
                    self.buffer.clear();
                    match ready!(self.fill(cx))? {
                        0 => Closing::Done,
                        n => Closing::Lingering { discarded: discarded + n },
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            };
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.stage {
                Stage::Head => ready!(this.poll_head(cx))?,
                Stage::Pass(0) => {
                    this.stage = Stage::Head;
                    if !this.buffer.is_empty() {
                        this.clock.request_begins();
                    }
                }
                Stage::Pass(left) if !this.buffer.is_empty() => {
                    this.stage = Stage::Pass(left - this.pass(out, left));
                    return Poll::Ready(Ok(()));
                }
                Stage::PassAll if !this.buffer.is_empty() => {
                    this.pass(out, u64::MAX);
                    return Poll::Ready(Ok(()));
                }
                Stage::Pass(_) | Stage::PassAll => {
                    if ready!(this.fill(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Refused(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Guard {
    /// Gives a write that does not move its own deadline.
    fn poll_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timer =
            self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.poll_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_close(cx) {
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => self.timer.as_mut().poll(cx).map(Ok),
        }
    }
}
