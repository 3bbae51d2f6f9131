//! The shape of the tree, checked: who may know whom, how large a file may be, and what nobody may write.
//!
//! It reads the sources as text (comments, strings and test modules are taken out first), so it needs no compiler and
//! names file, line, rule and reason. A rule that is right in general and wrong in one place gets an exception *here*,
//! with its reason. The checker is itself checked, on made-up sources, in `checker`.

use std::fs;
use std::path::Path;

use source::{betrayals, code_of, files, known, names, sentences};

#[path = "architecture/checker.rs"]
mod checker;
#[path = "architecture/source.rs"]
mod source;

/// Modules that decide and never do: no runtime, no network, no clock, no randomness, no environment.
const PURE: [&str; 4] = ["model", "catalog", "engine", "transform"];
/// Files outside of those modules that are pure as well, where they exist.
const PURE_FILES: [&str; 15] = [
    "receiver/verify",
    "incoming/decode",
    "incoming/coalesce",
    "incoming/echo",
    "incoming/plan",
    "outgoing/batch",
    "outgoing/decode",
    "outgoing/transform",
    "outgoing/plan",
    "scheduler/cursor",
    "scheduler/scan",
    "scheduler/schedule",
    "scheduler/seen",
    "scheduler/state",
    "scheduler/hints",
];
/// What a pure file may not name, and what it should do instead.
const IMPURE: [(&str, &str); 14] = [
    ("tokio", "the shell around it lives in runtime"),
    ("rdkafka", "only kafka speaks to the broker"),
    ("axum", "only receiver, console and sandbox answer HTTP"),
    ("hyper", "only receiver, console and sandbox answer HTTP"),
    ("reqwest", "only bigcommerce sends HTTP"),
    ("rand", "a random draw is an argument"),
    ("tracing", "the shell logs what a pure function returns"),
    ("SystemTime", "the time is an argument"),
    ("Instant::now", "the time is an argument"),
    ("Timestamp::now", "the time is an argument"),
    ("Zoned::now", "the time is an argument"),
    ("std::env", "settings are arguments"),
    ("std::fs", "bytes are arguments"),
    ("std::net::Tcp", "the network is the shell's"),
];

/// Libraries with an owner: (what may not be named, where it may, why).
const OWNED: [(&str, &[&str], &str); 5] = [
    ("rdkafka", &["kafka"], "everybody else goes through the ports of kafka, so that tests can bring a fake"),
    (
        "reqwest",
        &["bigcommerce", "sandbox/deliver", "sandbox/mod"],
        "one client: no redirects, no proxies, one budget",
    ),
    ("axum", &["receiver", "console", "sandbox"], "HTTP statuses exist at the edges only"),
    ("hyper", &["receiver", "console", "sandbox"], "HTTP statuses exist at the edges only"),
    ("noida", &["embedded"], "the built-in broker stays behind one function"),
];

/// Which modules a module may not name, and why. Modules that stand further out may name those further in.
const STRANGERS: [(&str, &[&str], &str); 17] = [
    ("model", &["*"], "the nouns stand innermost and know nobody"),
    ("catalog", &["*", "!model"], "rows are described with the nouns alone"),
    ("engine", &["*", "!model"], "the machines know the nouns alone"),
    ("transform", &["*", "!model"], "a mapping sees the record and nothing else"),
    ("telemetry", &["*"], "everybody reports to it, so it can know nobody"),
    (
        "runtime",
        &["*", "!model", "!engine", "!telemetry"],
        "the shell knows the machines it runs and nobody above",
    ),
    (
        "incoming",
        &["outgoing", "kafka", "bigcommerce", "receiver", "console", "sandbox", "embedded", "app", "cli"],
        "one path never knows the other, nor the edges: it sees them through the ports of runtime",
    ),
    (
        "scheduler",
        &["outgoing", "kafka", "bigcommerce", "receiver", "console", "sandbox", "embedded", "app", "cli"],
        "it makes hints for the incoming path, and sees the edges through ports",
    ),
    (
        "outgoing",
        &["incoming", "kafka", "bigcommerce", "receiver", "console", "sandbox", "embedded", "app", "cli"],
        "one path never knows the other, nor the edges: it sees them through the ports of runtime",
    ),
    (
        "receiver",
        &["console", "kafka", "bigcommerce", "sandbox", "embedded", "outgoing", "app", "cli"],
        "an edge knows no other edge",
    ),
    (
        "console",
        &["receiver", "kafka", "bigcommerce", "sandbox", "embedded", "incoming", "outgoing", "app", "cli"],
        "it is told what to show and asks nobody",
    ),
    (
        "kafka",
        &["receiver", "console", "bigcommerce", "sandbox", "embedded", "app", "cli"],
        "an edge knows no other edge",
    ),
    (
        "bigcommerce",
        &["receiver", "console", "kafka", "sandbox", "embedded", "app", "cli"],
        "an edge knows no other edge; the sandbox is a second reading of the API",
    ),
    (
        "sandbox",
        &[
            "bigcommerce",
            "catalog",
            "model",
            "incoming",
            "outgoing",
            "receiver",
            "console",
            "kafka",
            "engine",
            "app",
            "cli",
        ],
        "a second reading of the API's documentation, that agrees on the wire and not by shared types",
    ),
    (
        "embedded",
        &["receiver", "console", "bigcommerce", "sandbox", "incoming", "outgoing", "app", "cli"],
        "a broker knows Kafka's wire, and of ours only what the client must know of it",
    ),
    (
        "config",
        &[
            "receiver",
            "console",
            "kafka",
            "bigcommerce",
            "sandbox",
            "embedded",
            "incoming",
            "outgoing",
            "app",
            "cli",
        ],
        "settings are checked before anything is built",
    ),
    ("app", &["cli"], "the command line starts the app, not the other way round"),
];

