//! Texts of settings to values: times, shares, sizes, addresses, origins, names. Pure; `None` means "not such a
//! value", and the caller knows what to say about it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::{Host, Url};

use super::settings::Cidr;

/// `250ms`, `2s`, `15m`, `1h`, `7d`. A unit is needed, a fraction is not allowed.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A time as [`duration`] reads it, in the largest unit that divides it.
pub(super) fn show(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [("d", 86_400_000_u128), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.iter().find(|(_, size)| millis > 0 && millis.is_multiple_of(*size));
    unit.map_or_else(|| format!("{millis}ms"), |(name, size)| format!("{}{name}", millis / size))
}

/// `20%` as 0.2.
pub(super) fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    number.is_finite().then_some(number / 100.0)
}

/// `10GiB`, `512MiB`, `64KiB`, `1048576`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// `0.0.0.0:8080` or `[::1]:8081`. A host name is refused: what it means may change between two starts.
pub(super) fn listen(text: &str) -> Option<SocketAddr> {
    text.trim().parse().ok()
}

/// `10.0.0.0/8` or one address.
pub(super) fn cidr(text: &str) -> Option<Cidr> {
    let (address, bits) = match text.trim().split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text.trim(), None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some(Cidr { address, bits })
}

/// Why a text is no origin of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadUrl {
    /// Not a URL at all, or of another scheme.
    NotHttps,
    /// http to a host that is not this machine.
    PlainHttp,
    /// A user, a query or a fragment.
    Extras,
    /// A path where none may be.
    Path,
}

/// An https URL without user, query and fragment; http only when its host is this machine (S20). A path is
/// allowed when `path` says so.
pub(super) fn https(text: &str, path: bool) -> Result<Url, BadUrl> {
    // The URL parser repairs backslashes, tabs and missing slashes; a setting that needs repair is refused.
    if text.contains(['\\', '@', ' ', '\t', '\r', '\n']) || !text.contains("://") {
        return Err(BadUrl::NotHttps);
    }
    let url = Url::parse(text).map_err(|_| BadUrl::NotHttps)?;
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(BadUrl::NotHttps),
    };
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        "http" => return Err(BadUrl::PlainHttp),
        _ => return Err(BadUrl::NotHttps),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(BadUrl::Extras);
    }
    if !path && url.path() != "/" {
        return Err(BadUrl::Path);
    }
    Ok(url)
}

/// A name that may stand in a topic's name and in a URL's path.
pub(super) fn name(text: &str) -> Option<String> {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    (first && rest && text.len() <= 64).then(|| text.to_owned())
}

/// A store hash: it becomes a segment of every request's path.
pub(super) fn store_hash(text: &str) -> Option<String> {
    let good = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    (good && !text.is_empty() && text.len() <= 64).then(|| text.to_owned())
}

/// Whether Kafka takes a name: its own rule.
pub(super) fn topic(text: &str) -> bool {
    let good = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    good && !text.is_empty() && text.len() <= 249 && text != "." && text != ".."
}

/// A header's name in lower case: RFC 9110's token.
pub(super) fn header_name(text: &str) -> Option<String> {
    http::HeaderName::from_bytes(text.as_bytes()).ok().map(|name| name.as_str().to_owned())
}

/// Whether `scope` is what `pattern` means; `*` stands for any text.
pub(super) fn scope_matches(pattern: &str, scope: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == scope };
    let Some(rest) = scope.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| scope_matches(after, &rest[at..]))
}

/// What a pattern subscribes to of a scope of the catalogue: the scope itself, or, where the pattern names a channel by
/// its number, that channel's.
pub(super) fn scope_meant(pattern: &str, scope: &str) -> Option<String> {
    if scope_matches(pattern, scope) {
        return Some(scope.to_owned());
    }
    let channel = pattern.strip_prefix("store/channel/")?.split('/').next()?;
    let number = !channel.is_empty() && channel.bytes().all(|b| b.is_ascii_digit());
    let of_channel = number.then(|| scope.replacen("{channel_id}", channel, 1))?;
    scope_matches(pattern, &of_channel).then_some(of_channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let check = |text: &str, want: Option<u64>| {
            assert_eq!(duration(text), want.map(Duration::from_millis), "{text}")
        };
        check("250ms", Some(250));
        check("2s", Some(2000));
        check("15m", Some(900_000));
        check("1h", Some(3_600_000));
        check("3d", Some(259_200_000));
        for bad in
            ["", "5", "1.5s", "-1s", "2 s", "1w", "s", "99999999999999999999s", "18446744073709551615d"]
        {
            check(bad, None);
        }
        assert_eq!(show(Duration::from_secs(90)), "90s");
        assert_eq!(show(Duration::ZERO), "0ms");
    }

    #[test]
    fn origins_are_https_or_this_machine() {
        let check = |text: &str, want: Option<BadUrl>| assert_eq!(https(text, false).err(), want, "{text}");
        check("https://api.bigcommerce.com", None);
        check("http://127.0.0.1:9000", None);
        check("http://[::1]:9000", None);
        check("http://localhost:9000/", None);
        check("http://api.bigcommerce.com", Some(BadUrl::PlainHttp));
        check("http://localhost.example.com", Some(BadUrl::PlainHttp));
        check("http://127.0.0.1.example.com", Some(BadUrl::PlainHttp));
        check("https://api.bigcommerce.com/v3", Some(BadUrl::Path));
        check("https://api.bigcommerce.com?x", Some(BadUrl::Extras));
        check("https://a:b@example.com", Some(BadUrl::NotHttps));
        check("https:\\\\example.com", Some(BadUrl::NotHttps));
        check("ftp://example.com", Some(BadUrl::NotHttps));
        check("api.bigcommerce.com", Some(BadUrl::NotHttps));
    }

    #[test]
    fn sizes_shares_and_blocks_are_read() {
        assert_eq!(bytes("10GiB"), Some(10 << 30));
        assert_eq!(bytes("5GB"), None);
        assert_eq!(percent("20%"), Some(0.2));
        assert_eq!(percent("0.2"), None);
        let inside = |block: &str, peer: &str| cidr(block).unwrap().contains(peer.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.200.1.1") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(inside("0.0.0.0/0", "9.9.9.9") && inside("::1", "::1"));
        assert!(cidr("10.0.0.0/33").is_none() && cidr("proxy").is_none());
    }

    #[test]
    fn patterns_of_scopes_match_their_scopes() {
        assert!(scope_matches("store/order/*", "store/order/created"));
        assert!(scope_matches("store/*/created", "store/order/created"));
        assert!(scope_matches("store/order/created", "store/order/created"));
        assert!(!scope_matches("store/order/*", "store/product/created"));
        let of_channel = "store/channel/{channel_id}/order/created";
        let meant = |pattern: &str| scope_meant(pattern, of_channel);
        assert_eq!(meant("store/channel/17/order/*").as_deref(), Some("store/channel/17/order/created"));
        assert_eq!(meant("store/channel/{channel_id}/order/*").as_deref(), Some(of_channel));
        assert_eq!(meant("store/channel/*/order/*").as_deref(), Some(of_channel));
        for other in
            ["store/channel/x/order/*", "store/order/*", "store/channel/17/cart/*", "store/channel//order/*"]
        {
            assert_eq!(meant(other), None, "{other}");
        }
    }
}
