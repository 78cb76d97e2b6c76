//! `tipserve analyze` and `tipserve suggest`.

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

#[test]
fn an_analysis_as_json() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let out = tipserve(&fake, &["analyze", "c", "--draws", "3", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["version"], "caches/c/versions/1");
    assert_eq!(out["method"], "stack");
    assert_eq!(out["curve"][0]["draws"], 3);
    assert_eq!(out["forecast"]["shots"], 32);
    assert_eq!(out["confusion"], serde_json::json!([[12, 3], [4, 11]]));
    assert_eq!(out["suspects"][0]["suggested_display_name"], "dog");
    assert_eq!(out["misclassified"], out["suspects"]);
    assert_eq!(out["duplicates"][0]["exact"], true);
    assert_eq!(
        out["traffic"],
        serde_json::json!({
            "since": "1970-01-01T00:00:00.000Z",
            "item_count": 400,
            "enough_count": 320,
            "unmatched_count": 12,
            "unmatched": [
                {"example_id": "dog/003.jpg", "class_index": 1, "display_name": "dog"}
            ],
        })
    );
}

#[test]
fn an_analysis_as_text() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let ran = tipserve(&fake, &["analyze", "c"]).expect(0);
    for text in [
        "Look at the labels of 1 examples first.",
        "75.00 % ± 8.00 % of 30 examples (32 in all)",
        "40.00 % to 60.00 %",
        "expected",
        "dog taken for cat: 4; the other way: 3",
        "cat/007.jpg",
        "cat/001.jpg (cat) and cat/002.jpg (cat): copies",
        "nearest to none of 400 items since 1970-01-01T00:00:00.000Z",
        "  dog/003.jpg (dog)",
        "and 2 more examples",
    ] {
        assert!(ran.stdout.contains(text), "{text}:\n{}", ran.stdout);
    }
    tipserve(&fake, &["analyze", "nowhere"]).expect(3);
    tipserve(&fake, &["analyze", "c", "--draws", "0"]).expect(2);
}

#[test]
fn suggestions_of_a_folder() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b"], &[0, 0]);
    for number in 0..3 {
        folder.write(&format!("a/{number}.jpg"), "IMG 1");
        folder.write(&format!("b/{number}.jpg"), "IMG 0");
    }
    folder.write("b/bad.jpg", "no picture");
    let args = ["suggest", folder.str(), "--count", "4"];
    let ran = tipserve(&fake, &args).expect(4);
    let at = |text: &str| {
        ran.stdout
            .find(text)
            .unwrap_or_else(|| panic!("{text}: {ran:?}"))
    };
    assert!(at("b/2.jpg") < at("a/0.jpg"));
    assert!(!ran.stdout.contains("a/1.jpg"), "four are asked for");
    assert!(ran.stdout.contains("nothing is labelled yet"));
    assert!(ran.stderr.contains("bad.jpg"), "{ran:?}");

    let more = [
        &args[..],
        &["--cache", "c", "--strategy", "margin", "--json"],
    ]
    .concat();
    let out = tipserve(&fake, &more).expect(4).json();
    assert_eq!(out["strategy"], "margin");
    assert_eq!(out["version"], "c");
    assert_eq!(out["received"], 7);
    assert_eq!(out["rejected_count"], 1);
    let first = &out["suggestions"][0];
    assert_eq!(first["reason"], "typical");
    assert_eq!(first["duplicate_ids"], serde_json::json!(["other.jpg"]));
}

#[test]
fn nothing_to_suggest_is_an_error() {
    let fake = Fake::start();
    let folder = Folder::new(&["a"], &[0]);
    tipserve(&fake, &["suggest", folder.str()]).expect(1);
    tipserve(&fake, &["suggest", "/no/such/folder"]).expect(3);
    tipserve(&fake, &["suggest", folder.str(), "x.npz"]).expect(2);
}
