//! `tipserve create`.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink};

use crate::{
    fake::{Behaviour, Fake},
    run::{Folder, Ran, command, tipserve},
};

#[test]
fn a_folder_becomes_a_cache() {
    let fake = Fake::start();
    let folder = Folder::new(&["b_two", "a"], &[3, 2]);
    folder.write("b_two/deep/er/x.jpg", "IMG 0");
    folder.write("b_two/.hidden.jpg", "nothing");
    folder.write(".git/x.jpg", "nothing");
    folder.write("b_two/broken.jpg", "just text");
    symlink(folder.path(), folder.path().join("a/loop")).unwrap();
    let ran = tipserve(
        &fake,
        &[
            "create",
            "c",
            "--from",
            folder.str(),
            "--label",
            "who=me",
            "--template",
            "one {}.",
            "--views",
            "3",
            "--alpha",
            "2",
            "--json",
        ],
    )
    .expect(4);
    let made = ran.json();
    assert_eq!(made["version"]["name"], "caches/c/versions/1");
    assert_eq!(made["version"]["cache"], "c");
    // Sorted by folder name; '_' reads as ' '.
    assert_eq!(made["version"]["classes"][0]["display_name"], "a");
    assert_eq!(made["version"]["classes"][1]["display_name"], "b two");
    assert_eq!(made["version"]["classes"][1]["example_count"], 4);
    assert_eq!(made["version"]["head"]["method"], "tip_adapter");
    assert_eq!(
        made["version"]["head"]["selection"]["source"],
        "leave_one_out"
    );
    assert_eq!(
        made["version"]["head"]["selection"]["candidates"][1]["skipped"],
        "M is over the bound"
    );
    assert_eq!(made["rejected"].as_array().unwrap().len(), 1, "{made}");
    assert_eq!(made["rejected"][0]["id"], "b_two/broken.jpg");
    assert_eq!(made["rejected"][0]["reason"], "PICTURE_UNDECODABLE");
    assert_eq!(made["rejected"][0]["code"], "INVALID_ARGUMENT");
    assert_eq!(made["example_count"], 7);
    let state = fake.state();
    let spec = &state.specs[0];
    assert_eq!(
        (spec.alpha, spec.beta, spec.views, spec.seed),
        (Some(2.0), None, 3, 1)
    );
    assert_eq!(spec.prompt_templates, ["one {}."]);
    assert_eq!(spec.labels["who"], "me");
    let ids: BTreeSet<_> = state
        .examples
        .iter()
        .map(|it| it.example_id.as_str())
        .collect();
    assert!(
        ids.contains("b_two/deep/er/x.jpg") && ids.contains("a/000.jpg"),
        "{ids:?}"
    );
    assert_eq!(ids.len(), 6);
}

#[test]
fn the_text_says_what_was_chosen_and_why() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b"], &[2, 2]);
    folder.write("a/x.jpg", "just text");
    let ran = tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(4);
    for text in [
        "made c@1: 2 classes, 4 keys",
        "tip_adapter, α 1.17, β 5.5",
        "why: it had the best",
        "leave one out, 48 examples",
        "87.50 %",
        "0.4321",
        "left out: M is over the bound",
        "4 of 5 examples in ",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    assert!(
        ran.stderr
            .contains("a/x.jpg: these 9 bytes are no picture [PICTURE_UNDECODABLE]"),
        "{ran:?}"
    );
    tipserve(
        &fake,
        &["create", "c", "--from", Folder::new(&["a"], &[1]).str()],
    )
    .expect(0);
}

#[test]
fn shots_are_drawn_by_the_seed_and_validation_is_apart() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b"], &[30, 5]);
    let args = [
        "create",
        "c",
        "--from",
        folder.str(),
        "--shots",
        "6",
        "--val-shots",
        "4",
    ];
    let ran = tipserve(&fake, &args).expect(0);
    assert!(
        ran.stderr.contains("class \"b\" has 5 of 6 shots"),
        "{ran:?}"
    );
    let drawn = |fake: &Fake| {
        let examples = std::mem::take(&mut fake.state().examples);
        let of = |validation| -> BTreeSet<String> {
            let some = examples.iter().filter(|it| it.validation == validation);
            some.map(|it| it.example_id.clone()).collect()
        };
        (of(false), of(true))
    };
    let (train, validation) = drawn(&fake);
    assert_eq!((train.len(), validation.len()), (6 + 5, 4));
    assert!(train.is_disjoint(&validation));
    tipserve(&fake, &args).expect(0);
    assert_eq!(drawn(&fake), (train.clone(), validation));
    tipserve(&fake, &[&args[..], &["--seed", "2"]].concat()).expect(0);
    assert_ne!(drawn(&fake).0, train);
    tipserve(
        &fake,
        &["create", "c", "--from", folder.str(), "--val-shots", "4"],
    )
    .expect(2);
}

