//! Every help page, as it was last accepted; `INSTA_UPDATE=always` accepts
//! what it is now.

use crate::{fake::Fake, run::command};

/// The pages of the client's commands.
const PAGES: &[&[&str]] = &[
    &[],
    &["create"],
    &["add"],
    &["classify"],
    &["evaluate"],
    &["analyze"],
    &["drift"],
    &["suggest"],
    &["finetune"],
    &["finetunes"],
    &["finetunes", "list"],
    &["finetunes", "show"],
    &["finetunes", "cancel"],
    &["caches"],
    &["caches", "list"],
    &["caches", "show"],
    &["caches", "versions"],
    &["caches", "examples"],
    &["caches", "alias"],
    &["caches", "unalias"],
    &["caches", "rollback"],
    &["caches", "delete"],
    &["caches", "prune"],
    &["caches", "export"],
    &["caches", "import"],
    &["bundles"],
    &["bundles", "list"],
    &["bundles", "load"],
    &["bundles", "unload"],
    &["embed"],
    &["info"],
    &["demo"],
    &["token"],
    &["token", "new"],
    &["completions"],
    &["man"],
    &["pull"],
];

fn help(args: &[&str]) -> String {
    let fake = Fake::start();
    let mut run = command(&fake, args);
    // Help shows variables that are set, and fills the terminal.
    let output = run
        .env_remove("TIPSERVE_SERVER")
        .env("COLUMNS", "100")
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_help_page() {
    for page in PAGES {
        let name = format!("help {}", page.join(" "));
        insta::assert_snapshot!(name.trim_end().replace(' ', "-"), help(page));
    }
}

/// No command is without a snapshot.
#[test]
fn every_command_has_its_page_here() {
    let listed = |args: &[&str]| -> Vec<String> {
        let page = help(args);
        let Some(commands) = page.split("Commands:\n").nth(1) else {
            return Vec::new();
        };
        commands
            .lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .filter(|name| name != "help")
            .collect()
    };
    for command in listed(&[]) {
        assert!(PAGES.contains(&&[command.as_str()][..]), "{command}");
        for sub in listed(&[&command]) {
            assert!(
                PAGES.contains(&&[command.as_str(), &sub][..]),
                "{command} {sub}"
            );
        }
    }
}

#[test]
fn commands_that_call_no_server_neither_show_nor_take_the_clients_flags() {
    for page in [&["completions"][..], &["token"], &["token", "new"]] {
        let page = help(page);
        for flag in ["--server", "--timeout", "--ca ", "--token-file"] {
            assert!(!page.contains(flag), "{flag}: {page}");
        }
    }
    assert!(help(&["token", "new"]).contains("--json"));
    let fake = Fake::start();
    for args in [
        &["--server", "x", "completions", "bash"][..],
        &["completions", "bash", "--server", "x"],
        &[
            "token",
            "new",
            "--name",
            "a",
            "--role",
            "admin",
            "--timeout",
            "3",
        ],
    ] {
        let output = command(&fake, args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("commands that call a server"), "{stderr}");
    }
}
