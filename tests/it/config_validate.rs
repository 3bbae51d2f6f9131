//! `bcbridge validate`: exit codes, what is printed where, and that JSON is JSON.

use bcbridge::cli::validate::{Args, EXIT_BAD_CONFIG, EXIT_OK, EXIT_ONLINE, Surroundings, run};
use bcbridge::config::{MistakeRow, Settings};
use serde_json::Value;

use crate::config_load::{Names, env};

fn validate(text: &str, json: bool, online: &dyn Fn(&Settings) -> Vec<MistakeRow>) -> (u8, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bcbridge.yaml");
    std::fs::write(&file, text).unwrap();
    let args = Args { config: Some(file), online: true };
    let around = Surroundings { env: &env, names: &Names, online, json };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&args, &around, &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

const GOOD: &str = include_str!("../fixtures/config/complete.yaml");
const BAD: &str = include_str!("../fixtures/config/mistakes.yaml");

#[test]
fn good_settings_are_summed_up_with_their_warnings() {
    let (code, out, err) = validate(GOOD, false, &|_| Vec::new());
    assert_eq!(code, EXIT_OK, "{err}");
    assert!(out.contains("are valid") && out.contains("stores    main"), "{out}");
    assert!(!err.contains("not active in this release"), "{err}");
    let (code, out, _) = validate(GOOD, true, &|_| Vec::new());
    assert_eq!((code, out.as_str()), (EXIT_OK, "[]\n"));
}

#[test]
fn a_property_that_librdkafka_refuses_is_a_mistake_and_its_value_is_not_told() {
    for property in ["bogus.prop: canary", "linger.ms: canary", "isolation.level: read_uncommitted"] {
        let text = GOOD.replace("properties: {}", &format!("properties: {{ {property} }}"));
        assert_ne!(text, GOOD);
        let (code, out, err) = validate(&text, false, &|_| panic!("asked although the settings are wrong"));
        let name = property.split(':').next().unwrap();
        assert!(code == EXIT_BAD_CONFIG && err.contains(name), "{property}: {code} {err}");
        assert!(!err.contains("canary") && out.is_empty(), "{err}");
    }
}

#[test]
fn bad_settings_end_with_64_and_every_mistake() {
    let (code, out, err) = validate(BAD, false, &|_| panic!("asked although the settings are wrong"));
    assert_eq!((code, out.as_str()), (EXIT_BAD_CONFIG, ""));
    assert!(err.contains("mistakes") && err.contains("did you mean `prefix`?"));
    let (code, out, _) = validate(BAD, true, &|_| Vec::new());
    assert_eq!(code, EXIT_BAD_CONFIG);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert!(rows.len() >= 16);
    for key in ["file", "line", "column", "message", "allowed", "help"] {
        assert!(rows.iter().all(|row| row.get(key).is_some()), "{key}");
    }
    assert!(!out.contains("canary") && !err.contains("canary"));
}

#[test]
fn what_the_outside_says_is_told_with_its_own_exit_code() {
    let finding = |_: &Settings| {
        vec![MistakeRow {
            file: String::new(),
            line: 0,
            column: 0,
            message: "token of store main lacks store_v2_orders".to_owned(),
            allowed: String::new(),
            help: "add the scope".to_owned(),
        }]
    };
    let (code, _, err) = validate(GOOD, false, &finding);
    assert_eq!(code, EXIT_ONLINE);
    assert!(
        err.contains("error: token of store main lacks store_v2_orders")
            && err.contains("help: add the scope")
    );
}
