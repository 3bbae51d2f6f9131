//! A strict reading of a request head, before the HTTP library sees a byte of it. Pure.
//!
//! HTTP libraries forgive: a bare line feed, two equal lengths, a length beside a transfer coding. Two programs that
//! forgive differently can be made to disagree about where one request ends, and that is request smuggling. Our
//! callers are one sender and its proxies, so nothing has to be forgiven: a head is plain or it is refused, and the
//! connection with it.
//!
//! It never looks at a body, and it keeps nothing. It fails with a [`HeadFault`].

/// Bounds of one head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Most bytes from the first of the request line to the empty line.
    pub bytes: usize,
    /// Most header lines.
    pub headers: usize,
    /// Most bytes of the request target.
    pub uri_bytes: usize,
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Not the HTTP/1 that we speak, or not told unambiguously: 400.
    #[error("the request head is malformed")]
    Malformed,
    /// The request target is over its bound: 414.
    #[error("the request target is too long")]
    UriTooLong,
    /// Too many headers or too many bytes: 431.
    #[error("the request head is too large")]
    TooLarge,
}

/// How the body that follows a head is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks. The connection serves no further request: its end can't be told without decoding.
    Chunked,
}

/// Longest method name; `CONNECT` and `OPTIONS` have seven.
const MAX_METHOD_BYTES: usize = 16;

/// Most digits of a content length. Twelve reach a terabyte, far over any bound, and can't overflow.
const MAX_LENGTH_DIGITS: usize = 12;

/// Looks for the end of a head in `buffer`, of which the first `scanned` bytes were looked at before.
///
/// Gives the length of the head with its empty line, or none while more is to come.
///
/// # Errors
/// A [`HeadFault`] as soon as it is certain: a first byte that starts no method, a line feed without its carriage
/// return, a bound passed.
pub fn find_end(buffer: &[u8], scanned: usize, limits: &HeadLimits) -> Result<Option<usize>, HeadFault> {
    if buffer.first().is_some_and(|b| !is_token(*b)) {
        return Err(HeadFault::Malformed);
    }
    let line_bound = limits.uri_bytes + MAX_METHOD_BYTES + "  HTTP/1.1\r\n".len();
    if buffer.len() > line_bound && !buffer[..line_bound].contains(&b'\n') {
        return Err(HeadFault::UriTooLong);
    }
    for at in scanned..buffer.len() {
        if at >= limits.bytes {
            return Err(HeadFault::TooLarge);
        }
        if buffer[at] != b'\n' {
            continue;
        }
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(HeadFault::Malformed);
        }
        if at >= 3 && buffer[at - 3] == b'\r' && buffer[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Judges one whole head, its empty line included.
///
/// # Errors
/// A [`HeadFault`]; nothing of the head may then be acted upon.
pub fn inspect(head: &[u8], limits: &HeadLimits) -> Result<Framing, HeadFault> {
    if head.len() > limits.bytes {
        return Err(HeadFault::TooLarge);
    }
    let block = head.strip_suffix(b"\r\n\r\n").ok_or(HeadFault::Malformed)?;
    let mut lines = Lines(Some(block));
    let is_http_11 = request_line(lines.next().unwrap_or_default(), limits)?;
    let mut seen = Seen::default();
    for (count, line) in lines.enumerate() {
        if count >= limits.headers {
            return Err(HeadFault::TooLarge);
        }
        seen.header(line)?;
    }
    seen.framing(is_http_11)
}

/// Lines of a block split at CRLF; a stray CR or LF stays in its line, where the character rules refuse it.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match rest.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => {
                self.0 = Some(&rest[at + 2..]);
                Some(&rest[..at])
            }
            None => self.0.take(),
        }
    }
}

