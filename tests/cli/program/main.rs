//! `tipserve` itself: the server and its clients in one binary.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::{Command, Output};

fn tipserve(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tipserve"))
        .args(args)
        .env_remove("TIPSERVE_SERVER")
        .env_remove("TIPSERVE_BUNDLE")
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

fn help(args: &[&str]) -> String {
    let output = tipserve(&[args, &["--help"]].concat());
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The pages of what `tipserve-client` does not have; its own are tested there.
#[test]
fn every_help_page_of_the_program() {
    insta::assert_snapshot!("help", help(&[]));
    insta::assert_snapshot!("help-serve", help(&["serve"]));
    insta::assert_snapshot!("help-bench", help(&["bench"]));
}

#[test]
fn the_server_neither_shows_nor_takes_the_clients_flags() {
    let page = help(&["serve"]);
    for flag in [
        "--server ",
        "--token ",
        "--token-file",
        "--ca ",
        "--json",
        "--timeout ",
    ] {
        assert!(!page.contains(flag), "{flag}: {page}");
    }
    for args in [
        &["--server", "x", "serve", "--bundle", "b"][..],
        &["serve", "--bundle", "b", "--token", "t"],
        &["serve", "--bundle", "b", "--json"],
    ] {
        let output = tipserve(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("commands that call a server"), "{stderr}");
    }
    // And its clients do not show the server's.
    for command in ["classify", "bench", "info"] {
        let page = help(&[command]);
        assert!(
            page.contains("--server ") && page.contains("--timeout "),
            "{page}"
        );
        for flag in ["--bundle", "--listen", "--tls-cert", "--tokens"] {
            assert!(!page.contains(flag), "{command} {flag}: {page}");
        }
    }
}

#[test]
fn the_program_has_every_command_of_the_client() {
    let page = help(&[]);
    for command in [
        "serve",
        "create",
        "add",
        "classify",
        "evaluate",
        "finetune",
        "finetunes",
        "caches",
        "embed",
        "info",
        "demo",
        "token",
        "bench",
        "completions",
    ] {
        assert!(
            page.contains(&format!("\n  {command} ")),
            "{command}: {page}"
        );
    }
}

#[test]
fn blank_variables_are_no_settings_of_the_server() {
    let mut run = Command::new(env!("CARGO_BIN_EXE_tipserve"));
    for name in [
        "TIPSERVE_MAX_BATCH",
        "TIPSERVE_LISTEN",
        "TIPSERVE_TLS_CERT",
        "TIPSERVE_BUNDLE",
    ] {
        run.env(name, "");
    }
    let output = run.arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    // What is missing is the bundle, not a number in a blank variable.
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("--bundle") && !stderr.contains("TIPSERVE_MAX_BATCH"),
        "{stderr}"
    );
}
