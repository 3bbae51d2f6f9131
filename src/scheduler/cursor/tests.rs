//! The cursor against a list that changes between any two pages.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::catalog::{Keyset, List};
use crate::scheduler::seen::hash;

fn list(pages: Pages, keyset: Option<&str>) -> List {
    List {
        path: "/v3/things".into(),
        over: None,
        query: Default::default(),
        default: false,
        pages,
        max: 250,
        since: None,
        whole: true,
        include: false,
        keyset: keyset.map(|param| Keyset { param: param.into(), sort: None }),
    }
}

/// Rows of a page whose size is not asked for.
const DEFAULT_SIZE: usize = 50;

/// What a store answers: the rows are ids, in rising order.
fn answer(list: &List, rows: &BTreeSet<u64>, ask: &Ask) -> Vec<u64> {
    let get = |name: &str| ask.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let number = |name: &str| get(name).and_then(|value| value.parse::<usize>().ok());
    let limit = number("limit").unwrap_or(DEFAULT_SIZE);
    let skip = number("page").map_or(0, |page| (page - 1).saturating_mul(limit));
    let from = list.keyset.as_ref().and_then(|keyset| number(&keyset.param)).unwrap_or(0) as u64;
    let after = get("after").and_then(|after| after.parse::<u64>().ok()).map_or(0, |after| after + 1);
    rows.range(from.max(after)..).skip(skip).take(limit).copied().collect()
}

fn seen(list: &List, found: &[u64], rows: &BTreeSet<u64>, ask: &Ask) -> Seen {
    let limit = ask.limit.unwrap_or(u64::MAX).max(1);
    let last = found.last().map(ToString::to_string);
    let more = found.last().is_some_and(|last| rows.range(last + 1..).next().is_some());
    Seen {
        rows: found.iter().map(|id| hash(&id.to_string())).collect(),
        numbers: found.to_vec(),
        last: last.clone(),
        numbered: (list.pages == Pages::Page && list.keyset.is_none()).then(|| Numbered {
            page: ask.start / limit + 1,
            pages: (rows.len() as u64).div_ceil(limit).max(1),
            size: limit,
        }),
        after: (list.pages == Pages::Cursor).then_some(last.filter(|_| more)),
    }
}

/// Reads the whole list while `change` is called between pages; the ids that were on some page.
fn read_all(
    list: &List,
    most: u64,
    rows: &mut BTreeSet<u64>,
    mut change: impl FnMut(usize, &mut BTreeSet<u64>),
) -> BTreeSet<u64> {
    let mut cursor = Cursor::start(list);
    let mut found = BTreeSet::new();
    for page in 0.. {
        assert!(page < 3_000, "it never ends: {cursor:?}");
        // As after a restart.
        cursor = serde_json::from_str(&serde_json::to_string(&cursor).unwrap()).unwrap();
        let Some(ask) = cursor.ask(list, most) else { break };
        let ids = answer(list, rows, &ask);
        found.extend(&ids);
        cursor = cursor.next(list, &ask, &seen(list, &ids, rows, &ask)).unwrap();
        change(page, rows);
    }
    found
}

fn lists() -> Vec<List> {
    vec![
        list(Pages::V2, None),
        list(Pages::Page, None),
        list(Pages::Cursor, None),
        list(Pages::AfterId, None),
        list(Pages::V2, Some("min_id")),
        list(Pages::Page, Some("id:min")),
        List { max: 0, ..list(Pages::V2, Some("min_id")) },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_row_that_is_there_throughout_is_on_some_page(
        count in 0_u64..400,
        most in 20_u64..60,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..30, any::<bool>()), 0..40),
    ) {
        for list in lists() {
            let mut rows: BTreeSet<u64> = (1..=count).map(|n| n * 3).collect();
            let mut steady = rows.clone();
            let mut next_id = count * 3 + 1;
            let found = read_all(&list, most, &mut rows, |page, rows| {
                let Some((at, several, vanishes)) = changes.get(page) else { return };
                for _ in 0..*several {
                    if *vanishes && !rows.is_empty() {
                        let id = *rows.iter().nth(at.index(rows.len())).unwrap();
                        rows.remove(&id);
                        steady.remove(&id);
                    } else {
                        rows.insert(next_id);
                        next_id += 1;
                    }
                }
            });
            let missed: Vec<_> = steady.difference(&found).collect();
            prop_assert!(missed.is_empty(), "{:?} {:?}: {missed:?}", list.pages, list.keyset);
        }
    }

    #[test]
    fn windows_reach_further_and_overlap(from in 2_u64..200_000, most in 20_u64..=250) {
        let (page, size, joins) = window(from, most);
        let start = (page - 1) * size;
        prop_assert!(start < from && from < start + size && joins && size <= most);
    }
}

