//! What bad items cost: the planner against a store that refuses them in every way that there is.

use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::request::{Answer, Reply};

/// How a store refuses a request that holds bad items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    /// As a whole, and names nothing.
    Silently,
    /// As a whole, and names the first one.
    NamingOne,
    /// As a whole, and names all of them.
    NamingAll,
    /// Only the bad ones, which it names.
    Partly,
}

struct Shop {
    refuses: Refuses,
    bad: BTreeSet<usize>,
    written: Vec<usize>,
    calls: usize,
}

impl Shop {
    fn answer(&mut self, request: &Request) -> Reply {
        self.calls += 1;
        let items: Vec<Value> = serde_json::from_slice(request.body.as_ref().unwrap()).unwrap();
        let ids: Vec<usize> = items.iter().map(|item| item["id"].as_u64().unwrap() as usize).collect();
        let bad: Vec<usize> = (0..ids.len()).filter(|at| self.bad.contains(&ids[*at])).collect();
        let error = |at: &usize| (format!("{at}.name"), Value::from("is wrong"));
        let errors: Value = match self.refuses {
            Refuses::Silently => json!({}),
            Refuses::NamingOne => Value::Object(bad.iter().take(1).map(error).collect()),
            Refuses::NamingAll | Refuses::Partly => Value::Object(bad.iter().map(error).collect()),
        };
        let (answer, status) = match (bad.is_empty(), self.refuses) {
            (true, _) => (Answer::Done, 200),
            (false, Refuses::Silently) => (Answer::Missing, 404),
            (false, Refuses::Partly) if ids.len() > bad.len() => (Answer::Partial, 207),
            (false, _) => (Answer::Invalid, 422),
        };
        let good: Vec<usize> = match answer {
            Answer::Done | Answer::Partial => ids.into_iter().filter(|id| !self.bad.contains(id)).collect(),
            _ => Vec::new(),
        };
        let rows: Vec<Value> = good.iter().map(|id| json!({ "id": id })).collect();
        self.written.extend(good);
        let body = json!({ "data": rows, "errors": errors }).to_string().into();
        Reply { answer, status, body, request_id: None, detail: String::new() }
    }
}

fn member(id: usize, group: &Arc<Group>, most: Option<usize>) -> Member<usize> {
    let item = json!({ "id": id }).to_string();
    let keys = Key::new(&group.fields, |_| Some(id.to_string())).into_iter().collect();
    let part = Part { group: group.clone(), items: item.into(), count: 1, keys };
    let request = group.request(std::iter::once(&part));
    Member { lane: id, request, part: Some(part), most }
}

/// Gives `count` commands to the planner, and their requests to the store, `places` at a time. Returns the calls.
fn run(
    shop: &mut Shop,
    count: usize,
    (max, places): (usize, usize),
    pick: &mut dyn FnMut(usize) -> usize,
) -> usize {
    let (method, path) = (Method::Put, ApiPath::render("/v3/things", |_| None).unwrap());
    let frame = Frame::Body { before: Bytes::from_static(b"["), after: Bytes::from_static(b"]") };
    let (query, fields, reply) = (Vec::new(), vec!["id".to_owned()], BatchReply::Rows);
    let group = Arc::new(Group { method, path, query, frame, max, reply, fields, class: Class::A });
    let mut outbox = Outbox::new(Limits { requests: places * 2 });
    let mut now = Instant::now();
    for id in 0..count {
        outbox.offer(member(id, &group, None), now);
    }
    let (mut ended, mut under_way) = (BTreeSet::new(), Vec::new());
    while ended.len() < count {
        under_way.extend(std::iter::from_fn(|| outbox.next(now)).map(|joint| {
            let reply = shop.answer(&joint.request);
            (joint, reply)
        }));
        if under_way.is_empty() {
            now = outbox.wake_at().expect("something waits");
            continue;
        }
        assert!(under_way.len() <= places, "{} at once", under_way.len());
        let (joint, reply) = under_way.swap_remove(pick(under_way.len()));
        let verdicts = match joint.parts.is_empty() {
            true => vec![Verdict { said: Said::Reply(reply.clone()), most: joint.most }],
            false => read(&joint.parts, joint.most, &reply),
        };
        let members = outbox.ended(joint.number, came(&reply, &verdicts), now);
        for (told, verdict) in members.into_iter().zip(verdicts) {
            match verdict.said {
                Said::Again => outbox.offer(member(told.lane, &group, verdict.most), now),
                Said::Reply(own) => {
                    let is_written = own.answer == Answer::Done;
                    assert_eq!(is_written, !shop.bad.contains(&told.lane), "{}: {own:?}", told.lane);
                    assert!(ended.insert(told.lane), "{} ended twice", told.lane);
                }
            }
        }
    }
    let mut written = std::mem::take(&mut shop.written);
    written.sort_unstable();
    assert_eq!(written, (0..count).filter(|id| !shop.bad.contains(id)).collect::<Vec<_>>(), "each once");
    shop.calls
}

/// The bounds of `sizes`.
fn check(
    refuses: Refuses,
    count: usize,
    bad: BTreeSet<usize>,
    (max, places): (usize, usize),
    seed: u64,
) -> usize {
    let (few, many) = (bad.len(), bad.len() == count);
    let mut shop = Shop { refuses, bad, written: Vec::new(), calls: 0 };
    let mut state = seed;
    let mut pick = |from: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % from
    };
    let calls = run(&mut shop, count, (max, places), &mut pick);
    let halvings = max.next_power_of_two().ilog2() as usize + 1;
    let meanwhile = if few == 0 { 0 } else { places * halvings };
    let of_few = count.div_ceil(max) + few * (3 * halvings + 1) + meanwhile;
    let of_many = if many { count } else { 2 * count } + meanwhile;
    assert!(
        calls <= of_few.min(of_many),
        "{refuses:?}: {calls} calls for {count}, {few} bad, {max} at most, {places} at once: {of_few}, {of_many}"
    );
    calls
}

const REFUSALS: [Refuses; 4] = [Refuses::Silently, Refuses::NamingOne, Refuses::NamingAll, Refuses::Partly];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn bad_items_cost_no_more_calls_than_is_promised(
        refuses in prop::sample::select(REFUSALS.to_vec()),
        max in prop::sample::select(vec![2usize, 10, 25, 50, 250, 1000]),
        places in prop::sample::select(vec![1usize, 4, 16]),
        shares in prop::collection::vec(prop::sample::select(vec![0u32, 1, 10, 50, 90, 100]), 1..4),
        count in 1..1200usize,
        seed in any::<u64>(),
    ) {
        // Runs of good and bad ones, each with a share of its own.
        let share = |id: usize| shares[id * shares.len() / count];
        let mut state = seed | 1;
        let bad = (0..count).filter(|id| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 100 < u64::from(share(*id))
        });
        let bad = bad.collect();
        check(refuses, count, bad, (max, places), seed);
    }
}

#[test]
fn good_ones_after_bad_ones_travel_in_large_requests_again() {
    for refuses in REFUSALS {
        let calls = check(refuses, 10_000, (0..500).collect(), (1_000, 4), 7);
        assert!(calls <= 500 + 100, "{refuses:?}: {calls} calls for 500 bad ones and 9,500 good ones");
    }
}

#[test]
fn one_bad_one_in_ten_thousand_costs_a_search_and_no_more() {
    for refuses in REFUSALS {
        let calls = check(refuses, 10_000, [4_321].into(), (1_000, 1), 7);
        assert!(calls <= 10 + 4 * 11, "{refuses:?}: {calls}");
    }
}
