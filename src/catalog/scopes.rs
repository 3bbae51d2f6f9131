//! Names of webhook scopes: how they are delivered, and which wildcards there are.

use serde::Deserialize;

/// What stands for the channel's number in the scopes of channels.
const CHANNEL: &str = "{channel_id}";

/// A wildcard that BigCommerce takes a subscription for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard {
    /// The wildcard; `{channel_id}` stands for the channel's number.
    pub name: String,
    /// The scopes of the catalogue that it surely brings.
    pub brings: Vec<String>,
    /// Those that it may bring as well: below it by name, and not mentioned.
    pub may_bring: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wildcards {
    wildcard: Vec<WildcardRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WildcardRow {
    name: String,
    /// It brings what lies below its own level as well.
    #[serde(default)]
    below: bool,
}

/// The wildcards of the embedded file.
pub(super) fn wildcards<'a>(toml: &str, scopes: impl Iterator<Item = &'a String> + Clone) -> Vec<Wildcard> {
    let rows: Wildcards = toml::from_str(toml).expect("a test loads the embedded wildcards");
    let of = |row: WildcardRow| {
        let family = row.name.trim_end_matches('*');
        let is_brought = |scope: &&String| {
            let rest = scope.strip_prefix(family);
            rest.is_some_and(|rest| rest != "*" && (!rest.contains('/') || row.below && !is_metafield(rest)))
        };
        let may_come = |scope: &&String| {
            let rest = scope.strip_prefix(family);
            !row.below
                && rest.is_some_and(|rest| rest != "*" && rest.contains('/') && !rest.starts_with(CHANNEL))
        };
        let sorted = |mut found: Vec<String>| {
            found.sort_unstable();
            found
        };
        let brings = sorted(scopes.clone().filter(is_brought).cloned().collect());
        let may_bring = sorted(scopes.clone().filter(may_come).cloned().collect());
        Wildcard { name: row.name, brings, may_bring }
    };
    rows.wildcard.into_iter().map(of).collect()
}

/// Metafields have wildcards of their own, where they have any.
fn is_metafield(rest: &str) -> bool {
    rest.starts_with("metafield/")
}

/// How the catalogue may spell a delivered scope, likeliest first: without a trailing slash, `lineItem` in the
/// singular, `{channel_id}` or BigCommerce's own star in place of a channel, and for the star of a wildcard, which
/// may be delivered as it was subscribed, "updated".
pub(super) fn spellings(delivered: &str) -> Vec<String> {
    let name = delivered.trim_end_matches('/').replace("/lineItems/", "/lineItem/");
    let name = match name.strip_suffix("/*") {
        Some(family) => format!("{family}/updated"),
        None => name,
    };
    let of_channels = after_channel(&name)
        .map(|(_, rest)| [format!("store/channel/{CHANNEL}/{rest}"), format!("store/channel/*/{rest}")]);
    std::iter::once(name.clone()).chain(of_channels.into_iter().flatten()).collect()
}

/// The number of the channel in a delivered scope; none of a store-wide scope, or with a star in its place.
pub fn channel_of(delivered: &str) -> Option<&str> {
    after_channel(delivered).map(|(channel, _)| channel).filter(|channel| *channel != "*")
}

/// What stands in the channel's place, and what follows.
fn after_channel(delivered: &str) -> Option<(&str, &str)> {
    let (channel, rest) = delivered.strip_prefix("store/channel/")?.split_once('/')?;
    let is_one = channel == "*" || channel.bytes().all(|b| b.is_ascii_digit()) && !channel.is_empty();
    is_one.then_some((channel, rest))
}

/// Whether a scope of the catalogue holds the channel's number.
pub(super) fn has_channel(name: &str) -> bool {
    name.split('/').nth(2) == Some(CHANNEL)
}

/// Whether a row may claim this name.
pub(super) fn is_name(name: &str) -> bool {
    let mut segments = name.split('/');
    let channel = |at: usize| at == 2 && name.starts_with("store/channel/");
    segments.next() == Some("store")
        && segments.clone().count() >= 2
        && segments.enumerate().all(|(at, segment)| match segment {
            CHANNEL | "*" => channel(at + 1),
            plain => {
                !plain.is_empty()
                    && plain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivered_scope_is_tried_in_every_spelling() {
        assert_eq!(spellings("store/cart/lineItems/created/"), ["store/cart/lineItem/created"]);
        assert_eq!(spellings("store/product/*"), ["store/product/updated"]);
        assert_eq!(
            spellings("store/channel/17/order/*"),
            [
                "store/channel/17/order/updated",
                "store/channel/{channel_id}/order/updated",
                "store/channel/*/order/updated"
            ]
        );
        assert_eq!(channel_of("store/channel/17/order/created"), Some("17"));
        for none in
            ["store/channel/*/order/created", "store/channel/created", "store/channel/metafield/created", ""]
        {
            assert_eq!(channel_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_names_of_scopes_have_a_form() {
        for good in ["store/order/created", "store/channel/{channel_id}/order/created", "store/channel/*/x/y"]
        {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "store",
            "store/",
            "order/created/x",
            "store//created",
            "store/order/*",
            "store/{id}/created",
            "",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
