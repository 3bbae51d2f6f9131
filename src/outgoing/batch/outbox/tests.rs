use bytes::Bytes;
use proptest::prelude::*;

use super::super::Frame;
use super::*;
use crate::catalog::{BatchReply, Class};
use crate::model::request::{ApiPath, Purpose};

const MAX: usize = 4;

fn group(name: &str) -> Arc<Group> {
    Arc::new(Group {
        method: Method::Put,
        path: ApiPath::render(&format!("/v3/{name}"), |_| None).unwrap(),
        query: Vec::new(),
        frame: Frame::Body { before: Bytes::from_static(b"["), after: Bytes::from_static(b"]") },
        max: MAX,
        reply: BatchReply::Nothing,
        fields: vec!["id".to_owned()],
        class: Class::A,
    })
}

fn request(template: &str) -> Request {
    let path = ApiPath::render(template, |_| Some("7")).unwrap();
    Request { method: Method::Put, path, query: Vec::new(), body: None, purpose: Purpose::Command }
}

fn key(id: u8) -> Key {
    Key(Box::new([Some(id.to_string().into())]))
}

/// A command that sets these things of a group.
fn shared(lane: usize, group: &Arc<Group>, ids: &[u8]) -> Member<usize> {
    let items: Vec<String> = ids.iter().map(u8::to_string).collect();
    let keys = ids.iter().copied().map(key).collect();
    let part = Part { group: group.clone(), items: items.join(",").into(), count: ids.len(), keys };
    Member { lane, request: request("/v3/one/{id}"), part: Some(part), most: None }
}

fn single(lane: usize) -> Member<usize> {
    Member { lane, request: request("/v3/one/{id}"), part: None, most: None }
}

fn body(joint: &Joint) -> String {
    joint.request.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default()
}

#[derive(Debug, Clone)]
enum Step {
    Single,
    Offer { group: usize, ids: Vec<u8>, most: Option<usize> },
    Next,
    End(usize, Came),
    Pass(u64),
}

fn came() -> impl Strategy<Value = Came> {
    prop::sample::select(vec![Came::Done, Came::Refused, Came::TooLarge, Came::Nothing])
}

fn step() -> impl Strategy<Value = Step> {
    let ids = prop::collection::btree_set(0..12u8, 1..3).prop_map(|ids| ids.into_iter().collect());
    prop_oneof![
        1 => Just(Step::Single),
        6 => (0..3usize, ids, prop::option::weighted(0.2, 1..=MAX))
            .prop_map(|(group, ids, most)| Step::Offer { group, ids, most }),
        4 => Just(Step::Next),
        3 => (0..8usize, came()).prop_map(|(at, came)| Step::End(at, came)),
        3 => (1..80u64).prop_map(Step::Pass),
    ]
}

