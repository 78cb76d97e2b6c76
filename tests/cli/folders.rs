//! Folders as people have them: what systems leave behind, names of any bytes,
//! parts of data sets, lists with a byte order mark.

use std::{
    collections::BTreeSet, ffi::OsStr, fs, io::Write as _, os::unix::ffi::OsStrExt as _,
    process::Stdio,
};

use crate::{
    fake::Fake,
    run::{Folder, Ran, command, tipserve},
};

/// Class names and example ids of the one cache that was made.
fn sent(fake: &Fake) -> (Vec<String>, BTreeSet<String>) {
    let mut state = fake.state();
    let spec = state.specs.pop().unwrap();
    let names = spec.classes.into_iter().map(|class| class.display_name);
    let ids = std::mem::take(&mut state.examples);
    (
        names.collect(),
        ids.into_iter().map(|example| example.example_id).collect(),
    )
}

#[test]
fn what_systems_leave_behind_is_not_sent() {
    let fake = Fake::start();
    let folder = Folder::new(&["cat", "dog"], &[1, 1]);
    for junk in [
        "cat/Thumbs.db",
        "cat/desktop.ini",
        "cat/labels.txt",
        "cat/.DS_Store",
        "cat/sub/ehthumbs.db",
        "dog/@eaDir/000.jpg/SYNOPHOTO_THUMB_M.jpg",
        "dog/meta.JSON",
        "__MACOSX/dog/._000.jpg",
        "@eaDir/x.jpg",
        "$RECYCLE.BIN/x.jpg",
        "README.md",
    ] {
        folder.write(junk, "junk");
    }
    tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(0);
    let (names, ids) = sent(&fake);
    assert_eq!(names, ["cat", "dog"]);
    assert_eq!(
        ids.into_iter().collect::<Vec<_>>(),
        ["cat/000.jpg", "dog/000.jpg"]
    );
    let lines = tipserve(&fake, &["classify", "c", folder.str(), "--json"]);
    assert_eq!(lines.expect(0).json_lines().len(), 2);
    let out = tipserve(&fake, &["embed", folder.str()]).expect(0).json();
    assert_eq!(out["inputs"].as_array().unwrap().len(), 2);
    // What is named is meant.
    let named = folder.path().join("cat/labels.txt");
    let args = ["classify", "c", named.to_str().unwrap(), "--json"];
    assert_eq!(tipserve(&fake, &args).expect(4).json_lines().len(), 1);
}

#[test]
fn names_that_are_not_utf8_stay_apart() {
    let fake = Fake::start();
    let folder = Folder::new(&["plain"], &[1]);
    let odd = folder.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&odd).unwrap();
    for name in [&b"a\xff.jpg"[..], b"a\xfe.jpg"] {
        fs::write(odd.join(OsStr::from_bytes(name)), "IMG 0").unwrap();
    }
    tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(0);
    let (names, ids) = sent(&fake);
    assert_eq!(names, ["caf\\xe9", "plain"]);
    let ids: Vec<_> = ids.into_iter().collect();
    assert_eq!(
        ids,
        [
            "caf\\xe9/a\\xfe.jpg",
            "caf\\xe9/a\\xff.jpg",
            "plain/000.jpg"
        ]
    );
    // A list on standard input goes on after such a name.
    let mut child = command(&fake, &["classify", "c", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut list = b"\xef\xbb\xbf".to_vec();
    for name in [&b"a\xff.jpg"[..], b"a\xfe.jpg", b"gone\xff.jpg"] {
        list.extend(odd.join(OsStr::from_bytes(name)).as_os_str().as_bytes());
        list.extend(b"\r\n");
    }
    child.stdin.take().unwrap().write_all(&list).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(4);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(
        lines[0]["id"]
            .as_str()
            .unwrap()
            .ends_with("caf\\xe9/a\\xff.jpg")
    );
    assert!(lines[0].get("error").is_none());
    assert_eq!(lines[2]["error"]["reason"], "FILE_UNREADABLE");
}

#[test]
fn parts_of_a_data_set_are_not_classes() {
    let fake = Fake::start();
    for (parts, commands) in [
        (
            &["train", "val", "test"][..],
            &[
                "tipserve create CACHE --from {}/train --validation {}/val",
                "tipserve evaluate CACHE --from {}/test",
            ][..],
        ),
        (
            &["Training", "Validation"],
            &["tipserve create CACHE --from {}/Training --validation {}/Validation"],
        ),
        (&["train"], &["tipserve create CACHE --from {}/train"]),
        (&["test"], &["tipserve evaluate CACHE --from {}/test"]),
    ] {
        let folder = Folder::new(&[], &[]);
        for part in parts {
            folder.write(&format!("{part}/cat/0.jpg"), "IMG 0");
            folder.write(&format!("{part}/dog/0.jpg"), "IMG 1");
        }
        let ran = tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(1);
        for typed in commands {
            let typed = typed.replace("{}", folder.str());
            assert!(ran.stderr.contains(&typed), "{typed}: {ran:?}");
        }
        assert!(fake.state().caches.is_empty());
    }
    // Classes may be called so: their folders hold pictures, or others are beside.
    let folder = Folder::new(&["test", "train"], &[1, 1]);
    tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(0);
    assert_eq!(sent(&fake).0, ["test", "train"]);
    let folder = Folder::new(&["bus", "train"], &[1, 0]);
    folder.write("train/steam/0.jpg", "IMG 1");
    tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(0);
    assert_eq!(sent(&fake).0, ["bus", "train"]);
}

#[test]
fn what_is_printed_to_be_typed_can_be_typed() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    folder.write("my pets/train/cat/0.jpg", "IMG 0");
    let root = folder.path().join("my pets");
    let ran = tipserve(&fake, &["create", "c", "--from", root.to_str().unwrap()]).expect(1);
    let typed = format!("--from '{}/train'", root.display());
    assert!(ran.stderr.contains(&typed), "{ran:?}");
}