#[test]
fn a_list_that_stands_still_takes_few_more_pages_than_it_must() {
    let list = list(Pages::Page, None);
    let mut rows: BTreeSet<u64> = (1..=100_000).collect();
    let mut pages = 0;
    read_all(&list, 250, &mut rows, |_, _| pages += 1);
    assert!(pages <= 460, "{pages} pages for 400");
}

#[test]
fn a_store_with_smaller_pages_than_asked_for_loses_nothing() {
    let list = list(Pages::Page, None);
    let rows: Vec<u64> = (1..=95).collect();
    let (mut cursor, mut found) = (Cursor::start(&list), BTreeSet::<u64>::new());
    for _ in 0..100 {
        let Some(ask) = cursor.ask(&list, 250) else { break };
        let number =
            |name: &str| ask.query.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.parse::<usize>().ok());
        let size = number("limit").unwrap().min(10);
        let page = number("page").unwrap_or(1);
        let ids: Vec<u64> = rows.iter().skip((page - 1) * size).take(size).copied().collect();
        found.extend(&ids);
        let numbered = Numbered { page: page as u64, pages: 95_u64.div_ceil(size as u64), size: size as u64 };
        let seen = Seen {
            rows: ids.iter().map(|id| hash(&id.to_string())).collect(),
            numbers: ids,
            numbered: Some(numbered),
            ..Seen::default()
        };
        cursor = cursor.next(&list, &ask, &seen).unwrap();
    }
    assert_eq!((found.len(), cursor), (95, Cursor::End));
}

#[test]
fn a_list_that_ignores_the_least_id_is_refused() {
    let list = list(Pages::V2, Some("min_id"));
    let cursor = Cursor::From(500);
    let ask = cursor.ask(&list, 2).unwrap();
    assert_eq!(ask.query, [("limit".to_owned(), "2".to_owned()), ("min_id".to_owned(), "500".to_owned())]);
    let seen = Seen { rows: vec![1, 2], numbers: vec![1, 2], ..Seen::default() };
    assert!(cursor.next(&list, &ask, &seen).is_err());
}

/// Reads a list whose pages hold `own` rows whatever size is asked for, and that tells of it or not.
fn read_short_pages(own: usize, count: usize, number: impl Fn(u64) -> u64) -> Result<Vec<u64>, Unordered> {
    let list = list(Pages::Page, None);
    let (mut cursor, mut found) = (Cursor::start(&list), BTreeSet::<u64>::new());
    for _ in 0..100 {
        let Some(ask) = cursor.ask(&list, 250) else { return Ok(found.into_iter().collect()) };
        let asked =
            ask.query.iter().find(|(name, _)| name == "page").map_or(1, |(_, page)| page.parse().unwrap());
        let (page, size) = (number(asked), ask.limit.unwrap_or(50));
        let ids: Vec<u64> = (1..=count as u64).skip((page as usize - 1) * own).take(own).collect();
        found.extend(&ids);
        let numbered = Numbered { page, pages: count.div_ceil(own) as u64, size };
        let rows = ids.iter().map(|id| hash(&id.to_string())).collect();
        let seen = Seen { rows, numbers: ids, numbered: Some(numbered), ..Seen::default() };
        cursor = cursor.next(&list, &ask, &seen)?;
    }
    panic!("it never ends: {cursor:?}");
}

#[test]
fn a_store_that_hides_its_page_size_is_read_to_the_end() {
    assert_eq!(read_short_pages(3, 6, |page| page), Ok((1..=6).collect()));
    assert_eq!(read_short_pages(1, 2, |page| page), Ok(vec![1, 2]));
}

#[test]
fn a_list_that_brings_the_first_page_for_ever_is_refused() {
    assert!(read_short_pages(3, 9, |_| 1).is_err());
}
