//! `tipserve caches` and `tipserve info`.

use crate::{fake::Fake, run::tipserve};

#[test]
fn list_show_versions_alias_delete() {
    let fake = Fake::start();
    let ran = tipserve(&fake, &["caches", "list", "--json"]).expect(0);
    assert_eq!(ran.json(), serde_json::json!({"caches": []}));
    fake.add_cache("one", &["cat", "dog"]);
    fake.add_cache("one", &["cat", "dog"]);
    fake.add_cache("two", &["x"]);
    // The fake's pages hold one cache each.
    let out = tipserve(&fake, &["caches", "list", "--json"])
        .expect(0)
        .json();
    let ids: Vec<_> = out["caches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["cache"])
        .collect();
    assert_eq!(ids, ["one", "two"]);
    assert_eq!(out["caches"][0]["latest"]["version"], 2);
    assert_eq!(out["caches"][0]["create_time"], "2023-11-14T22:13:20.000Z");

    let out = tipserve(&fake, &["caches", "alias", "one", "stable", "1", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["aliases"], serde_json::json!({"stable": 1}));
    let ran = tipserve(&fake, &["caches", "list"]).expect(0);
    assert!(
        ran.stdout.contains("stable → 1") && ran.stdout.contains("tip_adapter"),
        "{ran:?}"
    );
    let out = tipserve(&fake, &["caches", "show", "one", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["version_count"], 2);
    for (name, version) in [("one@stable", 1), ("one@2", 2), ("one@latest", 2)] {
        let out = tipserve(&fake, &["caches", "show", name, "--json"])
            .expect(0)
            .json();
        assert_eq!(out["version"], version, "{name}");
    }
    let ran = tipserve(&fake, &["caches", "show", "one"]).expect(0);
    for text in [
        "one@2",
        "α 1.17",
        "it had the best leave-one-out accuracy",
        "dog",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {ran:?}");
    }
    let out = tipserve(&fake, &["caches", "versions", "one", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["versions"][0]["version"], 2);
    assert_eq!(out["versions"].as_array().unwrap().len(), 2);
    tipserve(&fake, &["caches", "unalias", "one", "stable"]).expect(0);
    tipserve(&fake, &["caches", "unalias", "one", "stable"]).expect(3);
    tipserve(&fake, &["caches", "alias", "one", "stable", "9"]).expect(3);
    tipserve(&fake, &["caches", "alias", "one", "stable", "0"]).expect(2);

    let ran = tipserve(&fake, &["caches", "delete", "one"]).expect(2);
    assert!(ran.stderr.contains("--yes"), "{ran:?}");
    assert!(fake.state().caches.contains_key("one"));
    let out = tipserve(&fake, &["caches", "delete", "one", "--yes", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["deleted"], "one");
    assert!(!fake.state().caches.contains_key("one"));
    tipserve(&fake, &["caches", "delete", "one", "--yes"]).expect(3);
}

#[test]
fn what_the_server_serves() {
    let fake = Fake::start();
    let out = tipserve(&fake, &["info", "--json"]).expect(0).json();
    assert_eq!(out["bundle"]["width"], 8);
    assert_eq!(out["bundle"]["image_size"], 224);
    assert_eq!(out["bundle"]["resize_to"], 256);
    assert_eq!(out["bundle"]["interpolation"], "bilinear");
    assert_eq!(out["limits"]["max_message_bytes"], 4 << 20);
    assert_eq!(out["address"], format!("http://{}", fake.address()));
    let shown = tipserve(&fake, &["info"]).expect(0).stdout;
    for part in ["max_message_bytes", "256", "bilinear"] {
        assert!(shown.contains(part), "{shown}");
    }
}
