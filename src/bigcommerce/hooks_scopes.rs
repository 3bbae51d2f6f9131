//! The fewest webhooks that bring the wanted scopes. Pure.
//!
//! A wildcard can stand for several concrete scopes, but BigCommerce states of few wildcards what exactly they bring. So
//! the catalogue tells what is sure from what is unclear, and two rules follow. A wildcard is chosen only
//! where *everything that it may bring* is wanted: unwanted callbacks cost no read, but each costs a request, a record
//! and a share of the two minutes in which nine in ten must succeed. And it replaces only what it is *sure* to bring:
//! no wanted scope hangs on a guess. At worst an unclear scope is announced twice, and the two hints become one read.
//!
//! Scopes of one channel are written with `{channel_id}` and wanted for every channel of the store. In
//! `store/channel/*/inventory/product/...` the star is a literal, as BigCommerce has it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::catalog::{self, Catalog};

/// What stands for a channel's number in the scopes of one channel.
const CHANNEL: &str = "{channel_id}";

/// Concrete scopes that one wildcard must replace to be worth it: for one, its own hook does.
const WORTH: usize = 2;

/// A wildcard that BigCommerce lets one subscribe to, and the scopes below it without what stands before the star.
#[derive(Debug)]
struct Wildcard {
    scope: String,
    /// What it brings, as documented.
    sure: Vec<String>,
    /// What it may bring as well.
    unclear: Vec<String>,
}

/// The catalogue's wildcards. They do not depend on the settings: users add entities, and no wildcards.
static WILDCARDS: LazyLock<Vec<Wildcard>> = LazyLock::new(|| {
    let catalog = Catalog::embedded().expect("a test loads the embedded rows");
    let below = |stem: &str, scopes: &[String]| -> Vec<String> {
        scopes.iter().filter_map(|scope| scope.strip_prefix(stem)).map(str::to_owned).collect()
    };
    let row = |known: &catalog::Wildcard| {
        let stem = known.name.trim_end_matches('*');
        let (sure, unclear) = (below(stem, &known.brings), below(stem, &known.may_bring));
        Wildcard { scope: known.name.clone(), sure, unclear }
    };
    catalog.wildcards().iter().map(row).collect()
});

/// One hook to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// What it subscribes to: a concrete scope or a wildcard, of one channel where channels matter.
    pub scope: String,
    /// The concrete scopes that it is there for, each with the wanted scope that asked for it: the same, or the one
    /// with `{channel_id}` in it.
    pub serves: BTreeMap<String, String>,
}

/// Whether a scope is wanted for each channel, so that the channels must be known.
pub fn is_of_channel(scope: &str) -> bool {
    scope.contains(CHANNEL)
}

/// The fewest hooks that bring each wanted scope for sure and nothing else, by scope. A wanted scope that is itself a
/// wildcard is taken as it is.
pub fn fewest<'a>(wanted: impl IntoIterator<Item = &'a str>, channels: &[u64]) -> Vec<Subscription> {
    let mut open = expand(wanted, channels);
    let mut chosen: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let asked: Vec<String> = open.keys().filter(|scope| scope.ends_with("/*")).cloned().collect();
    for scope in asked {
        let serves = take(&mut open, |concrete| concrete == scope || brings(&scope, concrete));
        if !serves.is_empty() {
            chosen.insert(scope, serves);
        }
    }
    let everything = open.clone();
    let mut rows: Vec<(String, &Wildcard)> =
        WILDCARDS.iter().flat_map(|row| names(&row.scope, channels).map(move |name| (name, row))).collect();
    // What one row is sure of is either part of what another is, or apart from it: so the largest first is best.
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.sure.len()));
    for (scope, row) in rows {
        let stem = scope.trim_end_matches('*');
        let below = |name: &String| format!("{stem}{name}");
        if !row.sure.iter().chain(&row.unclear).all(|name| everything.contains_key(&below(name))) {
            continue;
        }
        if row.sure.iter().filter(|name| open.contains_key(&below(name))).count() >= WORTH {
            let serves = take(&mut open, |concrete| brings(&scope, concrete));
            chosen.insert(scope, serves);
        }
    }
    let own = open.into_iter().map(|(scope, asker)| (scope.clone(), BTreeMap::from([(scope, asker)])));
    chosen.extend(own);
    chosen.into_iter().map(|(scope, serves)| Subscription { scope, serves }).collect()
}

