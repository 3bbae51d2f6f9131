//! Callbacks as BigCommerce shapes them: all are taken, byte for byte, whatever is in them.

use crate::receiver_support::*;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/callbacks")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Sends every body, signed; all must be answered 200 and delivered as they are.
async fn check(bodies: Vec<(String, Vec<u8>)>) {
    let rig = Rig::start().await;
    for (name, body) in &bodies {
        let callback = Callback::new().id(&name.replace('.', "-")).body(body.clone());
        assert_eq!(rig.status(&callback.bytes()).await, 200, "{name}");
        assert_eq!(rig.intake.deliveries().last().unwrap().body, body.as_slice(), "{name}");
    }
    assert_eq!(rig.intake.deliveries().len(), bodies.len());
    rig.end().await;
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_fixture_is_taken() {
    let bodies: Vec<_> =
        files(&fixtures()).iter().map(|path| (name_of(path), std::fs::read(path).unwrap())).collect();
    assert!(bodies.len() >= 10, "fixtures are missing");
    check(bodies).await;
}

#[tokio::test]
async fn every_sample_of_the_documentation_is_taken() {
    let dir = std::env::var_os("BCBRIDGE_CALLBACKS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/bigcommerce/callbacks"),
        PathBuf::from,
    );
    if !dir.is_dir() {
        eprintln!("SKIPPED: no samples at {}, set BCBRIDGE_CALLBACKS_DIR to their directory", dir.display());
        return;
    }
    let bodies: Vec<_> = files(&dir)
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .map(|path| {
            (name_of(path), std::fs::read_to_string(path).unwrap().replace("{store_hash}", "abc123").into())
        })
        .collect();
    assert!(!bodies.is_empty(), "no sample in {}", dir.display());
    check(bodies).await;
}

#[tokio::test]
async fn an_authentic_callback_is_never_refused_for_its_content() {
    let odd: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("not-utf8", vec![0xff, 0xfe, 0x00]),
        ("bom", [b"\xef\xbb\xbf".as_slice(), ORDER.as_bytes()].concat()),
        ("nul", b"\0".to_vec()),
        ("scalar", b"1e400".to_vec()),
        ("surrogate", br#"{"producer":"stores/abc123","data":"\ud800"}"#.to_vec()),
        ("deep", [vec![b'['; 30_000], vec![b']'; 30_000]].concat()),
        (
            "wide",
            format!("{{{}}}", (0..6000).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(",")).into(),
        ),
        ("twice", br#"{"producer":"stores/abc123","producer":"stores/abc123"}"#.to_vec()),
        ("producer-is-a-number", br#"{"producer":1}"#.to_vec()),
        ("producer-is-a-list", br#"{"producer":["stores/zzz"]}"#.to_vec()),
        ("null", br#"{"producer":null,"store_id":null}"#.to_vec()),
        ("cut", ORDER.as_bytes()[..ORDER.len() / 2].to_vec()),
    ];
    check(odd.into_iter().map(|(name, body)| (name.to_owned(), body)).collect()).await;
}
