//! How errors read, and exit codes.

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

#[test]
fn a_status_is_told_with_its_details() {
    let fake = Fake::start();
    let folder = Folder::new(&["a"], &[1]);
    let args = ["create", "a/b", "--from", folder.str()];
    let ran = tipserve(&fake, &args).expect(1);
    for text in [
        "\"a/b\" is no cache id",
        "reason: CACHE_ID_INVALID",
        "field spec.cache_id: must be of a-z",
        "try again in 1.5 s",
        "value: a/b",
    ] {
        assert!(ran.stderr.contains(text), "{text}: {ran:?}");
    }
    assert_eq!(ran.stdout, "");
    let ran = tipserve(&fake, &[&args[..], &["--json"]].concat()).expect(1);
    let error = &ran.json()["error"];
    assert_eq!(error["code"], "INVALID_ARGUMENT");
    assert_eq!(error["exit_code"], 1);
    assert_eq!(error["reason"], "CACHE_ID_INVALID");
    assert_eq!(error["metadata"]["value"], "a/b");
    assert_eq!(error["field_violations"][0]["field"], "spec.cache_id");
    assert_eq!(error["retry_after_seconds"], 1.5);
}

#[test]
fn a_cache_that_is_not_there() {
    let fake = Fake::start();
    let ran = tipserve(&fake, &["caches", "show", "nope", "--json"]).expect(3);
    assert_eq!(ran.json()["error"]["metadata"]["cache"], "nope");
    assert!(ran.stderr.contains("there is no cache \"nope\""), "{ran:?}");
}

#[test]
fn a_server_that_is_not_there() {
    let fake = Fake::start();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    for args in [
        vec!["info"],
        vec!["caches", "list"],
        vec!["classify", "c", "x.jpg"],
        vec!["embed", "--text", "x"],
        vec!["finetune", "c"],
    ] {
        let args = [&["--server", &address][..], &args].concat();
        let ran = tipserve(&fake, &args).expect(5);
        assert!(ran.stderr.contains(&format!("http://{address}")), "{ran:?}");
        assert!(
            ran.stderr.contains(&format!(
                "tipserve serve --bundle DIR --store DIR --listen {address}"
            )),
            "{ran:?}"
        );
    }
    let ran = tipserve(&fake, &["info", "--json", "--server", &address]).expect(5);
    assert_eq!(ran.json()["error"]["code"], "UNREACHABLE");
}

#[test]
fn a_command_line_that_is_wrong() {
    let fake = Fake::start();
    for args in [
        &["nonsense"][..],
        &["create", "c"],
        &["create", "c", "--from", "x", "--alpha", "-1"],
        &["create", "c", "--from", "x", "--template", "no braces"],
        &["classify", "c", "x", "--top-k", "0"],
        &["info", "--server", "ftp://x"],
        &["info", "--server", "http://x:1", "--ca", "ca.pem"],
        &["info", "--server", "https://x:1", "--ca", "no-such.pem"],
        &["token", "new", "--name", "a b", "--role", "admin"],
        &["token", "new", "--name", "a", "--role", "king"],
    ] {
        let ran = tipserve(&fake, args).expect(2);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn completions_and_help() {
    let fake = Fake::start();
    for shell in ["bash", "zsh", "fish"] {
        let ran = tipserve(&fake, &["completions", shell]).expect(0);
        assert!(
            ran.stdout.contains("finetune") && ran.stdout.contains("tipserve"),
            "{shell}"
        );
    }
    let ran = tipserve(&fake, &["--help"]).expect(0);
    assert!(ran.stdout.contains("Exit codes:"), "{ran:?}");
}