/// Whether a hook on `subscribed` is sure to be called for events of `concrete`.
pub fn brings(subscribed: &str, concrete: &str) -> bool {
    if subscribed == concrete {
        return true;
    }
    let Some(stem) = subscribed.strip_suffix('*') else { return false };
    let Some(rest) = concrete.strip_prefix(stem) else { return false };
    WILDCARDS.iter().any(|row| row.sure.iter().any(|name| name == rest) && is_named(&row.scope, subscribed))
}

/// Whether `scope` is the row's scope, for some channel.
fn is_named(row: &str, scope: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = row.split('/').zip(scope.split('/'));
    row.split('/').count() == scope.split('/').count()
        && parts.all(|(row, part)| row == part || (row == CHANNEL && is_number(part)))
}

/// The scope itself, or one for each channel.
fn names<'a>(scope: &'a str, channels: &'a [u64]) -> impl Iterator<Item = String> + 'a {
    let alone = (!is_of_channel(scope)).then(|| scope.to_owned());
    let channels = if alone.is_some() { &[] } else { channels };
    alone.into_iter().chain(channels.iter().map(|id| scope.replace(CHANNEL, &id.to_string())))
}

/// Concrete scopes, each with the wanted scope that asked for it.
fn expand<'a>(wanted: impl IntoIterator<Item = &'a str>, channels: &[u64]) -> BTreeMap<String, String> {
    let each = wanted
        .into_iter()
        .flat_map(|scope| names(scope, channels).map(|name| (name, scope.to_owned())).collect::<Vec<_>>());
    each.collect()
}