/// `METHOD SP /target SP HTTP/1.x`; says whether x is 1. HTTP/1.0 is what some proxies speak to their backends.
fn request_line(line: &[u8], limits: &HeadLimits) -> Result<bool, HeadFault> {
    let mut parts = line.split(|b| *b == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return Err(HeadFault::Malformed);
    };
    let method_ok = (1..=MAX_METHOD_BYTES).contains(&method.len()) && method.iter().all(|b| is_token(*b));
    let target_ok =
        target.first() == Some(&b'/') && target.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    let is_http_11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(HeadFault::Malformed),
    };
    if !method_ok || !target_ok {
        return Err(HeadFault::Malformed);
    }
    if target.len() > limits.uri_bytes {
        return Err(HeadFault::UriTooLong);
    }
    Ok(is_http_11)
}

/// The headers that say where a request ends and whom it is for.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    is_chunked: bool,
    has_host: bool,
}

impl Seen {
    fn header(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        // An empty name covers the folded line (it starts with a blank, which is no token) and ": value".
        let colon = line.iter().position(|b| *b == b':').ok_or(HeadFault::Malformed)?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        let name_ok = !name.is_empty() && name.iter().all(|b| is_token(*b));
        // Controls but the tab are refused; bytes over 0x7f are opaque text that proxies do send.
        let value_ok = value.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
        if !name_ok || !value_ok {
            return Err(HeadFault::Malformed);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            self.content_length(value)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let plain = !self.is_chunked && value.eq_ignore_ascii_case(b"chunked");
            self.is_chunked = true;
            plain.then_some(()).ok_or(HeadFault::Malformed)
        } else if name.eq_ignore_ascii_case(b"host") {
            let first = !std::mem::replace(&mut self.has_host, true);
            first.then_some(()).ok_or(HeadFault::Malformed)
        } else {
            Ok(())
        }
    }

    /// One length, of digits: no list, no sign, no second header even if it agrees.
    fn content_length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let digits = (1..=MAX_LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !digits {
            return Err(HeadFault::Malformed);
        }
        self.length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        Ok(())
    }

    fn framing(&self, is_http_11: bool) -> Result<Framing, HeadFault> {
        match (self.length, self.is_chunked) {
            (Some(_), true) => Err(HeadFault::Malformed),
            (None, true) if !is_http_11 => Err(HeadFault::Malformed),
            _ if is_http_11 && !self.has_host => Err(HeadFault::Malformed),
            (None, true) => Ok(Framing::Chunked),
            (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// The `tchar` of RFC 9110.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    &value[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, headers: 64, uri_bytes: 1024 };

    fn check(head: &str) -> Result<Framing, HeadFault> {
        inspect(head.as_bytes(), &LIMITS)
    }

    #[test]
    fn a_plain_head_tells_its_length() {
        let head = "POST /webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length:  12 \r\n\r\n";
        assert_eq!(check(head), Ok(Framing::Length(12)));
        assert_eq!(check("GET / HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(
            check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"),
            Ok(Framing::Chunked)
        );
    }

    #[test]
    fn the_bounds_are_exact() {
        let of_headers = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(n - 1));
        assert!(check(&of_headers(64)).is_ok());
        assert_eq!(check(&of_headers(65)), Err(HeadFault::TooLarge));
        let of_uri = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n - 1));
        assert!(check(&of_uri(1024)).is_ok());
        assert_eq!(check(&of_uri(1025)), Err(HeadFault::UriTooLong));
        assert_eq!(find_end(&[b'x'; 1100], 0, &LIMITS), Err(HeadFault::UriTooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = inspect(&bytes, &LIMITS);
            let _ = find_end(&bytes, 0, &LIMITS);
        }

        #[test]
        fn the_end_is_the_same_however_the_bytes_arrive(
            tail in "[a-z: \r\n]{0,80}", cut in 0_usize..120,
        ) {
            let bytes = format!("GET / HTTP/1.1\r\n{tail}\r\n\r\n").into_bytes();
            let whole = find_end(&bytes, 0, &LIMITS);
            let cut = cut.min(bytes.len());
            let first = find_end(&bytes[..cut], 0, &LIMITS);
            let pieces = match first {
                Ok(None) => find_end(&bytes, cut, &LIMITS),
                done => done,
            };
            prop_assert_eq!(whole, pieces);
        }
    }
}
