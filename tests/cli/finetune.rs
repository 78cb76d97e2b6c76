//! `tipserve finetune` and `tipserve finetunes`.

use std::process::{Command, Stdio};

use crate::{
    fake::{Behaviour, Fake},
    run::{Ran, command, tipserve},
};

#[test]
fn a_run_to_its_end() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let args = [
        "finetune",
        "c@1",
        "--epochs",
        "9",
        "--lr",
        "0.002",
        "--alias",
        "stable",
        "--only-if-improved",
        "--json",
    ];
    let out = tipserve(&fake, &args).expect(0).json();
    assert_eq!(out["state"], "succeeded");
    assert_eq!(out["version"]["name"], "caches/c/versions/2");
    assert_eq!(out["version"]["head"]["method"], "tip_adapter_f");
    assert_eq!(out["version"]["fine_tune"]["best_epoch"], 7);
    assert_eq!(out["alias_moved"], true);
    {
        let state = fake.state();
        let request = &state.fine_tunes[0];
        assert_eq!((request.epochs, request.learning_rate), (9, Some(0.002)));
        assert!(request.only_if_improved && !request.detached);
        assert_eq!(
            (request.move_alias.as_str(), request.weight_decay),
            ("stable", None)
        );
    }
    let ran = tipserve(&fake, &["finetune", "c"]).expect(0);
    assert!(
        ran.stdout.contains("made c@3 from caches/c/versions/2"),
        "{ran:?}"
    );
    assert!(
        ran.stdout
            .contains("50.00 % before, 75.00 % after (on held back views)"),
        "{ran:?}"
    );
    tipserve(&fake, &["finetune", "nope"]).expect(3);
    tipserve(&fake, &["finetune", "c", "--only-if-improved"]).expect(2);
}

#[test]
fn interrupting_cancels_the_run() {
    for signal in ["-INT", "-TERM"] {
        let fake = Fake::with(Behaviour {
            endless_training: true,
            ..Behaviour::default()
        });
        fake.add_cache("c", &["cat", "dog"]);
        let child = command(&fake, &["finetune", "c"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        fake.wait_for_training();
        assert!(
            Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let ran = Ran::of(child.wait_with_output().unwrap()).expect(130);
        assert!(ran.stderr.contains("cancelled fineTunes/7"), "{ran:?}");
        assert_eq!(fake.state().cancelled, ["fineTunes/7"]);
    }
}

#[test]
fn detached_runs_are_looked_at_by_name() {
    let fake = Fake::with(Behaviour {
        endless_training: true,
        ..Behaviour::default()
    });
    fake.add_cache("c", &["cat", "dog"]);
    let ran = tipserve(&fake, &["finetune", "c", "--detached"]).expect(0);
    assert_eq!(ran.stdout, "started fineTunes/7\n");
    assert!(fake.state().fine_tunes[0].detached);
    let out = tipserve(&fake, &["finetunes", "list", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["finetunes"][0]["name"], "fineTunes/7");
    for name in ["7", "fineTunes/7"] {
        let out = tipserve(&fake, &["finetunes", "show", name, "--json"])
            .expect(0)
            .json();
        assert_eq!(out["state"], "running");
    }
    tipserve(&fake, &["finetunes", "show", "8"]).expect(3);
    let out = tipserve(&fake, &["finetunes", "cancel", "7", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["state"], "cancelled");
    assert_eq!(fake.state().cancelled, ["fineTunes/7"]);
}