/// Takes out what fits.
fn take(open: &mut BTreeMap<String, String>, fits: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let (taken, left) = std::mem::take(open).into_iter().partition(|(scope, _)| fits(scope));
    *open = left;
    taken
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn scopes(wanted: &[&str], channels: &[u64]) -> Vec<String> {
        fewest(wanted.iter().copied(), channels).into_iter().map(|hook| hook.scope).collect()
    }

    const CHANGES: [&str; 3] = ["created", "updated", "deleted"];

    fn below(row: &Wildcard, names: &[String]) -> Vec<String> {
        names.iter().map(|name| format!("{}{name}", row.scope.trim_end_matches('*'))).collect()
    }

    #[test]
    fn of_two_rows_one_holds_the_other_or_they_are_apart() {
        let sure: Vec<BTreeSet<String>> =
            WILDCARDS.iter().map(|row| below(row, &row.sure).into_iter().collect()).collect();
        for (at, a) in sure.iter().enumerate() {
            for b in &sure[at + 1..] {
                assert!(a.is_disjoint(b) || a.is_subset(b) || b.is_subset(a), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_wildcard_replaces_its_scopes_only_where_all_of_them_are_wanted() {
        let shipments = ["store/shipment/created", "store/shipment/updated", "store/shipment/deleted"];
        assert_eq!(scopes(&shipments, &[]), ["store/shipment/*"]);
        assert_eq!(scopes(&shipments[..2], &[]), shipments[..2]);
        // Metafields would come along, perhaps, and nobody asked for them.
        let categories = ["store/category/created", "store/category/deleted", "store/category/updated"];
        assert_eq!(scopes(&categories, &[]), categories);
        let metafields = CHANGES.iter().map(|change| format!("store/category/metafield/{change}"));
        let all: Vec<String> = categories.iter().map(|s| (*s).to_owned()).chain(metafields).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let expected = ["*", "metafield/created", "metafield/deleted", "metafield/updated"];
        assert_eq!(scopes(&all, &[]), expected.map(|name| format!("store/category/{name}")));
    }

    #[test]
    fn scopes_of_a_channel_are_wanted_for_each_channel_and_a_literal_star_stays() {
        let lines =
            CHANGES.iter().map(|change| format!("store/channel/{{channel_id}}/cart/lineItem/{change}"));
        let mut wanted: Vec<String> = lines.collect();
        wanted.push("store/channel/{channel_id}/page/updated".to_owned());
        wanted.push("store/channel/*/inventory/product/stock_changed".to_owned());
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let hooks = fewest(wanted.iter().copied(), &[1, 20]);
        let found: Vec<&str> = hooks.iter().map(|hook| hook.scope.as_str()).collect();
        let expected = [
            "store/channel/*/inventory/product/stock_changed",
            "store/channel/1/cart/lineItem/*",
            "store/channel/1/page/updated",
            "store/channel/20/cart/lineItem/*",
            "store/channel/20/page/updated",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            hooks[1].serves["store/channel/1/cart/lineItem/created"],
            "store/channel/{channel_id}/cart/lineItem/created"
        );
        assert_eq!(scopes(&wanted, &[]), expected[..1]);
    }

    #[test]
    fn a_wildcard_that_is_asked_for_by_name_is_taken_as_it_is() {
        let wanted = ["store/order/*", "store/order/created", "store/order/refund/created"];
        assert_eq!(scopes(&wanted, &[]), ["store/order/*", "store/order/refund/created"]);
    }

    /// Whole families with a few scopes missing, so that wildcards are often possible and often just not.
    fn some_scopes() -> impl Strategy<Value = BTreeSet<String>> {
        let families = prop::sample::subsequence((0..WILDCARDS.len()).collect::<Vec<_>>(), 1..6);
        (families, prop::collection::vec(any::<prop::sample::Index>(), 0..3), any::<bool>()).prop_map(
            |(families, missing, whole)| {
                let mut all: Vec<String> = families
                    .iter()
                    .flat_map(|at| {
                        [
                            below(&WILDCARDS[*at], &WILDCARDS[*at].sure),
                            below(&WILDCARDS[*at], &WILDCARDS[*at].unclear),
                        ]
                    })
                    .flatten()
                    .collect();
                if !whole {
                    for index in missing {
                        if !all.is_empty() {
                            all.swap_remove(index.index(all.len()));
                        }
                    }
                }
                all.push("store/app/uninstalled".to_owned());
                all.into_iter().collect()
            },
        )
    }

    proptest! {
        #[test]
        fn the_hooks_bring_what_is_wanted_and_nothing_else_and_no_fewer_would_do(
            wanted in some_scopes(),
            channels in prop::sample::subsequence(vec![1, 7, 123], 0..3),
        ) {
            let hooks = fewest(wanted.iter().map(String::as_str), &channels);
            let expanded = expand(wanted.iter().map(String::as_str), &channels);
            // Each concrete scope is served by exactly one hook, which is sure to bring it.
            let served: Vec<&String> = hooks.iter().flat_map(|hook| hook.serves.keys()).collect();
            prop_assert_eq!(served.len(), expanded.len());
            prop_assert_eq!(served.into_iter().collect::<BTreeSet<_>>(), expanded.keys().collect());
            for hook in &hooks {
                prop_assert!(hook.serves.keys().all(|scope| brings(&hook.scope, scope)));
                prop_assert!(!hook.scope.ends_with("/*") || hook.serves.len() >= WORTH);
            }
            // Nothing unwanted may come.
            let possible: Vec<(String, &Wildcard)> = WILDCARDS
                .iter()
                .flat_map(|row| names(&row.scope, &channels).map(move |name| (name, row)))
                .filter(|(name, row)| {
                    let stem = name.trim_end_matches('*');
                    row.sure.iter().chain(&row.unclear).all(|below| expanded.contains_key(&format!("{stem}{below}")))
                })
                .collect();
            for hook in hooks.iter().filter(|hook| hook.scope.ends_with("/*")) {
                prop_assert!(possible.iter().any(|(name, _)| *name == hook.scope), "{}", hook.scope);
            }
            // Every choice of possible wildcards, tried.
            prop_assume!(possible.len() <= 12);
            let least = (0_u32..1 << possible.len()).map(|choice| {
                let chosen: Vec<&String> =
                    possible.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1).map(|(_, (name, _))| name).collect();
                let alone = expanded.keys().filter(|scope| !chosen.iter().any(|name| brings(name, scope))).count();
                chosen.len() + alone
            }).min();
            prop_assert_eq!(Some(hooks.len()), least);
        }
    }
}
