//! Webhook subscriptions against the sandbox.

use bcbridge::bigcommerce::hooks;
use bcbridge::bigcommerce::hooks_plan::{Action, Owner, Wanted};
use bcbridge::sandbox::{Sandbox, SandboxConfig};
use secrecy::SecretString;
use url::Url;

use crate::client_sandbox::client_of;

const OWNER: Owner<'static> = Owner { prefix: "shop", store: "main" };

#[tokio::test]
async fn subscriptions_are_made_once_and_found_again() {
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let client = client_of(&sandbox);
    let public = Url::parse("https://bridge.example.com").unwrap();
    let scopes = ["store/order/*", "store/product/*", "store/customer/created"].map(str::to_owned);
    let headers = [("x-bridge-key".to_owned(), vec![SecretString::from("k")])];
    let wanted = Wanted::new(OWNER, &public, scopes, headers);

    let plan = hooks::plan(&client, &wanted).await.unwrap();
    assert!(plan.items.iter().all(|item| item.action == Action::Create));
    let applied = hooks::apply(&client, &wanted, plan).await;
    assert!(applied.iter().all(|one| matches!(one.result, Ok(Some(_)))), "{applied:?}");

    let plan = hooks::plan(&client, &wanted).await.unwrap();
    assert!(plan.items.iter().all(|item| matches!(item.action, Action::Keep { .. })), "{plan:?}");
    let writes = sandbox.control().stats().writes;
    hooks::apply(&client, &wanted, plan).await;
    assert_eq!(sandbox.control().stats().writes, writes);

    let status = hooks::status(&client).await.unwrap();
    assert_eq!(status.hooks.len(), 3);
    assert!(status.hooks.iter().all(|hook| hook.is_active));

    // Another place: the marker tells that the hooks are ours, so they move instead of doubling.
    let moved = Url::parse("https://new.example.com").unwrap();
    let headers = [("x-bridge-key".to_owned(), ["rotated", "k"].map(SecretString::from).to_vec())];
    let wanted = Wanted::new(OWNER, &moved, wanted.scopes().map(str::to_owned).collect::<Vec<_>>(), headers);
    let plan = hooks::plan(&client, &wanted).await.unwrap();
    assert!(plan.items.iter().all(|item| matches!(item.action, Action::Update { .. })), "{plan:?}");
    hooks::apply(&client, &wanted, plan).await;
    assert!(!hooks::plan(&client, &wanted).await.unwrap().has_changes());
    assert_eq!(hooks::list(&client).await.unwrap().len(), 3);

    // No scope is wanted any more: nothing changes by itself, and pruning deletes what is ours.
    let none = Wanted::new(OWNER, &moved, [], []);
    let plan = hooks::plan(&client, &none).await.unwrap();
    assert!(!plan.has_changes());
    assert_eq!(hooks::prune(&client, plan).await.len(), 3);
    assert!(hooks::list(&client).await.unwrap().is_empty());
}
