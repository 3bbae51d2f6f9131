//! The state machine, look by look, without a store; the last test holds it against a naive model.

use proptest::prelude::*;
use secrecy::SecretString;

use super::super::hooks_wanted::tests::{HERE, hook, wanted};
use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const START: i64 = 1_700_000_000_000;

const SHIPMENTS: [&str; 3] = ["store/shipment/created", "store/shipment/updated", "store/shipment/deleted"];
const REDIRECT: &str = "store/redirects/updated";

/// A store whose hooks and health a test sets, and the watchdog's memory.
struct Lab {
    wanted: Wanted,
    state: State,
    hooks: Vec<Hook>,
    admin: Option<Admin>,
}

impl Lab {
    fn new(scopes: &[&str], hooks: Vec<Hook>) -> Self {
        Self { wanted: wanted(scopes), state: State::default(), hooks, admin: Some(Admin::default()) }
    }

    fn look(&mut self, now_ms: i64) -> Findings {
        let subscriptions = self.wanted.subscriptions(&[]);
        self.judge(now_ms, &subscriptions, true)
    }

    fn judge(&mut self, now_ms: i64, subscriptions: &[Subscription], is_whole: bool) -> Findings {
        let sight = Sight { now_ms, subscriptions, hooks: &self.hooks, admin: self.admin.as_ref(), is_whole };
        let (state, findings) = judge(&self.wanted, &self.state, &sight);
        // As it is kept between two processes.
        self.state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        findings
    }

    fn block(&mut self, destination: &str) {
        let domain =
            BlockedDomain { destination: destination.to_owned(), time_left_s: 100, reasons: Vec::new() };
        self.admin = Some(Admin { blocked: vec![domain], ..Admin::default() });
    }
}

fn gap(scopes: &[&str], since_ms: i64) -> Option<Gap> {
    Some(Gap { scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), since_ms })
}

fn asleep(mut hook: Hook) -> Hook {
    hook.is_active = false;
    hook
}

#[test]
fn a_fresh_installation_has_no_gap_however_its_hooks_are() {
    let mut lab = Lab::new(&[REDIRECT, SHIPMENTS[0]], vec![asleep(hook(1, REDIRECT, HERE))]);
    let found = lab.look(START);
    assert_eq!((found.gap.clone(), found.tally.inactive, found.tally.missing), (None, 1, 1));
    assert!(!found.is_healthy());
    assert_eq!(found.tally_once_mended(), Tally { active: 2, ..Tally::default() });
    lab.hooks = vec![hook(1, REDIRECT, HERE), hook(2, SHIPMENTS[0], HERE)];
    let found = lab.look(START + MINUTE);
    assert!(found.is_healthy() && found.gap.is_none());
    assert_eq!(found.tally, Tally { active: 2, ..Tally::default() });
}

#[test]
fn a_hook_that_slept_is_woken_and_its_gap_told_once_when_callbacks_come_again() {
    let mut lab =
        Lab::new(&[REDIRECT, SHIPMENTS[0]], vec![hook(1, REDIRECT, HERE), hook(2, SHIPMENTS[0], HERE)]);
    lab.look(START);
    lab.hooks[0] = asleep(hook(1, REDIRECT, HERE));
    let found = lab.look(START + 2 * MINUTE);
    assert_eq!(found.gap, None, "callbacks are lost still");
    assert_eq!(found.plan.items[0].action, Action::Update { id: 1, changes: vec![Change::Reactivate] });
    assert_eq!(lab.look(START + 4 * MINUTE).gap, None);
    lab.hooks[0] = hook(1, REDIRECT, HERE);
    assert_eq!(lab.look(START + 6 * MINUTE).gap, gap(&[REDIRECT], START - 10 * MINUTE));
    assert_eq!(lab.look(START + 8 * MINUTE).gap, None);
}

#[test]
fn what_bigcommerce_switched_off_had_retries_of_two_days_to_lose() {
    let mut lab = Lab::new(&[REDIRECT], vec![hook(1, REDIRECT, HERE)]);
    lab.look(START);
    lab.hooks = vec![asleep(hook(1, REDIRECT, HERE))];
    let states = BTreeMap::from([(1, "deactivated".to_owned())]);
    lab.admin = Some(Admin { states, ..Admin::default() });
    assert_eq!(lab.look(START + MINUTE).tally.deactivated, 1);
    lab.hooks = vec![hook(1, REDIRECT, HERE)];
    lab.admin = Some(Admin::default());
    assert_eq!(lab.look(START + 2 * MINUTE).gap, gap(&[REDIRECT], START - 49 * HOUR - 10 * MINUTE));
}