/// What is asked of each request and of all of them.
struct World {
    outbox: Outbox<usize>,
    groups: [Arc<Group>; 3],
    now: Instant,
    offered: Vec<Member<usize>>,
    under_way: Vec<(Joint, Endpoint)>,
    ended: Vec<usize>,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Single => self.offer(single(self.offered.len())),
            Step::Offer { group, ids, most } => {
                let member = shared(self.offered.len(), &self.groups[*group], ids);
                self.offer(Member { most: *most, ..member });
            }
            Step::Next => _ = self.next(),
            Step::End(at, came) if !self.under_way.is_empty() => self.end(at % self.under_way.len(), *came),
            Step::End(..) => {}
            Step::Pass(ms) => self.now += Duration::from_millis(*ms),
        }
    }

    fn offer(&mut self, member: Member<usize>) {
        self.offered.push(member.clone());
        self.outbox.offer(member, self.now);
    }

    fn next(&mut self) -> bool {
        let Some(joint) = self.outbox.next(self.now) else { return false };
        let lanes: Vec<usize> = self.outbox.lanes_of(joint.number).copied().collect();
        let first = &self.offered[lanes[0]];
        if joint.parts.is_empty() {
            assert_eq!((lanes.len(), &joint.request), (1, &first.request), "alone it is its own request");
        } else {
            assert_eq!(lanes.len(), joint.parts.len());
            let items: usize = joint.parts.iter().map(|part| part.count).sum();
            assert!(items <= MAX.min(first.most.unwrap_or(MAX)), "{items} items");
            let mut keys: Vec<&Key> = joint.parts.iter().flat_map(|part| part.keys.iter()).collect();
            assert_eq!(keys.len(), items);
            keys.sort_by_key(|key| format!("{key:?}"));
            assert!(keys.windows(2).all(|two| two[0] != two[1]), "a key twice: {keys:?}");
            for (lane, part) in lanes.iter().zip(&joint.parts) {
                let own = self.offered[*lane].part.as_ref().unwrap();
                assert_eq!((&own.items, &own.group), (&part.items, &first.part.as_ref().unwrap().group));
            }
        }
        let endpoint = match &first.part {
            Some(part) if first.most != Some(1) => (part.group.method, part.group.path.template().clone()),
            Some(_) | None => endpoint_of(&first.request),
        };
        self.under_way.push((joint, endpoint.clone()));
        assert!(self.under_way.len() <= 4, "more requests than may be under way");
        let of_endpoint = self.under_way.iter().filter(|(_, other)| *other == endpoint).count();
        assert!(of_endpoint <= 2, "an endpoint has more than its half");
        true
    }

    fn end(&mut self, at: usize, came: Came) {
        let (joint, _) = self.under_way.swap_remove(at);
        let members = self.outbox.ended(joint.number, came, self.now);
        assert!(!members.is_empty() && self.outbox.ended(joint.number, came, self.now).is_empty());
        self.ended.extend(members.into_iter().map(|member| member.lane));
    }

    /// Left alone, everything leaves and comes back.
    fn finish(mut self) {
        while self.ended.len() < self.offered.len() {
            if self.next() {
                continue;
            }
            if self.under_way.is_empty() {
                assert!(!self.outbox.is_ready());
                let at = self.outbox.wake_at().expect("something waits and nothing tells when it goes");
                assert!(at > self.now, "the moment has come, and nothing goes");
                assert!(at - self.now <= LINGER);
                self.now = at;
            } else {
                self.end(0, Came::Done);
            }
        }
        self.ended.sort_unstable();
        assert_eq!(self.ended, (0..self.offered.len()).collect::<Vec<_>>(), "each command once");
        assert!(
            self.outbox.queues.is_empty() && self.outbox.busy.is_empty() && self.outbox.blocked.is_empty()
        );
        assert!(self.outbox.turns.is_empty() && self.outbox.lingering.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn each_command_leaves_once_within_every_bound(steps in prop::collection::vec(step(), 0..150)) {
        let groups = ["a", "b", "c"].map(group);
        let outbox = Outbox::new(Limits { requests: 4 });
        let (offered, under_way, ended) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = World { outbox, groups, now: Instant::now(), offered, under_way, ended };
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

#[test]
fn a_batch_waits_for_more_and_no_longer_than_it_must() {
    let (mut outbox, group, begun) = (Outbox::new(Limits { requests: 4 }), group("a"), Instant::now());
    outbox.offer(shared(0, &group, &[0]), begun);
    assert!(outbox.next(begun).is_none());
    let second = begun + QUIET / 2;
    outbox.offer(shared(1, &group, &[1]), second);
    assert!(outbox.next(begun + QUIET).is_none(), "the second came in between");
    assert_eq!(outbox.wake_at(), Some(second + QUIET));
    assert_eq!(body(&outbox.next(second + QUIET).unwrap()), "[0,1]");

    // A trickle does not hold it up for ever.
    let group = super::tests::group("b");
    let mut now = begun;
    let first = loop {
        outbox.offer(shared(2, &group, &[(now - begun).as_millis() as u8]), now);
        now += QUIET / 2;
        if let Some(joint) = outbox.next(now) {
            break joint;
        }
    };
    assert!(first.parts.len() == MAX || now - begun <= LINGER, "{:?}", now - begun);
}

#[test]
fn a_full_batch_goes_at_once_and_what_comes_meanwhile_travels_with_the_next() {
    let (mut outbox, group, now) = (Outbox::new(Limits { requests: 4 }), group("a"), Instant::now());
    for id in 0..6 {
        outbox.offer(shared(usize::from(id), &group, &[id]), now);
    }
    let full = outbox.next(now).unwrap();
    assert_eq!(body(&full), "[0,1,2,3]");
    let later = now + LINGER * 10;
    assert!(
        outbox.next(later).is_none() && outbox.wake_at().is_none(),
        "the rest waits for the first to end"
    );
    outbox.offer(shared(6, &group, &[6]), later);
    outbox.ended(full.number, Came::Done, later);
    assert_eq!(body(&outbox.next(later).unwrap()), "[4,5,6]");
}

#[test]
fn a_thing_that_is_written_twice_is_written_by_two_requests_in_their_order() {
    let (mut outbox, group, now) = (Outbox::new(Limits { requests: 4 }), group("a"), Instant::now());
    for (lane, id) in [1, 1, 2, 1, 3].into_iter().enumerate() {
        outbox.offer(shared(lane, &group, &[id]), now);
    }
    let mut bodies = Vec::new();
    let mut now = now;
    while bodies.len() < 3 {
        now += QUIET;
        let joint = outbox.next(now).unwrap();
        bodies.push(outbox.lanes_of(joint.number).copied().collect::<Vec<_>>());
        outbox.ended(joint.number, Came::Done, now);
    }
    assert_eq!(bodies, [vec![0, 2, 4], vec![1], vec![3]]);
}

#[test]
fn groups_and_singles_take_turns() {
    let (mut outbox, now) = (Outbox::new(Limits { requests: 20 }), Instant::now());
    let (a, b) = (group("a"), group("b"));
    for id in 0..40 {
        outbox.offer(shared(0, &a, &[id]), now);
    }
    for id in 0..4 {
        outbox.offer(shared(1, &b, &[id]), now);
    }
    outbox.offer(single(2), now);
    let lanes: Vec<usize> = (0..3)
        .map(|_| {
            let joint = outbox.next(now).unwrap();
            *outbox.lanes_of(joint.number).next().unwrap()
        })
        .collect();
    assert_eq!(lanes, [0, 1, 2]);
}

#[test]
fn a_size_that_was_too_large_is_not_tried_again_for_an_hour() {
    let (mut outbox, group, now) = (Outbox::new(Limits { requests: 9 }), group("a"), Instant::now());
    let sizes = |outbox: &mut Outbox<usize>, came: Came, now: Instant| {
        for id in 0..4 {
            outbox.offer(shared(0, &group, &[id]), now);
        }
        let first = outbox.next(now).unwrap();
        outbox.ended(first.number, came, now);
        while let Some(rest) = outbox.next(now) {
            outbox.ended(rest.number, Came::Done, now);
        }
        first.parts.len()
    };
    assert_eq!(sizes(&mut outbox, Came::TooLarge, now), 4);
    assert_eq!(sizes(&mut outbox, Came::Done, now), 2);
    let later = now + Duration::from_secs(3600);
    assert_eq!(sizes(&mut outbox, Came::Done, later), 4);
}

#[test]
fn a_refusal_halves_what_waits_and_what_is_done_doubles_it_again() {
    let (mut outbox, group, now) = (Outbox::new(Limits { requests: 2 }), group("a"), Instant::now());
    for id in 0..40 {
        outbox.offer(shared(usize::from(id), &group, &[id]), now);
    }
    let mut sizes = Vec::new();
    let (refused, done) = (Came::Refused, Came::Done);
    for came in [refused, refused, refused, Came::Nothing, done, refused, done, done, done, done] {
        let joint = outbox.next(now).unwrap();
        sizes.push(outbox.lanes_of(joint.number).count());
        outbox.ended(joint.number, came, now);
    }
    // A batch is cut where it must be, and its rest goes before the next one.
    assert_eq!(sizes, [4, 2, 1, 1, 1, 2, 1, 2, 2, 4]);
    assert!(outbox.sizes.of(&group) >= MAX, "all is well again");
}

#[test]
fn of_requests_that_were_under_way_together_one_counts() {
    let (mut outbox, group, now) = (Outbox::new(Limits { requests: 8 }), group("a"), Instant::now());
    for id in 0..40 {
        outbox.offer(shared(usize::from(id), &group, &[id]), now);
    }
    let together: Vec<Joint> = std::iter::from_fn(|| outbox.next(now)).collect();
    assert_eq!(together.len(), 4);
    for joint in together {
        outbox.ended(joint.number, Came::Refused, now);
    }
    assert_eq!(outbox.sizes.of(&group), MAX / 2);
}

#[test]
fn ten_thousand_commands_of_one_thing_are_no_trouble() {
    let (mut outbox, group, now) = (Outbox::new(Limits { requests: 2 }), group("a"), Instant::now());
    for lane in 0..10_000 {
        outbox.offer(shared(lane, &group, &[1]), now);
    }
    let mut now = now;
    for lane in 0..10_000 {
        now += LINGER;
        let joint = outbox.next(now).unwrap();
        assert_eq!(outbox.lanes_of(joint.number).collect::<Vec<_>>(), [&lane]);
        outbox.ended(joint.number, Came::Done, now);
    }
}
