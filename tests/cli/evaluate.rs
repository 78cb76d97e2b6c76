//! `tipserve evaluate`.

use crate::{
    fake::{Behaviour, Fake},
    run::{Folder, tipserve},
};

#[test]
fn the_figures_as_json() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog", "cow"]);
    fake.add_cache("c", &["cat", "dog", "cow"]);
    // Only some of the classes, in an order of their own: "cow" is class 2.
    let folder = Folder::new(&["cow", "dog"], &[0, 0]);
    for number in 0..4 {
        folder.write(
            &format!("cow/{number}.jpg"),
            if number == 0 { "IMG 1" } else { "IMG 2" },
        );
        folder.write(&format!("dog/{number}.jpg"), "IMG 1");
    }
    let out = tipserve(
        &fake,
        &["evaluate", "c@1", "c@2", "--from", folder.str(), "--json"],
    )
    .expect(0)
    .json();
    assert_eq!(out["top1"], 0.875);
    assert_eq!(out["top5"], 1.0);
    assert_eq!(out["count"], 8);
    assert!((out["zero_shot_top1"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(out["rejected"].as_array().unwrap().len(), 0);
    assert_eq!(out["matched_by"], "name");
    let evaluations = out["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), 2);
    assert_eq!(evaluations[1]["version"], "caches/c/versions/2");
    assert!(evaluations[1]["zero_shot_top1"].is_null());
    assert_eq!(
        evaluations[0]["confusion"],
        serde_json::json!([[0, 0, 0], [0, 4, 0], [0, 1, 3]])
    );
    assert_eq!(evaluations[0]["classes"][2]["display_name"], "cow");
    assert_eq!(evaluations[0]["classes"][2]["accuracy"], 0.75);
    assert_eq!(evaluations[0]["expected_calibration_error"], 0.0625);
}

#[test]
fn the_figures_as_text() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let folder = Folder::new(&["cat", "dog"], &[4, 4]);
    folder.write("cat/000.jpg", "IMG 1");
    folder.write("cat/bad.jpg", "no picture");
    let ran = tipserve(&fake, &["evaluate", "c", "--from", folder.str()]).expect(4);
    for text in [
        "87.50 %",
        "50.00 %",
        "6.25 %",
        "75.00 %",
        "[0] cat    3    1",
        "[1] dog    .    4",
    ] {
        assert!(ran.stdout.contains(text), "{text}:\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("cat/bad.jpg"), "{ran:?}");
}

#[test]
fn many_classes_show_the_worst_confusions() {
    let fake = Fake::start();
    let names: Vec<_> = (0..30).map(|i| format!("c{i:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    fake.add_cache("c", &names);
    let folder = Folder::new(&names, &[3; 30]);
    folder.write("c04/000.jpg", "IMG 7");
    folder.write("c04/001.jpg", "IMG 7");
    folder.write("c05/001.jpg", "IMG 9");
    let ran = tipserve(&fake, &["evaluate", "c", "--from", folder.str()]).expect(0);
    let worst = ran.stdout.split("most frequent confusions").nth(1).unwrap();
    let lines: Vec<Vec<&str>> = worst
        .lines()
        .skip(2)
        .take(2)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines, [["2", "c04", "c07"], ["1", "c05", "c09"]]);
}

#[test]
fn classes_that_do_not_match() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    fake.add_cache("d", &["dog", "cat"]);
    let folder = Folder::new(&["cat", "snark"], &[1, 1]);
    let ran = tipserve(&fake, &["evaluate", "c", "--from", folder.str()]).expect(1);
    assert!(
        ran.stderr.contains("\"snark\"") && ran.stderr.contains("cat, dog"),
        "{ran:?}"
    );
    let folder = Folder::new(&["cat"], &[1]);
    let ran = tipserve(&fake, &["evaluate", "c", "d", "--from", folder.str()]).expect(1);
    assert!(
        ran.stderr.contains("number their classes differently"),
        "{ran:?}"
    );
    tipserve(&fake, &["evaluate", "nope", "--from", folder.str()]).expect(3);
}

#[test]
fn what_create_drew_is_left_out() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b"], &[20, 20]);
    tipserve(
        &fake,
        &[
            "create",
            "c",
            "--from",
            folder.str(),
            "--shots",
            "4",
            "--seed",
            "5",
        ],
    )
    .expect(0);
    // Spoil what was drawn: none of it may be evaluated.
    let drawn: Vec<_> = fake
        .state()
        .examples
        .iter()
        .map(|it| it.example_id.clone())
        .collect();
    for id in &drawn {
        folder.write(id, "no picture");
    }
    let args = [
        "evaluate",
        "c",
        "--from",
        folder.str(),
        "--except-shots",
        "4",
        "--seed",
        "5",
        "--json",
    ];
    let out = tipserve(&fake, &args).expect(0).json();
    assert_eq!(
        (&out["count"], &out["rejected_count"]),
        (&32.into(), &0.into())
    );
}

/// Beyond 1000 classes the server sends no confusion matrix.
#[test]
fn classes_beyond_any_confusion_matrix() {
    let fake = Fake::with(Behaviour {
        no_confusion: true,
        ..Behaviour::default()
    });
    let names: Vec<_> = (0..12_000).map(|i| format!("class {i:05}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    fake.add_cache("c", &names);
    let folder = Folder::new(&["class_11999", "class_00007"], &[0, 0]);
    folder.write("class_11999/0.jpg", "IMG 11999");
    folder.write("class_00007/0.jpg", "IMG 7");
    let args = ["evaluate", "c", "--from", folder.str()];
    let out = tipserve(&fake, &[&args[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!((&out["top1"], &out["count"]), (&1.0.into(), &2.into()));
    assert_eq!(out["evaluations"][0]["confusion"], serde_json::json!([]));
    let ran = tipserve(&fake, &args).expect(0);
    assert!(
        ran.stdout.contains("no confusion matrix") && ran.stdout.contains("12000 classes"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_page_that_fetches_nothing() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog & <cow>"]);
    let folder = Folder::new(&["cat", "dog & <cow>"], &[3, 3]);
    // Taken for the other.
    folder.write("cat/w<r>ong.png", "IMG 1");
    let page = folder.path().join("page.html");
    let args = ["evaluate", "c", "--from", folder.str(), "--html"];
    tipserve(&fake, &[&args[..], &[page.to_str().unwrap()]].concat()).expect(0);
    let text = std::fs::read_to_string(&page).unwrap();
    for part in [
        "Can its probabilities be believed?",
        "<svg",
        "What is taken for what?",
        "The worst of 1 wrong answers",
        "w&lt;r&gt;ong.png",
        "dog &amp; &lt;cow&gt;",
        "Class by class",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for fetched in [
        "http://", "https://", "src=\"/", "<script", "<link", "@import", "<r>", "<cow>",
    ] {
        assert!(!text.contains(fetched), "{fetched}: {text}");
    }
    assert!(text.trim_end().ends_with("</html>"));
}