#[test]
fn a_hook_that_vanished_or_delivered_elsewhere_leaves_a_gap() {
    let elsewhere = hook(1, REDIRECT, "https://old.example.com/webhooks/main");
    let mut refused = hook(1, REDIRECT, HERE);
    refused.headers.insert("x-bridge-key".to_owned(), SecretString::from("of nobody"));
    for wrong in [vec![], vec![elsewhere], vec![refused]] {
        let mut lab = Lab::new(&[REDIRECT], vec![hook(1, REDIRECT, HERE)]);
        lab.look(START);
        lab.hooks = wrong;
        assert!(!lab.look(START + MINUTE).is_healthy());
        lab.hooks = vec![hook(2, REDIRECT, HERE)];
        assert_eq!(lab.look(START + 2 * MINUTE).gap, gap(&[REDIRECT], START - 10 * MINUTE));
    }
}

#[test]
fn a_rotated_header_or_a_wildcard_in_place_of_single_hooks_leaves_none() {
    let singles: Vec<Hook> = SHIPMENTS.iter().zip(1..).map(|(scope, id)| hook(id, scope, HERE)).collect();
    let mut lab = Lab::new(&SHIPMENTS, singles);
    assert_eq!(lab.look(START).tally.missing, 1, "the wildcard");
    for hook in &mut lab.hooks {
        hook.headers.insert("x-bridge-key".to_owned(), SecretString::from("older"));
    }
    lab.look(START + MINUTE);
    lab.hooks = vec![hook(9, "store/shipment/*", HERE)];
    let found = lab.look(START + 2 * MINUTE);
    assert!(found.is_healthy() && found.gap.is_none());
    // And the wildcard's own loss is one of all three.
    lab.hooks.clear();
    lab.look(START + 3 * MINUTE);
    lab.hooks = vec![hook(10, "store/shipment/*", HERE)];
    assert_eq!(lab.look(START + 4 * MINUTE).gap, gap(&SHIPMENTS, START + 2 * MINUTE - 10 * MINUTE));
}

#[test]
fn a_blocked_domain_is_a_gap_of_every_scope_if_it_is_ours() {
    let mut lab =
        Lab::new(&[REDIRECT, SHIPMENTS[0]], vec![hook(1, REDIRECT, HERE), hook(2, SHIPMENTS[0], HERE)]);
    lab.look(START);
    lab.block("erp.example.com");
    assert!(lab.look(START + MINUTE).is_healthy());
    lab.block("bridge.example.com");
    let found = lab.look(START + 2 * MINUTE);
    assert_eq!((found.tally.blocked, found.blocked.len(), found.gap.is_none()), (2, 1, true));
    // That nothing can be told of blocks ends none.
    lab.admin = None;
    assert_eq!(lab.look(START + 3 * MINUTE).gap, None);
    lab.admin = Some(Admin::default());
    let expected = gap(&[REDIRECT, SHIPMENTS[0]], START + MINUTE - 10 * MINUTE);
    assert_eq!(lab.look(START + 4 * MINUTE).gap, expected);
}

#[test]
fn half_an_hour_without_a_look_is_a_gap_and_ten_minutes_are_none() {
    let mut lab = Lab::new(&[REDIRECT], vec![hook(1, REDIRECT, HERE)]);
    lab.look(START);
    assert_eq!(lab.look(START + 10 * MINUTE).gap, None);
    assert_eq!(lab.look(START + 41 * MINUTE).gap, gap(&[REDIRECT], START));
}

#[test]
fn channels_that_cannot_be_read_leave_their_scopes_as_they_were() {
    const PAGE: &str = "store/channel/{channel_id}/page/updated";
    let ours = |id| hook(id, "store/channel/1/page/updated", HERE);
    let mut lab = Lab::new(&[PAGE, REDIRECT], vec![hook(1, REDIRECT, HERE), ours(2)]);
    let whole = lab.wanted.subscriptions(&[1]);
    lab.judge(START, &whole, true);
    lab.hooks.pop();
    lab.judge(START + MINUTE, &whole, true);
    lab.hooks.push(ours(3));
    let store_wide = lab.wanted.subscriptions(&[]);
    assert_eq!(lab.judge(START + 2 * MINUTE, &store_wide, false).gap, None);
    assert_eq!(lab.judge(START + 3 * MINUTE, &whole, true).gap, gap(&[PAGE], START - 10 * MINUTE));
    assert_eq!(lab.judge(START + 4 * MINUTE, &whole, true).gap, None);
}

