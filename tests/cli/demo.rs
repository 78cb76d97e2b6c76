//! `tipserve demo` against a running server.

use std::{collections::BTreeSet, path::Path};

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

#[test]
fn the_demo_learns_from_some_and_classifies_others() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b", "c"], &[30, 30, 30]);
    let args = [
        "demo",
        "--data",
        folder.str(),
        "--shots",
        "4",
        "--pictures",
        "30",
    ];
    let ran = tipserve(&fake, &args).expect(0);
    for text in [
        "zero-shot     33.33 %",
        "Tip-Adapter  100.00 %",
        "pictures/s",
        "p50",
        "p99",
        "one at a time",
        ".jpg (is a)\n   1  a ",
        "near  key/0.jpg",
        "one picture of each class: 100.00 % on the mean of 3 draws",
        "4 pictures of each class: 100.00 % on the mean of 3 draws",
        "a class is added: a classifier that had never seen \"c\" took its 10 pictures",
        "next: your own folders",
    ] {
        assert!(ran.stdout.contains(text), "{text}:\n{}", ran.stdout);
    }
    // As it was called here, by its path: it can be pasted.
    let pasted = ran
        .stdout
        .lines()
        .find_map(|line| line.split_once(" create mine --from"));
    let program = pasted.map(|(program, _)| program.trim());
    assert!(
        program.is_some_and(|it| Path::new(it).is_file()),
        "{program:?}"
    );
    {
        let state = fake.state();
        let learned: BTreeSet<_> = state
            .examples
            .iter()
            .map(|it| it.example_id.clone())
            .collect();
        // Two versions of the same twelve examples, and one that lacks a class
        // and gets it; three draws of one and of four of each class.
        let draws = 3 * (3 + 12);
        assert_eq!(state.examples.len(), 24 + 12 + draws);
        assert!(learned.len() > 12, "the draws differ");
    }
    let out = tipserve(&fake, &[&args[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(out["test_count"], 30);
    assert_eq!(out["tip_adapter_top1"], 1.0);
    assert_eq!(out["draws"].as_array().map(Vec::len), Some(6));
    assert_eq!(out["added_class"]["display_name"], "c");
    assert!(out["stream"]["p99_seconds"].as_f64() >= out["stream"]["p50_seconds"].as_f64());
    let all = ["demo", "--data", folder.str(), "--shots", "99"];
    assert!(
        tipserve(&fake, &all)
            .expect(1)
            .stderr
            .contains("fewer --shots")
    );
}

#[test]
fn train_and_test_folders() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    for (part, count) in [("train", 5), ("test", 8)] {
        for class in 0..2 {
            for number in 0..count {
                folder.write(
                    &format!("{part}/k{class}/{number}.jpg"),
                    &format!("IMG {class}"),
                );
            }
        }
    }
    let out = tipserve(&fake, &["demo", "--data", folder.str(), "--json"])
        .expect(0)
        .json();
    assert_eq!(
        (&out["train_count"], &out["test_count"]),
        (&10.into(), &16.into())
    );
}
