//! The watchdog against the sandbox: what it finds, what it mends, and which gaps it tells.

use std::net::TcpListener;

use bcbridge::bigcommerce::hooks_plan::{Action, Owner, Wanted};
use bcbridge::bigcommerce::hooks_watch::{self, Findings, Gap, Round, State};
use bcbridge::bigcommerce::{StoreClient, hooks};
use bcbridge::model::request::{Answer, ApiPath, Method, Purpose, Request};
use bcbridge::runtime::ports::Store;
use bcbridge::sandbox::{Chance, Profile, Sandbox, SandboxConfig};
use serde_json::json;
use url::Url;

use crate::client_sandbox::client_of;

const MINUTE: i64 = 60_000;
const START: i64 = 1_700_000_000_000;
const SCOPES: [&str; 2] = ["store/product/updated", "store/redirects/updated"];

/// A sandbox, and a watchdog that has seen its hooks work.
struct Lab {
    sandbox: Sandbox,
    client: StoreClient,
    wanted: Wanted,
    state: State,
    now_ms: i64,
}

impl Lab {
    async fn start(config: SandboxConfig) -> Self {
        // A port that nobody listens on: every delivery fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let public = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let owner = Owner { prefix: "shop", store: "main" };
        let sandbox = Sandbox::start(config).await.unwrap();
        let client = client_of(&sandbox);
        let wanted = Wanted::new(owner, &public, SCOPES.map(str::to_owned), []);
        let mut lab = Self { sandbox, client, wanted, state: State::default(), now_ms: START };
        assert_eq!(lab.round().await.tally.missing, 2);
        let found = lab.round().await;
        assert!(found.is_healthy() && found.gap.is_none(), "{found:?}");
        lab
    }

    /// A round a minute later, and the one right after it where that is asked for.
    async fn round(&mut self) -> Findings {
        self.now_ms += MINUTE;
        let mut round = self.look().await;
        if round.next_look == hooks_watch::LOOK_ONCE_KEPT {
            assert!(round.applied.is_empty(), "nothing is mended before the loss is kept");
            round = self.look().await;
        }
        assert!(round.applied.iter().all(|one| one.result.is_ok()), "{round:?}");
        round.findings
    }

    async fn look(&mut self) -> Round {
        let round = hooks_watch::round(&self.client, &self.wanted, &self.state, self.now_ms).await.unwrap();
        self.state = round.state.clone();
        round
    }

    async fn change(&self, method: Method, id: u64, body: Option<serde_json::Value>) {
        let id = id.to_string();
        let path = ApiPath::render("/v3/hooks/{webhook_id}", |_| Some(&id)).unwrap();
        let body = body.map(|body| body.to_string().into());
        let request = Request { method, path, query: Vec::new(), body, purpose: Purpose::Upkeep };
        assert_eq!(self.client.send(request).await.answer, Answer::Done);
    }

    /// What a gap that began with the last healthy look, `minutes` ago, is told as.
    fn gap(&self, minutes: i64, scopes: &[&str]) -> Option<Gap> {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Some(Gap { scopes, since_ms: self.now_ms - (minutes + 10) * MINUTE })
    }
}

#[tokio::test]
async fn a_hook_put_to_sleep_and_one_deleted_are_back_after_a_round_and_their_gap_is_told() {
    let mut lab = Lab::start(SandboxConfig::default()).await;
    let hooks = hooks::list(&lab.client).await.unwrap();
    lab.change(Method::Put, hooks[0].id, Some(json!({ "is_active": false }))).await;
    lab.change(Method::Delete, hooks[1].id, None).await;
    let found = lab.round().await;
    assert_eq!((found.tally.inactive, found.tally.missing, &found.gap), (1, 1, &None));
    let found = lab.round().await;
    assert!(found.is_healthy(), "{found:?}");
    assert_eq!(found.gap, lab.gap(2, &SCOPES));
    assert_eq!(lab.round().await.gap, None);
}

#[tokio::test]
async fn a_hook_that_bigcommerce_gave_up_on_is_woken_and_all_its_retries_are_in_the_gap() {
    // The two days of retries pass in a fifth of a second.
    let mut lab = Lab::start(SandboxConfig { time_scale: 1e6, ..SandboxConfig::default() }).await;
    assert!(lab.sandbox.control().touch_product(lab.sandbox_product()));
    lab.sandbox.control().quiesce().await;
    let found = lab.round().await;
    assert_eq!((found.tally.deactivated, found.tally.active), (1, 1), "{found:?}");
    assert!(matches!(found.plan.items[0].action, Action::Update { .. }));
    let found = lab.round().await;
    assert!(found.is_healthy(), "{found:?}");
    assert_eq!(found.gap, lab.gap(2 + 49 * 60, &SCOPES[..1]));
}

impl Lab {
    fn sandbox_product(&self) -> u64 {
        self.sandbox.control().state("product").unwrap().keys().next().unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn a_blocked_domain_is_found_with_its_reasons() {
    let mut lab = Lab::start(SandboxConfig::default()).await;
    lab.sandbox.control().touch_products(..);
    let blocked = async {
        while lab.sandbox.control().delivery_stats().blocks == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), blocked).await.unwrap();
    let found = lab.round().await;
    assert!(!found.is_healthy());
    assert_eq!((found.tally.blocked, found.blocked.len()), (2, 1), "{found:?}");
    assert!(found.blocked[0].time_left_s > 100 && !found.blocked[0].reasons.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_look_that_cannot_read_says_nothing_and_one_without_the_status_says_the_rest() {
    let mut lab = Lab::start(SandboxConfig::default()).await;
    let fail = |path: &str| Profile { status_403: Chance::of(1.0).path(path), ..Profile::default() };
    lab.sandbox.control().faults(fail("/v3/hooks/admin"));
    let id = hooks::list(&lab.client).await.unwrap()[0].id;
    lab.change(Method::Delete, id, None).await;
    let found = lab.round().await;
    assert!(found.admin_error.is_some());
    assert_eq!(found.tally.missing, 1);
    lab.sandbox.control().faults(fail("/v3/hooks"));
    let before = lab.state.clone();
    hooks_watch::look(&lab.client, &lab.wanted, &lab.state, lab.now_ms).await.unwrap_err();
    assert_eq!(lab.state, before);
    lab.sandbox.control().faults(Profile::default());
    assert_eq!(lab.round().await.gap, lab.gap(2, &SCOPES[..1]));
}
