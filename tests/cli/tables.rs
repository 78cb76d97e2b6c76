//! Every table, as it was last accepted; `INSTA_UPDATE=always` accepts what it
//! is now. What differs from run to run is masked.

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

/// A run's standard output without its times and temporary names.
fn shown(fake: &Fake, args: &[&str]) -> String {
    let ran = tipserve(fake, args);
    assert!(matches!(ran.code, 0 | 4), "{args:?}: {ran:?}");
    mask_times(&ran.stdout.replace(&fake.address(), "SERVER"))
}

/// Replaces the numbers before " s" and in "(… a second)".
fn mask_times(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let timed = matches!(words[at].trim_end_matches([';', ',']), "s" | "a");
            if timed && words[at - 1].contains('.') {
                words[at - 1] = "T".to_owned();
            }
        }
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn tables_of_caches_and_versions() {
    let fake = Fake::start();
    fake.add_cache("pets", &["cat", "dog"]);
    fake.add_cache("pets", &["cat", "dog", "a class with a long name"]);
    fake.add_cache("birds", &["owl"]);
    tipserve(&fake, &["caches", "alias", "pets", "stable", "1"]).expect(0);
    for (name, args) in [
        ("caches-list", &["caches", "list"][..]),
        ("caches-show", &["caches", "show", "pets"]),
        ("caches-show-version", &["caches", "show", "pets@1"]),
        ("caches-versions", &["caches", "versions", "pets"]),
        ("caches-examples", &["caches", "examples", "pets"]),
        ("caches-alias", &["caches", "alias", "pets", "next", "2"]),
        ("caches-rollback", &["caches", "rollback", "pets", "next"]),
        (
            "caches-prune",
            &["caches", "prune", "pets", "--keep", "1", "--dry-run"],
        ),
        ("info", &["info"]),
        ("finetune", &["finetune", "pets"]),
        ("finetunes-list", &["finetunes", "list"]),
    ] {
        insta::assert_snapshot!(name, shown(&fake, args));
    }
}

#[test]
fn tables_of_what_was_made_and_measured() {
    let fake = Fake::start();
    let folder = Folder::new(&["cat", "dog"], &[4, 4]);
    folder.write("cat/000.jpg", "IMG 1");
    folder.write("dog/bad.jpg", "no picture");
    let create = ["create", "pets", "--from", folder.str()];
    insta::assert_snapshot!("create", shown(&fake, &create));
    let evaluate = ["evaluate", "pets", "--from", folder.str()];
    insta::assert_snapshot!("evaluate", shown(&fake, &evaluate));
    let picture = folder.path().join("dog/001.jpg");
    let classify = [
        "classify",
        "pets",
        picture.to_str().unwrap(),
        "--neighbours",
        "2",
    ];
    let shown = shown(&fake, &classify).replace(folder.str(), "DIR");
    insta::assert_snapshot!("classify", shown);
}

#[test]
fn names_cannot_command_the_terminal_or_forge_lines() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat\u{1b}[2J", "dog\nforged 100.00 %", "e\u{202e}f"]);
    let folder = Folder::new(&["x"], &[1]);
    folder.write("x/\u{1b}[31m\n.jpg", "IMG 1");
    for args in [
        &["caches", "show", "c"][..],
        &["caches", "examples", "c"],
        &["classify", "c", folder.str(), "--neighbours", "2"],
        &["evaluate", "c", "--from", folder.str()],
    ] {
        let ran = tipserve(&fake, args);
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{args:?}: {ran:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("forged")),
                "{args:?}: {ran:?}"
            );
        }
    }
}