#[test]
fn validation_comes_from_elsewhere_by_name() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b"], &[2, 2]);
    let other = Folder::new(&["b"], &[1]);
    let args = [
        "create",
        "c",
        "--from",
        folder.str(),
        "--validation",
        other.str(),
    ];
    tipserve(&fake, &args).expect(0);
    let examples = std::mem::take(&mut fake.state().examples);
    let validation: Vec<_> = examples.iter().filter(|it| it.validation).collect();
    assert_eq!(validation.len(), 1);
    assert_eq!(
        (validation[0].class_index, validation[0].example_id.as_str()),
        (1, "validation/b/000.jpg")
    );
    let strange = Folder::new(&["z"], &[1]);
    let args = [
        "create",
        "c",
        "--from",
        folder.str(),
        "--validation",
        strange.str(),
    ];
    let ran = tipserve(&fake, &args).expect(1);
    assert!(ran.stderr.contains("has the class \"z\""), "{ran:?}");
}

#[test]
fn pictures_of_no_class_are_sent_as_such() {
    let fake = Fake::start();
    let folder = Folder::new(&["a", "b"], &[2, 2]);
    let others = Folder::new(&["sky"], &[2]);
    let args = [
        "create",
        "c",
        "--from",
        folder.str(),
        "--unknown",
        others.str(),
        "--json",
    ];
    let made = tipserve(&fake, &args).expect(0).json();
    assert_eq!(made["version"]["classes"][0]["example_count"], 2);
    assert_eq!(made["example_count"], 6);
    let examples = std::mem::take(&mut fake.state().examples);
    let unknown: Vec<_> = examples.iter().filter(|it| it.unknown).collect();
    let ids: Vec<_> = unknown.iter().map(|it| it.example_id.as_str()).collect();
    assert_eq!(ids, ["unknown/sky/000.jpg", "unknown/sky/001.jpg"]);
    assert!(unknown.iter().all(|it| !it.validation));
}

#[test]
fn a_list_of_labels_makes_a_version_of_independent_ones() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    for name in ["a.jpg", "b.jpg", "c.jpg"] {
        folder.write(name, "IMG 0");
    }
    let file = folder.write(
        "labels.csv",
        "file,labels\na.jpg,dog;cat\nb.jpg,cat\nc.jpg,\n",
    );
    let file = file.to_str().unwrap();
    tipserve(&fake, &["create", "c", "--from", file]).expect(0);
    let state = fake.state();
    assert!(state.specs[0].multi_label);
    let names = state.specs[0]
        .classes
        .iter()
        .map(|it| it.display_name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["cat", "dog"]);
    let sent = state.examples.iter();
    let sent: Vec<_> = sent
        .map(|it| (it.example_id.as_str(), &it.class_indices[..]))
        .collect();
    let expected: [(&str, &[i32]); 3] = [("a.jpg", &[0, 1]), ("b.jpg", &[0]), ("c.jpg", &[])];
    assert_eq!(sent, expected);
    drop(state);
    let ran = tipserve(&fake, &["create", "c", "--from", file, "--shots", "1"]).expect(2);
    assert!(ran.stderr.contains("one class each"), "{ran:?}");
}

