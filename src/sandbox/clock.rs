//! The simulator's dates: the formats the API shows, read and written.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Unix time now, in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Unix time now, in seconds.
pub(crate) fn unix_s() -> i64 {
    i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX)
}

thread_local! {
    /// The second written last and its text: a batch stamps thousands of rows with one of them.
    static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// `2026-01-01T00:00:00+00:00`, as the V3 API writes dates.
pub(crate) fn iso(unix_s: i64) -> String {
    LAST.with_borrow_mut(|(second, text)| {
        if *second != unix_s {
            *text = stamp(unix_s).strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
            *second = unix_s;
        }
        text.clone()
    })
}

/// `Thu, 01 Jan 2026 00:00:00 +0000`, as the V2 API writes dates.
pub(crate) fn rfc2822(unix_s: i64) -> String {
    stamp(unix_s).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn stamp(unix_s: i64) -> Timestamp {
    Timestamp::from_second(unix_s).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Reads ISO 8601 with an offset or `Z`, RFC 2822, a date-time without an offset (UTC), a bare date, or unix seconds.
///
/// A bare date takes the present time of day, as the catalogue filters document.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(second) =
        LAST.with_borrow(|(second, last)| (!text.is_empty() && last == text).then_some(*second))
    {
        return Some(second);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds);
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.as_second());
    }
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(zoned.timestamp().as_second());
    }
    let utc = jiff::tz::TimeZone::UTC;
    if text.len() > 10
        && let Ok(civil) = text.parse::<jiff::civil::DateTime>()
    {
        return civil.to_zoned(utc).ok().map(|zoned| zoned.timestamp().as_second());
    }
    let date = text.parse::<jiff::civil::Date>().ok()?;
    let midnight = date.to_zoned(utc).ok()?.timestamp().as_second();
    Some(midnight + unix_s().rem_euclid(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_back() {
        assert_eq!(iso(1_767_225_600), "2026-01-01T00:00:00+00:00");
        assert_eq!(rfc2822(1_767_225_600), "Thu, 01 Jan 2026 00:00:00 +0000");
        for text in [
            "2026-01-01T00:00:00+00:00",
            "2026-01-01T00:00:00Z",
            "Thu, 01 Jan 2026 00:00:00 +0000",
            "1767225600",
            "2026-01-01T01:00:00+01:00",
            "2026-01-01T00:00:00",
        ] {
            assert_eq!(parse(text), Some(1_767_225_600), "{text}");
        }
        assert_eq!(parse("yesterday"), None);
    }
}
