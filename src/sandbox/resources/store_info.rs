//! `/v2/time` and `/v2/store`.

use serde_json::json;

use super::{Answer, Call};
use crate::sandbox::clock;
use crate::sandbox::events::CHANNEL;
use crate::sandbox::reply::Reply;

pub(crate) fn time(_: &mut Call<'_>) -> Answer {
    Ok(Reply::bare(200, json!({"time": clock::unix_s()})))
}

pub(crate) fn store(call: &mut Call<'_>) -> Answer {
    let formats = json!({"display": "M jS Y", "export": "M jS Y", "extended_display": "M jS Y @ g:i A"});
    let features = json!({"stencil_enabled": true, "sitewidehttps_enabled": false, "facebook_catalog_id": "",
        "checkout_type": "optimized", "wishlists_enabled": true, "graphql_storefront_api_enabled": true,
        "shopper_consent_tracking_enabled": false, "multi_storefront_enabled": false,
        "storefront_limits": {"active": 1, "total_including_inactive": 1}});
    let hash = &call.state.store_hash;
    let mut body = json!({"id": hash, "account_uuid": "11111111-2222-4333-8444-555555555555", "domain": "sandbox.example.com",
        "secure_url": "https://sandbox.example.com", "control_panel_base_url": "https://store.example.com",
        "status": "live", "name": "Sandbox", "first_name": "Ada", "last_name": "Example",
        "address": "1 Example Street", "country": "United States", "country_code": "US",
        "infrastructure_region": "sandbox", "phone": "", "admin_email": "admin@example.com",
        "order_email": "orders@example.com", "favicon_url": ""});
    let more = json!({"timezone": {"name": "Etc/UTC", "raw_offset": 0, "dst_offset": 0, "dst_correction": false,
        "date_format": formats}, "language": "en", "currency": "USD", "currency_symbol": "$", "decimal_separator": ".",
        "thousands_separator": ",", "decimal_places": 2, "currency_symbol_location": "left", "weight_units": "KGS",
        "dimension_units": "Centimeters", "dimension_decimal_places": 2, "dimension_decimal_token": ".",
        "dimension_thousands_token": ",", "plan_name": "Sandbox", "plan_level": "Standard", "plan_is_trial": false,
        "industry": "", "logo": {"url": ""}, "is_price_entered_with_tax": false, "store_id": 1_025_646,
        "default_channel_id": CHANNEL, "default_site_id": 1, "active_comparison_modules": [], "features": features});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    Ok(Reply::bare(200, body))
}