#[test]
fn names_override_folders() {
    let fake = Fake::start();
    let folder = Folder::new(&["n01", "n02"], &[1, 1]);
    let names = Folder::new(&[], &[]);
    let file = names.write("names.tsv", "# synsets\nn01\ttench\n");
    let args = [
        "create",
        "c",
        "--from",
        folder.str(),
        "--names",
        file.to_str().unwrap(),
    ];
    tipserve(&fake, &args).expect(0);
    let display: Vec<_> = fake.state().specs[0]
        .classes
        .iter()
        .map(|class| class.display_name.clone())
        .collect();
    assert_eq!(display, ["tench", "n02"]);
    for (text, says) in [
        ("n09\tx\n", "\"n09\""),
        ("n01 tench\n", "line 1"),
        ("n01\ta\nn01\tb\n", "second time"),
    ] {
        fs::write(&file, text).unwrap();
        let ran = tipserve(&fake, &args).expect(1);
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
}

#[test]
fn folders_that_are_none() {
    let fake = Fake::start();
    let empty = Folder::new(&[], &[]);
    let flat = Folder::new(&[], &[]);
    flat.write("x.jpg", "IMG 0");
    let hole = Folder::new(&["a", "hollow_one"], &[1, 0]);
    for (folder, says) in [
        (&empty, "is empty"),
        (&flat, "1 file but no folder"),
        (&hole, "\"hollow one\""),
    ] {
        let ran = tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(1);
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
    let ran = tipserve(&fake, &["create", "c", "--from", "/no/such/folder"]).expect(3);
    assert!(ran.stderr.contains("/no/such/folder"), "{ran:?}");
    assert!(fake.state().specs.is_empty());
}

#[test]
fn messages_stay_below_the_limit_and_one_file_over_it_is_named() {
    let fake = Fake::with(Behaviour {
        message_bytes: 64 << 10,
        ..Behaviour::default()
    });
    let folder = Folder::new(&["a"], &[100]);
    for number in 0..100 {
        folder.write(
            &format!("a/{number:03}.jpg"),
            &format!("IMG 0 {}", "x".repeat(6000)),
        );
    }
    folder.write("a/big.jpg", &format!("IMG 0 {}", "x".repeat(70_000)));
    let ran = tipserve(&fake, &["create", "c", "--from", folder.str(), "--json"]).expect(4);
    let rejected = &ran.json()["rejected"];
    assert_eq!(rejected[0]["id"], "a/big.jpg");
    assert_eq!(rejected[0]["reason"], "FILE_TOO_LARGE");
    let message = rejected[0]["message"].as_str().unwrap();
    assert!(
        message.contains("70006") && message.contains("65536"),
        "{message}"
    );
    assert_eq!(fake.state().examples.len(), 100);
    assert!(
        fake.state().largest_message <= 40 << 10,
        "{}",
        fake.state().largest_message
    );

    let ran = tipserve(
        &fake,
        &["create", "strict", "--from", folder.str(), "--strict"],
    )
    .expect(1);
    assert!(ran.stderr.contains("a/big.jpg"), "{ran:?}");
    assert!(!fake.state().caches.contains_key("strict"));
}

/// The server reads nothing; the client must not read on. Its bytes read so
/// far are counted by the kernel.
#[test]
fn files_are_read_only_as_the_server_takes_them() {
    let fake = Fake::with(Behaviour {
        gated: true,
        ..Behaviour::default()
    });
    let folder = Folder::new(&["a"], &[1]);
    let picture = folder.write("a/000.jpg", &format!("IMG 0 {}", "x".repeat(1 << 20)));
    for number in 1..300 {
        fs::hard_link(&picture, folder.path().join(format!("a/{number:03}.jpg"))).unwrap();
    }
    let child = command(&fake, &["create", "c", "--from", folder.str(), "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let read = || {
        let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("rchar: "))
            .unwrap();
        line.parse::<u64>().unwrap()
    };
    // Until it reads no more.
    let (mut before, mut same) = (0, 0);
    while same < 5 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = read();
        same = if now == before && now > 1 << 20 {
            same + 1
        } else {
            0
        };
        before = now;
    }
    assert!(
        before < 64 << 20,
        "{before} bytes read of 300 MiB while the server takes none"
    );
    fake.open_gate();
    let made = Ran::of(child.wait_with_output().unwrap()).expect(0).json();
    assert_eq!(made["version"]["key_count"], 300);
}

/// The server must not take the end of the client for the end of the examples.
#[test]
fn interrupting_makes_nothing() {
    let fake = Fake::with(Behaviour {
        gated: true,
        ..Behaviour::default()
    });
    let folder = Folder::new(&["a"], &[1]);
    let picture = folder.write("a/000.jpg", &format!("IMG 0 {}", "x".repeat(1 << 20)));
    for number in 1..50 {
        fs::hard_link(&picture, folder.path().join(format!("a/{number:03}.jpg"))).unwrap();
    }
    let child = command(&fake, &["create", "c", "--from", folder.str()])
        .spawn()
        .unwrap();
    fake.wait_for_creation();
    let mut kill = std::process::Command::new("kill");
    assert!(
        kill.args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130);
    assert_eq!(ran.stdout, "");
    fake.open_gate();
    fake.wait_for_given_up();
    assert!(fake.state().caches.is_empty());
}
