//! Scans of nested lists, cut off anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::scheduler::seen::hash;

fn catalog() -> Catalog {
    let text = r#"
        [[entity]]
        name = "channel"
        doc = "A parent."
        spec = "x.yml"
        oauth = "x"
        key = ["id"]
        ids = ["channel_id"]
        read.one = "/v3/channels/{channel_id}"
        list = { path = "/v3/channels", pages = "v2", max = 2 }

        [[entity]]
        name = "site"
        doc = "A child."
        spec = "x.yml"
        oauth = "x"
        key = ["@channel_id", "id"]
        ids = ["channel_id", "site_id"]
        read.one = "/v3/channels/{channel_id}/sites/{site_id}"
        list = { path = "/v3/sites", over = "channel", query = { channel_id = "{channel_id}" }, default = true, pages = "page", max = 2 }

        [[entity]]
        name = "route"
        doc = "A grandchild."
        spec = "x.yml"
        oauth = "x"
        key = ["@channel_id", "@site_id", "id"]
        ids = ["channel_id", "site_id", "route_id"]
        read.one = "/v3/channels/{channel_id}/sites/{site_id}/routes/{route_id}"
        list = { path = "/v3/channels/{channel_id}/sites/{site_id}/routes", over = "site", pages = "cursor", max = 2 }
    "#;
    Catalog::from_families(&[("test.toml", text)]).unwrap_or_else(|e| panic!("{e}"))
}

fn levels_of(name: &str) -> Vec<Level> {
    let catalog = catalog();
    levels(&catalog, catalog.entity(name).unwrap()).unwrap()
}

/// Reads everything; after each page the scan is written down and read again. The lists that were read, in order, and
/// the ids found.
fn read_all(
    name: &str,
    path: &[(&str, &str)],
    rows: impl Fn(&Frame) -> Vec<String>,
) -> (Vec<String>, BTreeSet<String>) {
    let levels = levels_of(name);
    let path: BTreeMap<String, String> =
        path.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut scan = Scan::new("s".into(), Kind::Poll, Mode::Rows, &levels, &path);
    let (mut lists, mut found) = (Vec::new(), BTreeSet::new());
    for _ in 0..1_000 {
        scan = serde_json::from_str(&serde_json::to_string(&scan).unwrap()).unwrap();
        let Some((frame, level, ask)) = scan.next(&levels, |_, level| level.list().max as u64) else { break };
        let places: Vec<&str> = frame.places.values().map(String::as_str).collect();
        lists.push(format!("{}[{}]", level.row.name, places.join(",")));
        let all = rows(frame);
        let limit = ask.limit.unwrap() as usize;
        let after = ask.query.iter().find(|(name, _)| name == "after").map(|(_, after)| after.clone());
        let start =
            after.map_or(ask.start as usize, |after| all.iter().position(|id| *id == after).unwrap() + 1);
        let page: Vec<String> = all.iter().skip(start).take(limit).cloned().collect();
        let seen = Seen {
            rows: page.iter().map(|id| hash(id)).collect(),
            last: page.last().cloned(),
            after: Some(page.last().filter(|last| all.last() != Some(last)).cloned()),
            ..Seen::default()
        };
        let parents: Vec<&str> = level.parent_ids.iter().map(|id| frame.places[id].as_str()).collect();
        let id = |own: &String| EntityId::from_parts(&[parents.as_slice(), &[own]].concat()).ok();
        let ids: Vec<Option<EntityId>> = page.iter().map(id).collect();
        let turned = scan.turn(&levels, &ask, &seen, &ids).unwrap();
        let fresh = ids.iter().zip(turned.fresh).filter(|(_, fresh)| *fresh);
        found.extend(fresh.filter_map(|(id, _)| id.as_ref()).map(ToString::to_string));
    }
    assert!(scan.stack.is_empty(), "{scan:?}");
    (lists, found)
}

fn numbers(count: u64) -> Vec<String> {
    (1..=count).map(|n| n.to_string()).collect()
}

#[test]
fn grandchildren_are_found_below_every_child_of_every_parent() {
    let (lists, found) = read_all("route", &[], |frame| match frame.level {
        0 => numbers(5),
        1 => numbers(frame.places["channel_id"].parse().unwrap_or(0)),
        _ => numbers(3),
    });
    assert_eq!(found.len(), (1 + 2 + 3 + 4 + 5) * 3);
    assert!(found.contains("5:5:3"));
    assert_eq!(lists.iter().filter(|list| list.starts_with("channel[")).count(), 3, "{lists:?}");
}

#[test]
fn what_stands_below_no_parent_is_read_once() {
    let (lists, found) = read_all("site", &[], |frame| match frame.level {
        0 => numbers(3),
        _ => numbers(1),
    });
    assert_eq!(lists.iter().filter(|list| *list == "site[default]").count(), 1, "{lists:?}");
    assert_eq!(found, ["1:1", "2:1", "3:1", "default:1"].map(str::to_owned).into());
}

#[test]
fn fixed_parents_are_not_looked_up() {
    let (lists, found) = read_all("site", &[("channel_id", "7")], |_| numbers(3));
    assert!(lists.iter().all(|list| list == "site[7]"), "{lists:?}");
    assert_eq!(found.len(), 3);
    let (lists, _) =
        read_all("route", &[("channel_id", "7")], |frame| numbers(if frame.level == 1 { 2 } else { 1 }));
    assert!(lists.iter().all(|list| !list.starts_with("channel")), "{lists:?}");
}

#[test]
fn a_list_whose_parent_is_gone_is_left_out() {
    let levels = levels_of("site");
    let mut scan = Scan::new("s".into(), Kind::Sweep, Mode::Whole, &levels, &BTreeMap::new());
    let (_, _, ask) = scan.next(&levels, |_, _| 2).unwrap();
    let ids: Vec<Option<EntityId>> = ["1"].iter().map(|id| EntityId::parse(id).ok()).collect();
    scan.turn(&levels, &ask, &Seen { rows: vec![1], ..Seen::default() }, &ids).unwrap();
    assert!(scan.is_below_a_parent());
    scan.skip(&levels);
    assert!(scan.is_below_a_parent(), "the settings of no channel were skipped, channel 1 is next");
    assert_eq!(scan.next(&levels, |_, _| 2).unwrap().0.places["channel_id"], "1");
    scan.skip(&levels);
    assert!(scan.stack.is_empty());
}