/// What nobody writes outside of the named places: (text, where it may stand, why).
const BANNED: [(&str, &[&str], &str); 6] = [
    ("unbounded_channel", &[], "every queue has a bound: use mpsc::channel"),
    ("mpsc::unbounded", &[], "every queue has a bound: use mpsc::channel"),
    ("tokio::spawn(", &["runtime/task"], "tasks have names and an owner: use runtime::spawn"),
    ("task::spawn(", &["runtime"], "tasks have names and an owner: use runtime::spawn"),
    ("danger_accept_invalid", &[], "TLS is checked, always"),
    ("process::exit(", &["main", "cli"], "exiting skips the drain: return an error"),
];

/// Files that may exceed [`LINES`], each with its reason.
const LONG: [(&str, &str); 0] = [];
/// The most lines of a source file, tests included: what one head can hold.
const LINES: usize = 500;

#[test]
fn the_tree_keeps_its_shape() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for top in ["src", "tests", "benches"] {
        for path in files(&root.join(top)) {
            let name = path.strip_prefix(root).expect("it was found below the root").display().to_string();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            faults.extend(check(&name, &text));
        }
    }
    assert!(faults.is_empty(), "\n{} faults of shape:\n{}\n", faults.len(), faults.join("\n"));
}

#[test]
fn the_project_names_no_machine_and_no_registry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tops = ["src", "tests", "benches", "docs", "deploy", "schemas", "scripts", ".ci", ".cargo"];
    let loose =
        ["Cargo.toml", "README.md", "CONTRIBUTING.md", "Dockerfile", "docker-compose.yml", "clippy.toml"];
    let all =
        tops.iter().flat_map(|top| files(&root.join(top))).chain(loose.iter().map(|name| root.join(name)));
    let mut faults = Vec::new();
    for path in all {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(root).expect("it was found below the root").display().to_string();
        faults.extend(betrayed(&name, &text));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// All faults of one file, each as `file:line: rule (why)`.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut faults = size(name, text);
    let Some(place) = name.strip_prefix("src/").and_then(|name| name.strip_suffix(".rs")) else {
        return faults;
    };
    if place.ends_with("/mod") && sentences(text) < 2 {
        faults.push(format!(
            "{name}:1: a module opens with what it is for and how it fails, in two sentences at least"
        ));
    }
    if place.ends_with("/tests") || place.ends_with("/testing") || place.contains("/tests/") {
        // Test modules in files of their own are as free as those at the end of a file.
        return faults;
    }
    let module = place.split('/').next().unwrap_or(place);
    for (index, line) in code_of(text).lines().enumerate() {
        let mut fault = |rule: &str, why: &str| faults.push(format!("{name}:{}: {rule} ({why})", index + 1));
        if PURE.contains(&module) || PURE_FILES.iter().any(|file| is_at(place, file)) {
            for (what, why) in IMPURE.iter().filter(|(what, _)| names(line, what)) {
                fault(&format!("a pure file names {what}"), why);
            }
        }
        for (what, owners, why) in OWNED.iter().filter(|(what, ..)| names(line, what)) {
            if !owners.iter().any(|owner| is_at(place, owner)) {
                fault(&format!("{module} names {what}, which belongs to {}", owners.join(", ")), why);
            }
        }
        for (what, places, why) in BANNED.iter().filter(|(what, ..)| names(line, what)) {
            if !places.iter().any(|allowed| is_at(place, allowed)) {
                fault(&format!("`{what}` is banned"), why);
            }
        }
        for (_, strangers, why) in STRANGERS.iter().filter(|(of, ..)| *of == module) {
            for other in
                known(line).into_iter().filter(|other| other != module && is_stranger(strangers, other))
            {
                fault(&format!("{module} names {other}"), why);
            }
        }
    }
    faults
}

fn size(name: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let long = name.ends_with(".rs") && lines > LINES && !LONG.iter().any(|(file, _)| *file == name);
    if long {
        vec![format!("{name}:{lines}: {lines} lines, at most {LINES} (one idea per file: split it)")]
    } else {
        vec![]
    }
}

fn betrayed(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in betrayals().iter().filter(|word| line.contains(*word)) {
            faults.push(format!(
                "{name}:{}: names `{word}` (the project must build on any machine)",
                index + 1
            ));
        }
    }
    faults
}

/// Whether `*` or the name itself is in the list and `!name` is not.
fn is_stranger(list: &[&str], other: &str) -> bool {
    let excepted = list.iter().any(|item| item.strip_prefix('!') == Some(other));
    !excepted && list.iter().any(|item| *item == "*" || *item == other)
}

/// Whether `place` is `prefix` or below it.
fn is_at(place: &str, prefix: &str) -> bool {
    place.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
