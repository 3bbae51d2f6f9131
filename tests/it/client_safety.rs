//! Where the token goes, and which requests are never sent.

use std::sync::atomic::Ordering;

use bcbridge::bigcommerce::StoreClient;
use bcbridge::model::request::{Answer, ApiPath, Method, Purpose, Request};
use bcbridge::runtime::ports::Store;
use secrecy::SecretString;

use crate::client_lab::{Act, PRODUCT, TOKEN, json, raw, request, typed};

#[tokio::test]
async fn a_request_carries_the_token_the_path_and_the_body() {
    let store = raw(|_| Act::Write(json(200, "x-request-id: r-1\r\n", r#"{"data":{}}"#))).await;
    let mut post = request(Method::Post, "/v3/catalog/products");
    post.query = vec![("include".to_owned(), "variants,a b&c".to_owned())];
    let reply = store.client().send(post).await;
    assert_eq!((reply.answer, reply.status), (Answer::Done, 200));
    assert_eq!(reply.request_id.as_deref(), Some("r-1"));
    let seen = store.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.path, "/stores/abc123/v3/catalog/products?include=variants,a%20b%26c");
    assert_eq!(seen.body, r#"{"name":"x"}"#);
    let head = seen.head.to_lowercase();
    for line in [
        &format!("x-auth-token: {TOKEN}"),
        "accept: application/json",
        "content-type: application/json",
        "user-agent: bcbridge/",
        "accept-encoding: ",
    ] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_other_host_sees_nothing() {
    let sink = raw(|_| Act::Write(json(200, "", "{}"))).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}stores/abc123/v3/catalog/products/77\r\n", sink.base);
        let store = raw(move |_| Act::Write(typed(status, &location, ""))).await;
        for method in [Method::Get, Method::Post, Method::Put, Method::Delete] {
            let reply = store.client().send(request(method, PRODUCT)).await;
            assert_eq!(reply.answer, Answer::Invalid, "{status}");
            assert!(reply.detail.contains("redirects are not followed"), "{}", reply.detail);
        }
        assert_eq!(store.count(), 4);
    }
    assert_eq!(sink.count(), 0);
}

#[tokio::test]
async fn a_proxy_named_by_the_environment_sees_nothing() {
    let sink = raw(|_| Act::Write(json(200, "", "{}"))).await;
    // The environment of a running process cannot be changed safely, so another one runs the plain test.
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "client_safety::a_request_carries_the_token_the_path_and_the_body"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, sink.base.as_str());
    }
    for name in ["NO_PROXY", "no_proxy"] {
        child.env_remove(name);
    }
    let output = child.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(sink.count(), 0);
}

#[tokio::test]
async fn deletes_of_whole_collections_never_leave_the_process() {
    let store = raw(|_| Act::Write(json(200, "", "{}"))).await;
    let client = store.client();
    let v2 = [
        "orders",
        "customers",
        "customers/{id}/addresses",
        "orders/{id}/shipments",
        "coupons",
        "banners",
        "gift_certificates",
        "redirects",
        "currencies",
        "blog/posts",
    ];
    let v3 = [
        "pricelists",
        "pricelists/{id}/records",
        "pricelists/assignments",
        "catalog/categories",
        "catalog/trees",
        "catalog/trees/categories",
        "catalog/products",
        "catalog/products/channel-assignments",
        "catalog/products/category-assignments",
        "storefront/custom-template-associations",
        "customers/subscribers",
        "customers/metafields",
        "segments",
        "segments/{id}/shopper-profiles",
        "shopper-profiles",
        "tax/customers",
        "tax/zones",
        "tax/rates",
    ];
    let templates = v2.iter().map(|t| format!("/v2/{t}")).chain(v3.iter().map(|t| format!("/v3/{t}")));
    let mut tried = 0;
    for template in templates {
        for query in [None, Some(""), Some(" "), Some("/"), Some(","), Some("0")] {
            let mut delete = request(Method::Delete, &template);
            delete.query = query.map(|ids| ("id:in".to_owned(), ids.to_owned())).into_iter().collect();
            let reply = client.send(delete).await;
            assert_eq!((reply.answer, reply.status), (Answer::Invalid, 0), "{template}");
            assert!(!reply.detail.is_empty());
        }
        tried += 1;
    }
    assert_eq!((tried, store.count()), (28, 0));
}

#[tokio::test]
async fn a_path_that_leads_elsewhere_never_leaves_the_process() {
    let store = raw(|_| Act::Write(json(200, "", "{}"))).await;
    let client = store.client();
    for template in
        ["/v3/../../other/v3/x", "/v3//x", "/v3/x/", "/v3/%2e%2e/x", "/v3/x?id=1", "/v3/x#y", "/v3/a\\b"]
    {
        let path = ApiPath::render(template, |_| Some("1")).unwrap();
        let request =
            Request { method: Method::Get, path, query: vec![], body: None, purpose: Purpose::Live };
        assert_eq!(client.send(request).await.answer, Answer::Invalid, "{template}");
    }
    assert_eq!(store.count(), 0);
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_busy_and_nothing_was_applied() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let store = raw(|_| Act::Hang).await;
    let mut config = store.config();
    config.base_uri = format!("http://{gone}").parse().unwrap();
    let reply = StoreClient::new(config).unwrap().send(request(Method::Post, "/v2/orders")).await;
    assert!(matches!(reply.answer, Answer::Busy { .. }), "{reply:?}");
    assert_eq!(reply.status, 0);
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_over_https() {
    let store = raw(|_| Act::Hang).await;
    let mut config = store.config();
    config.base_uri = store.base.as_str().replace("http://", "https://").parse().unwrap();
    config.timeouts.connect = std::time::Duration::from_millis(500);
    let reply = StoreClient::new(config).unwrap().send(request(Method::Post, "/v2/orders")).await;
    assert!(matches!(reply.answer, Answer::Busy { .. }), "{reply:?}");
    assert_eq!(store.count(), 0);
}

#[tokio::test]
async fn neither_client_nor_replies_nor_errors_print_the_token() {
    let store = raw(|_| Act::Write(b"garbage".to_vec())).await;
    let client = store.client();
    let reply = client.send(request(Method::Get, PRODUCT)).await;
    assert!(!format!("{client:?} {reply:?}").contains(TOKEN));
    let mut config = store.config();
    config.access_token = SecretString::from("bad\ntoken-canary");
    let error = StoreClient::new(config).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
    assert_eq!(store.most_open.load(Ordering::SeqCst), 1);
}

#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_most_talkative_log_holds_neither_the_token_nor_a_body() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = raw(|_| Act::Write(json(200, "", r#"{"email":"jo@example.com"}"#))).await;
    let reply = store.client().send(request(Method::Post, "/v3/customers")).await;
    assert_eq!(reply.answer, Answer::Done);
    tracing::trace!("the log works");
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("the log works"));
    assert!(!text.contains(TOKEN) && !text.contains("jo@example.com"), "{text}");
}