#[test]
fn what_is_not_wanted_any_more_is_forgotten() {
    let mut lab = Lab::new(&[REDIRECT], vec![hook(1, REDIRECT, HERE)]);
    lab.look(START);
    lab.wanted = wanted(&[]);
    lab.look(START + MINUTE);
    assert_eq!(lab.state, State::default());
}

#[test]
fn hooks_that_nobody_touched_for_a_month_are_touched_a_few_at_a_time_and_once() {
    let scopes: Vec<String> = (0..25).map(|n| format!("store/x{n:02}/updated")).collect();
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let hooks = scopes.iter().zip(1..).map(|(scope, id)| {
        let age_days = if id == 25 { 29 } else { 30 + i64::try_from(id).unwrap() };
        Hook { touched_s: START / 1000 - age_days * 86_400, ..hook(id, scope, HERE) }
    });
    let mut lab = Lab::new(&scopes, hooks.collect());
    let touched = |found: &Findings| -> Vec<u64> {
        let awake = [Change::KeepAwake];
        let items = found.plan.items.iter();
        items
            .filter_map(|item| match &item.action {
                Action::Update { id, changes } if changes[..] == awake => Some(*id),
                _ => None,
            })
            .collect()
    };
    let first = lab.look(START);
    assert!(first.is_healthy());
    assert_eq!(touched(&first), (15..=24).collect::<Vec<_>>(), "the longest untouched first");
    assert_eq!(touched(&lab.look(START + MINUTE)), (5..=14).collect::<Vec<_>>());
    assert_eq!(touched(&lab.look(START + 2 * MINUTE)), (1..=4).collect::<Vec<_>>());
    assert!(touched(&lab.look(START + 3 * MINUTE)).is_empty());
    // A store that does not say that it was touched is asked again a day later, not at every look.
    assert_eq!(touched(&lab.look(START + 3 * MINUTE + DAY_MS)).len(), 10);
}

/// What one look meets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Fine,
    Asleep,
    Gone,
    Blocked,
    Unread,
}

fn weather() -> impl Strategy<Value = (Weather, i64)> {
    use Weather::{Asleep, Blocked, Fine, Gone, Unread};
    let kind = prop::sample::select(vec![Fine, Fine, Fine, Asleep, Gone, Blocked, Unread]);
    (kind, prop::sample::select(vec![MINUTE, 2 * MINUTE, 9 * MINUTE, 50 * MINUTE]))
}

proptest! {
    /// Between any two fine looks, the model knows whether something was wrong or nobody looked for long; then, and
    /// only then, the second tells a gap, and it reaches back beyond the first.
    #[test]
    fn a_gap_is_told_exactly_where_something_was_missed(looks in prop::collection::vec(weather(), 1..40)) {
        let mut lab = Lab::new(&[REDIRECT], Vec::new());
        let (mut now, mut last_fine, mut was_wrong) = (START, None::<i64>, false);
        for (weather, pause) in looks {
            now += pause;
            if weather == Weather::Unread {
                // A look that fails has no findings and keeps the state.
                continue;
            }
            lab.hooks = match weather {
                Weather::Gone => Vec::new(),
                Weather::Asleep => vec![asleep(hook(1, REDIRECT, HERE))],
                _ => vec![hook(1, REDIRECT, HERE)],
            };
            lab.admin = Some(Admin::default());
            if weather == Weather::Blocked {
                lab.block("https://bridge.example.com");
            }
            let found = lab.look(now);
            if weather != Weather::Fine {
                was_wrong = true;
                prop_assert_eq!(found.gap, None);
                continue;
            }
            let missed = last_fine.filter(|fine| was_wrong || now - fine > UNWATCHED_MS);
            prop_assert_eq!(found.gap, missed.and_then(|fine| gap(&[REDIRECT], fine - OVERLAP_MS)));
            (last_fine, was_wrong) = (Some(now), false);
        }
    }
}
