//! What `tipserve caches` does with versions and aliases, and on what condition.

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

/// A fake server whose cache "one" has `count` versions.
fn with_versions(count: usize) -> Fake {
    let fake = Fake::start();
    for _ in 0..count {
        fake.add_cache("one", &["cat", "dog"]);
    }
    fake
}

fn etag(fake: &Fake) -> String {
    let shown = tipserve(fake, &["caches", "show", "one", "--json"]).expect(0);
    shown.json()["etag"].as_str().unwrap().to_owned()
}

#[test]
fn filters_reach_the_server() {
    let fake = with_versions(1);
    let filter = "labels.team = \"weaving\" AND class_count > 2";
    tipserve(&fake, &["caches", "list", "--filter", filter]).expect(0);
    let out = tipserve(
        &fake,
        &[
            "caches",
            "examples",
            "one@1",
            "--filter",
            "validation = true",
            "--json",
        ],
    )
    .expect(0)
    .json();
    // Of both pages.
    assert_eq!(
        out["examples"],
        serde_json::json!([
            {"example_id": "x/0.jpg", "class_index": 0, "display_name": "cat", "validation": false, "unknown": false},
            {"example_id": "x/1.jpg", "class_index": 1, "display_name": "dog", "validation": false, "unknown": false},
            {"example_id": "x/2.jpg", "class_index": 0, "display_name": "cat", "validation": true, "unknown": false},
        ])
    );
    assert_eq!(
        fake.state().filters,
        [filter, "validation = true", "validation = true"]
    );
    let ran = tipserve(&fake, &["caches", "examples", "one"]).expect(0);
    assert!(
        ran.stdout.contains("x/0.jpg") && ran.stdout.contains("x/2.jpg"),
        "{ran:?}"
    );
    tipserve(&fake, &["caches", "examples", "nope"]).expect(3);
}

#[test]
fn a_change_on_a_condition_that_does_not_hold_is_none() {
    let fake = with_versions(3);
    tipserve(&fake, &["caches", "alias", "one", "stable", "1"]).expect(0);
    let old = etag(&fake);
    tipserve(&fake, &["caches", "alias", "one", "stable", "2"]).expect(0);
    let folder = Folder::new(&["a"], &[1]);
    for args in [
        &["caches", "alias", "one", "stable", "3"][..],
        &["caches", "unalias", "one", "stable"],
        &["caches", "rollback", "one", "stable"],
        &["caches", "delete", "one", "--yes"],
        &["caches", "delete", "one@3", "--yes"],
        &["caches", "prune", "one", "--keep", "1"],
        &["create", "one", "--from", folder.str()],
        &["add", "one", "--from", folder.str()],
    ] {
        let args = [args, &["--if-etag", &old, "--json"]].concat();
        let ran = tipserve(&fake, &args).expect(6);
        assert_eq!(ran.json()["error"]["reason"], "ETAG_MISMATCH", "{args:?}");
        assert_eq!(ran.json()["error"]["code"], "ABORTED", "{args:?}");
    }
    assert_eq!(fake.state().caches["one"].len(), 3);
    assert_eq!(fake.state().aliases["one"]["stable"], 2);
    let now = etag(&fake);
    tipserve(
        &fake,
        &["caches", "unalias", "one", "stable", "--if-etag", &now],
    )
    .expect(0);
    let args = ["create", "one", "--from", folder.str(), "--if-etag", "new"];
    tipserve(&fake, &args).expect(6);
    let args = ["create", "two", "--from", folder.str(), "--if-etag", "new"];
    tipserve(&fake, &args).expect(0);
}

#[test]
fn rolling_back_goes_to_the_version_before() {
    let fake = with_versions(4);
    tipserve(&fake, &["caches", "delete", "one@3", "--yes"]).expect(0);
    tipserve(&fake, &["caches", "alias", "one", "stable", "4"]).expect(0);
    let ran = tipserve(&fake, &["caches", "rollback", "one", "stable"]).expect(0);
    assert_eq!(ran.stdout, "one@stable: 4 → 2\n");
    let out = tipserve(&fake, &["caches", "rollback", "one", "stable", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["aliases"]["stable"], 1);
    let ran = tipserve(&fake, &["caches", "rollback", "one", "stable"]).expect(1);
    assert!(ran.stderr.contains("none before"), "{ran:?}");
    let ran = tipserve(&fake, &["caches", "rollback", "one", "nope"]).expect(3);
    assert!(ran.stderr.contains("stable → 1"), "{ran:?}");
}

#[test]
fn versions_are_deleted_by_number() {
    let fake = with_versions(3);
    tipserve(&fake, &["caches", "alias", "one", "stable", "1"]).expect(0);
    let ran = tipserve(&fake, &["caches", "delete", "one@2"]).expect(2);
    assert!(ran.stderr.contains("\"one@2\" cannot be undone"), "{ran:?}");
    let ran = tipserve(&fake, &["caches", "delete", "one@stable", "--yes"]).expect(2);
    assert!(ran.stderr.contains("unalias"), "{ran:?}");
    // An alias points at it.
    tipserve(&fake, &["caches", "delete", "one@1", "--yes"]).expect(1);
    let out = tipserve(&fake, &["caches", "delete", "one@2", "--yes", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["deleted"], "one@2");
    let left: Vec<_> = fake.state().caches["one"]
        .iter()
        .map(|it| it.version)
        .collect();
    assert_eq!(left, [1, 3]);
    tipserve(&fake, &["caches", "delete", "one@2", "--yes"]).expect(3);
}

#[test]
fn pruning_keeps_the_newest_and_the_aliased() {
    let fake = with_versions(5);
    tipserve(&fake, &["caches", "alias", "one", "stable", "2"]).expect(0);
    let dry = ["caches", "prune", "one", "--keep", "2", "--dry-run"];
    let ran = tipserve(&fake, &dry).expect(0);
    assert_eq!(ran.stdout, "one: would delete 2 versions: 3, 1\n");
    assert_eq!(fake.state().caches["one"].len(), 5);
    let out = tipserve(&fake, &["caches", "prune", "one", "--keep", "2", "--json"])
        .expect(0)
        .json();
    assert_eq!(
        out,
        serde_json::json!({"cache": "one", "deleted_versions": [3, 1], "dry_run": false})
    );
    let ran = tipserve(&fake, &["caches", "prune", "one", "--keep", "2"]).expect(0);
    assert_eq!(ran.stdout, "one: nothing to delete\n");
    tipserve(&fake, &["caches", "prune", "one"]).expect(2);
    tipserve(&fake, &["caches", "prune", "one", "--keep", "0"]).expect(2);
    tipserve(&fake, &["caches", "prune", "nope", "--keep", "1"]).expect(3);
}

#[test]
fn every_command_shows_an_example_and_completes() {
    let fake = Fake::start();
    for command in [
        "list", "show", "versions", "examples", "alias", "unalias", "rollback", "delete", "prune",
        "export", "import",
    ] {
        let ran = tipserve(&fake, &["caches", command, "--help"]).expect(0);
        assert!(
            ran.stdout.contains(&format!("tipserve caches {command}")),
            "{command}"
        );
        assert!(ran.stdout.contains("Example"), "{command}");
    }
    for command in ["create", "add"] {
        let ran = tipserve(&fake, &[command, "--help"]).expect(0);
        assert!(
            ran.stdout.contains(&format!("  tipserve {command} pets")),
            "{command}"
        );
    }
    let ran = tipserve(&fake, &["completions", "bash"]).expect(0);
    for word in ["rollback", "prune", "--no-new-classes", "--if-etag"] {
        assert!(ran.stdout.contains(word), "{word}");
    }
}
