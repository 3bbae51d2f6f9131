//! The client against the sandbox: another reading of the same documentation.

use std::collections::BTreeSet;
use std::time::Duration;

use bcbridge::bigcommerce::{ClientConfig, StoreClient};
use bcbridge::engine::budget::BudgetConfig;
use bcbridge::model::envelope;
use bcbridge::model::request::{Answer, Method, Purpose};
use bcbridge::runtime::ports::Store;
use bcbridge::sandbox::{Chance, Profile, Sandbox, SandboxConfig};
use futures::future::join_all;
use secrecy::SecretString;
use serde_json::Value;

use crate::client_lab::{PRODUCT, request};

/// A client of a sandbox, with the sandbox's own token.
pub(crate) fn client_of(sandbox: &Sandbox) -> StoreClient {
    StoreClient::new(config_of(sandbox)).unwrap()
}

fn config_of(sandbox: &Sandbox) -> ClientConfig {
    let defaults = SandboxConfig::default();
    let base = sandbox.base_uri().parse().unwrap();
    ClientConfig::new(defaults.store_hash, SecretString::from(defaults.access_token), base)
}

fn ids(rows: &[bytes::Bytes]) -> Vec<u64> {
    rows.iter().map(|row| serde_json::from_slice::<Value>(row).unwrap()["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_paged_to_its_end_and_a_single_thing_is_unwrapped() {
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let client = client_of(&sandbox);
    let (mut page, mut found) = (1, Vec::new());
    loop {
        let mut list = request(Method::Get, "/v3/catalog/products");
        list.query = vec![("page".to_owned(), page.to_string()), ("limit".to_owned(), "130".to_owned())];
        let reply = client.send(list).await;
        assert_eq!(reply.answer, Answer::Done, "{}", reply.detail);
        let rows = envelope::list(&reply.body).unwrap();
        assert_eq!(rows.total, Some(300));
        found.extend(ids(&rows.rows));
        match rows.next {
            envelope::Next::Page(next) => page = next,
            envelope::Next::End => break,
            other => panic!("{other:?}"),
        }
    }
    let distinct: BTreeSet<_> = found.iter().collect();
    assert_eq!((page, found.len(), distinct.len()), (3, 300, 300));
    let known = found[0].to_string();
    let path = bcbridge::model::request::ApiPath::render(PRODUCT, |_| Some(&known)).unwrap();
    let reply =
        client.send(bcbridge::model::request::Request { path, ..request(Method::Get, PRODUCT) }).await;
    assert_eq!(ids(&[envelope::single(&reply.body).unwrap()]), [found[0]]);
    assert!(reply.request_id.is_some());
}

#[tokio::test]
async fn ids_in_one_filter_bring_their_things_in_one_request() {
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let client = client_of(&sandbox);
    let known: Vec<String> = sandbox.control().state("product").unwrap().into_keys().take(200).collect();
    let mut read = request(Method::Get, "/v3/catalog/products");
    read.query = vec![
        ("id:in".to_owned(), format!("{},99999999", known.join(","))),
        ("limit".to_owned(), "250".to_owned()),
    ];
    let reply = client.send(read).await;
    let rows = envelope::list(&reply.body).unwrap();
    assert_eq!(rows.rows.len(), 200);
    assert_eq!(sandbox.control().stats().calls, 1);
}

#[tokio::test]
async fn what_is_not_there_and_who_may_not_are_told_apart() {
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let client = client_of(&sandbox);
    let absent = bcbridge::model::request::ApiPath::render(PRODUCT, |_| Some("99999999")).unwrap();
    let read = bcbridge::model::request::Request { path: absent, ..request(Method::Get, PRODUCT) };
    assert_eq!(client.send(read).await.answer, Answer::Missing);
    let mut config = config_of(&sandbox);
    config.access_token = SecretString::from("another");
    let stranger = StoreClient::new(config).unwrap();
    assert_eq!(stranger.send(request(Method::Get, "/v2/time")).await.answer, Answer::Unauthorized);
    sandbox.control().faults(Profile { status_403: Chance::of(1.0), ..Profile::default() });
    assert_eq!(client.send(request(Method::Get, "/v2/time")).await.answer, Answer::Forbidden);
    sandbox.control().faults(Profile { truncated: Chance::of(1.0), ..Profile::default() });
    assert_eq!(client.send(request(Method::Get, "/v3/catalog/products")).await.answer, Answer::Doubtful);
    sandbox.control().faults(Profile { cut_after: Chance::of(1.0), ..Profile::default() });
    assert_eq!(client.send(request(Method::Get, "/v2/time")).await.answer, Answer::Doubtful);
}

#[tokio::test]
async fn a_thousand_requests_of_all_purposes_meet_no_429_on_a_quota_of_150() {
    let window = Duration::from_millis(600);
    let sandbox = Sandbox::start(SandboxConfig { window, ..SandboxConfig::default() }).await.unwrap();
    let mut config = config_of(&sandbox);
    config.budget = BudgetConfig::default();
    config.timeouts.rate_wait = Some(Duration::from_secs(60));
    let client = StoreClient::new(config).unwrap();
    let purposes = [Purpose::Live, Purpose::Command, Purpose::Upkeep, Purpose::Live];
    let sends = (0..1_000).map(|n| {
        let mut read = request(Method::Get, "/v2/time");
        read.purpose = purposes[n % purposes.len()];
        client.send(read)
    });
    let replies = join_all(sends).await;
    assert!(replies.iter().all(|reply| reply.answer == Answer::Done));
    let stats = sandbox.control().stats();
    assert_eq!((stats.calls, stats.status_429), (1_000, 0));
    let mut arrivals: Vec<_> = sandbox.control().requests().iter().map(|request| request.unix_ms).collect();
    arrivals.sort_unstable();
    let span = window.as_millis() as u64;
    let busiest =
        arrivals.iter().map(|from| arrivals.iter().filter(|at| (*from..from + span).contains(at)).count());
    assert!(busiest.max().unwrap() <= 120);
}

#[tokio::test]
async fn no_collection_delete_reaches_the_store_and_deletes_by_id_do() {
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let client = client_of(&sandbox);
    for template in
        ["/v2/orders", "/v2/customers", "/v2/coupons", "/v3/catalog/products", "/v3/customers/subscribers"]
    {
        assert_eq!(client.send(request(Method::Delete, template)).await.answer, Answer::Invalid);
    }
    assert_eq!(sandbox.control().stats().calls, 0);
    let known: Vec<String> = sandbox.control().state("product").unwrap().into_keys().take(2).collect();
    let mut delete = request(Method::Delete, "/v3/catalog/products");
    delete.query = vec![("id:in".to_owned(), known.join(","))];
    assert_eq!(client.send(delete).await.answer, Answer::Done);
    let stats = sandbox.control().stats();
    assert_eq!((stats.writes, stats.forbidden_collection_deletes), (1, 0));
    assert_eq!(sandbox.control().state("product").unwrap().len(), 298);
}
