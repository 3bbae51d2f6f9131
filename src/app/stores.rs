//! The clients of the stores, what each should be subscribed to, and what proves that a callback is its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use url::Url;

use super::load::Load;
use crate::bigcommerce::hooks_plan::{Owner, Wanted};
use crate::bigcommerce::{ClientConfig, StoreClient};
use crate::catalog::caps::Cap;
use crate::config::{Settings, SignaturePolicy, StoreSettings};
use crate::engine::budget::BudgetConfig;
use crate::receiver::{self, StoreAuth};
use crate::telemetry::Metrics;

/// The client of one store.
///
/// # Errors
/// The store's address or token cannot be used.
pub fn client(store: &StoreSettings, caps: &[Cap], metrics: Option<&Metrics>) -> Result<StoreClient> {
    let mut config =
        ClientConfig::new(store.store_hash.clone(), store.access_token.clone(), store.base_uri.clone());
    config.budget = BudgetConfig { reserve: store.budget.reserve, ..BudgetConfig::default() };
    config.caps = caps.to_vec();
    if let Some(metrics) = metrics {
        let (metrics, name) = (metrics.clone(), store.name.clone());
        config.on_reply = Some(Arc::new(move |seen| {
            metrics.api_request(&name, seen.class);
            metrics.api_wait(&name, seen.purpose.name(), seen.waited);
            if let Some(left) = seen.left {
                metrics.api_quota(&name, left.into(), seen.quota.into());
            }
        }));
    }
    StoreClient::new(config).with_context(|| format!("the client of store {:?}", store.name))
}

/// The clients of all stores, by name.
///
/// # Errors
/// See [`client`].
pub fn clients(load: &Load, metrics: Option<&Metrics>) -> Result<BTreeMap<String, Arc<StoreClient>>> {
    let of = |store: &StoreSettings| {
        Ok((store.name.clone(), Arc::new(client(store, load.catalog.caps(), metrics)?)))
    };
    load.settings.stores.iter().map(of).collect()
}

/// What a store should be subscribed to: every scope of every entity that is configured for it.
pub fn wanted(settings: &Settings, store: &StoreSettings, public_url: &Url) -> Wanted {
    let scopes = settings.incoming_of(&store.name).flat_map(|entry| entry.scopes.iter().cloned());
    let headers = store.webhook_headers.iter().map(|(name, values)| (name.clone(), values.clone()));
    let owner = Owner { prefix: &settings.kafka.prefix, store: &store.name };
    Wanted::new(owner, public_url, scopes, headers)
}

/// What proves that a callback is the store's own.
///
/// # Errors
/// A name of a webhook header that is none; the settings were checked for that.
pub fn auth(store: &StoreSettings) -> Result<StoreAuth> {
    let headers = store.webhook_headers.iter().map(|(name, values)| {
        let name = name.parse().with_context(|| format!("the name {name:?} in webhook_headers"))?;
        Ok((name, values.clone()))
    });
    Ok(StoreAuth {
        name: store.name.as_str().into(),
        store_hash: store.store_hash.clone(),
        store_id: None,
        secrets: store.client_secrets.clone(),
        policy: match store.signature {
            SignaturePolicy::Required => receiver::SignaturePolicy::Required,
            SignaturePolicy::IfPresent => receiver::SignaturePolicy::IfPresent,
            SignaturePolicy::Off => receiver::SignaturePolicy::Off,
        },
        headers: headers.collect::<Result<_>>()?,
        earlier_headers: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use crate::model::request::Purpose;
    use crate::telemetry::names::PURPOSES;

    #[test]
    fn every_purpose_of_a_request_has_its_label() {
        assert_eq!(Purpose::ALL.map(Purpose::name), PURPOSES);
    }
}
