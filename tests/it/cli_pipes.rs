//! Commands whose reader goes away: they end quietly.

use std::io::pipe;
use std::process::{Command, Output, Stdio};

/// The command with a standard output, and where asked a standard error, that nobody reads.
fn unread(args: &[&str], errors_too: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcbridge"));
    let nobody = || {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    command.args(args).stdin(Stdio::null()).stdout(nobody()).stderr(Stdio::piped()).env_remove("RUST_LOG");
    if errors_too {
        command.stderr(nobody());
    }
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_result_that_nobody_reads_is_no_failure() {
    let calls: [&[&str]; 4] = [
        &["catalog", "entities"],
        &["catalog", "scopes"],
        &["completion", "bash"],
        &["demo", "--for", "30s"],
    ];
    for args in calls {
        let output = unread(args, false);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{args:?}: {} {errors}", output.status);
    }
}

#[test]
fn mistakes_that_nobody_reads_keep_their_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bcbridge.yaml");
    std::fs::write(&file, "stores: []").unwrap();
    for command in ["validate", "run"] {
        let output = unread(&[command, "--config", file.to_str().unwrap()], true);
        assert_eq!(output.status.code(), Some(64), "{command}");
    }
}