#[test]
fn names_with_control_characters_are_refused() {
    let fake = Fake::start();
    for name in ["a\nb", "a\u{1b}[31m", "a\tb", "a\u{202e}b"] {
        let folder = Folder::new(&[name, "c"], &[1, 1]);
        let ran = tipserve(&fake, &["create", "c", "--from", folder.str()]).expect(1);
        assert!(
            ran.stderr.contains("holds the control character U+") && !ran.stderr.contains('\u{1b}'),
            "{ran:?}"
        );
        // Named otherwise, its examples are taken; their ids are shown escaped.
        let names = Folder::new(&[], &[]);
        let list = names.write("names", &format!("\u{feff}{name}\tfine\n"));
        let list = list.to_str().unwrap();
        let args = ["create", "c", "--from", folder.str(), "--names", list];
        let ran = tipserve(&fake, &args);
        // A name with a tab or a line break cannot be a line's first half.
        assert_eq!(ran.code == 0, !name.contains(['\n', '\t']), "{ran:?}");
    }
    assert!(fake.state().specs.len() == 2);
}

#[test]
fn lists_may_begin_with_a_byte_order_mark() {
    let fake = Fake::start();
    let folder = Folder::new(&["n01", "n02"], &[1, 1]);
    let lists = Folder::new(&[], &[]);
    let names = lists.write("names.tsv", "\u{feff}n01\ttench\r\nn02\tgoldfish\r\n");
    let args = ["create", "c", "--from", folder.str(), "--names"];
    tipserve(&fake, &[&args[..], &[names.to_str().unwrap()]].concat()).expect(0);
    assert_eq!(sent(&fake).0, ["tench", "goldfish"]);
    let remove = lists.write("remove.txt", "\u{feff}n01/000.jpg\r\n\r\n");
    let args = ["add", "c", "--remove-file", remove.to_str().unwrap()];
    tipserve(&fake, &args).expect(0);
    assert_eq!(
        fake.state().additions[0].remove_example_ids,
        ["n01/000.jpg"]
    );
    fs::write(&remove, b"\xff\xfen\0").unwrap();
    let ran = tipserve(&fake, &args).expect(1);
    assert!(ran.stderr.contains("UTF-16"), "{ran:?}");
}

#[test]
fn composed_and_decomposed_names_are_the_same_class() {
    let fake = Fake::start();
    fake.add_cache("c", &["caf\u{e9}", "tea"]);
    let folder = Folder::new(&["cafe\u{301}"], &[1]);
    let args = ["evaluate", "c", "--from", folder.str(), "--json"];
    assert_eq!(tipserve(&fake, &args).expect(0).json()["count"], 1);
    tipserve(&fake, &["add", "c", "--from", folder.str()]).expect(0);
    assert!(fake.state().additions[0].new_classes.is_empty());
}
