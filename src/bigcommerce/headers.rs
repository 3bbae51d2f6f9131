//! What the headers of a reply tell of the store's rate window. Pure; any bytes are taken.
//!
//! Header names are matched without regard to case by the HTTP library. A value that is not a number is as good
//! as missing, one below zero counts as zero, and of several the most careful one counts.

use std::time::Duration;

use http::HeaderMap;

use crate::engine::budget::Observation;

/// No number of requests or milliseconds above this is believed; it fits an `f64` exactly.
const LARGEST: f64 = 1e12;

/// Reads the rate headers, `Retry-After` among them.
pub(super) fn observation(headers: &HeaderMap) -> Observation {
    let count = |number: f64| number.min(f64::from(u32::MAX)) as u32;
    let millis = |number: f64| Duration::from_millis(number.ceil() as u64);
    Observation {
        quota: lowest(headers, "x-rate-limit-requests-quota").map(count),
        left: lowest(headers, "x-rate-limit-requests-left").map(count),
        window: highest(headers, "x-rate-limit-time-window-ms").filter(|ms| *ms >= 1.0).map(millis),
        reset_in: highest(headers, "x-rate-limit-time-reset-ms").map(millis),
        retry_after: retry_after(headers),
    }
}

/// BigCommerce's `X-Retry-After` or the standard header, in seconds; the longer one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = highest(headers, "x-retry-after").into_iter().chain(highest(headers, "retry-after"));
    seconds.reduce(f64::max).map(|seconds| Duration::from_millis((seconds * 1000.0).ceil() as u64))
}

fn numbers<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = f64> + 'a {
    headers.get_all(name).into_iter().filter_map(|value| {
        let number: f64 = value.to_str().ok()?.trim().parse().ok()?;
        number.is_finite().then(|| number.clamp(0.0, LARGEST))
    })
}

fn lowest(headers: &HeaderMap, name: &'static str) -> Option<f64> {
    numbers(headers, name).reduce(f64::min)
}

fn highest(headers: &HeaderMap, name: &'static str) -> Option<f64> {
    numbers(headers, name).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_documented_headers_are_read_in_any_case() {
        let seen = observation(&map(&[
            ("X-Rate-Limit-Requests-Quota", "150"),
            ("x-rate-limit-requests-LEFT", "35"),
            ("X-RATE-LIMIT-TIME-WINDOW-MS", "30000"),
            ("X-Rate-Limit-Time-Reset-Ms", "15000"),
            ("X-Retry-After", "15"),
        ]));
        let expected = Observation {
            quota: Some(150),
            left: Some(35),
            window: Some(Duration::from_secs(30)),
            reset_in: Some(Duration::from_secs(15)),
            retry_after: Some(Duration::from_secs(15)),
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn odd_values_are_read_with_care() {
        let left = |value: &str| observation(&map(&[("x-rate-limit-requests-left", value)])).left;
        for (value, expected) in [
            ("-3", Some(0)),
            ("12.9", Some(12)),
            ("1e99", Some(u32::MAX)),
            ("", None),
            ("abc", None),
            ("NaN", None),
            ("inf", None),
            (" 7 ", Some(7)),
        ] {
            assert_eq!(left(value), expected, "{value:?}");
        }
        let twice = map(&[("x-rate-limit-requests-left", "90"), ("x-rate-limit-requests-left", "20")]);
        assert_eq!(observation(&twice).left, Some(20));
        let twice = map(&[("x-retry-after", "3"), ("retry-after", "8")]);
        assert_eq!(retry_after(&twice), Some(Duration::from_secs(8)));
        assert_eq!(observation(&map(&[("x-rate-limit-time-window-ms", "0")])).window, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_bounded_waits(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 5)) {
            let names = ["x-rate-limit-requests-quota", "x-rate-limit-requests-left", "x-rate-limit-time-window-ms",
                "x-rate-limit-time-reset-ms", "x-retry-after"];
            let mut headers = HeaderMap::new();
            for (name, value) in names.into_iter().zip(values) {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let seen = observation(&headers);
            let bound = Duration::from_millis(1_000 * LARGEST as u64);
            for wait in [seen.window, seen.reset_in, seen.retry_after].into_iter().flatten() {
                prop_assert!(wait <= bound);
            }
        }
    }
}
