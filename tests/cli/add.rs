//! `tipserve add`, and what `create` says about a version.

use std::collections::BTreeMap;

use crate::{
    fake::Fake,
    npz,
    run::{Folder, command, tipserve},
};

fn with_base() -> Fake {
    let fake = Fake::start();
    fake.add_cache("pets", &["cat", "big dog"]);
    fake
}

/// Ids and classes of the examples that arrived, by whether they validate.
fn arrived(fake: &Fake, validation: bool) -> BTreeMap<String, i32> {
    let state = fake.state();
    let some = state
        .examples
        .iter()
        .filter(|it| it.validation == validation);
    some.map(|it| (it.example_id.clone(), it.class_index))
        .collect()
}

#[test]
fn examples_get_another_class_by_any_form_of_its_name() {
    let fake = with_base();
    let args = [
        "add",
        "pets",
        "--relabel",
        "a=b/1.jpg=big_dog",
        "--relabel",
        "2=lynx",
        "--relabel",
        "3=lynx",
        "--relabel",
        "4=cat",
    ];
    tipserve(&fake, &args).expect(0);
    {
        let state = fake.state();
        let spec = &state.additions[0];
        let new: Vec<_> = spec.new_classes.iter().map(|it| &it.display_name).collect();
        assert_eq!(new, ["lynx"]);
        let relabel: Vec<_> = spec
            .relabel
            .iter()
            .map(|it| {
                (
                    it.example_id.as_str(),
                    it.class_index,
                    it.class_name.as_str(),
                )
            })
            .collect();
        let expected = [
            ("a=b/1.jpg", 1, ""),
            ("2", 2, ""),
            ("3", 2, ""),
            ("4", 0, ""),
        ];
        assert_eq!(relabel, expected);
    }
    let ran = tipserve(
        &fake,
        &["add", "pets", "--relabel", "1=puma", "--no-new-classes"],
    );
    assert!(ran.expect(1).stderr.contains("has no class \"puma\""));
    for wrong in ["cat", "=cat", "1="] {
        let ran = tipserve(&fake, &["add", "pets", "--relabel", wrong]).expect(2);
        assert!(ran.stderr.contains("expected ID=CLASS"), "{}", ran.stderr);
    }
}

#[test]
fn folders_go_to_classes_of_their_name_or_become_new_ones() {
    let fake = with_base();
    let folder = Folder::new(&["ant", "big_dog", "zebra"], &[1, 2, 1]);
    folder.write("ant/broken.jpg", "just text");
    let ran = tipserve(
        &fake,
        &[
            "add",
            "pets",
            "--from",
            folder.str(),
            "--remove",
            "x/1.jpg",
            "--remove",
            "x/2.jpg",
            "--template",
            "one {}.",
            "--json",
        ],
    )
    .expect(4);
    let made = ran.json();
    assert_eq!(made["version"]["name"], "caches/pets/versions/2");
    assert_eq!(made["version"]["parent"], "caches/pets/versions/1");
    assert_eq!(made["version"]["source"]["removed"], 2);
    assert_eq!(made["rejected"][0]["id"], "ant/broken.jpg");
    assert_eq!(made["example_count"], 5);
    {
        let state = fake.state();
        let spec = &state.additions[0];
        // By its number, whatever the name was.
        assert_eq!(spec.base, "caches/pets/versions/1");
        let new: Vec<_> = spec.new_classes.iter().map(|it| &it.display_name).collect();
        assert_eq!(new, ["ant", "zebra"]);
        assert_eq!(spec.remove_example_ids, ["x/1.jpg", "x/2.jpg"]);
        assert_eq!(spec.prompt_templates, ["one {}."]);
        assert_eq!((spec.method, spec.seed), (0, 1));
        assert!(!state.caches["pets"].is_empty());
    }
    let expected = [
        ("ant/000.jpg", 2),
        ("big_dog/000.jpg", 1),
        ("big_dog/001.jpg", 1),
        ("zebra/000.jpg", 3),
    ];
    let expected = expected.map(|(id, class)| (id.to_owned(), class));
    assert_eq!(arrived(&fake, false), BTreeMap::from(expected));

    let args = ["add", "pets@1", "--from", folder.str(), "--no-new-classes"];
    let ran = tipserve(&fake, &args).expect(1);
    assert!(
        ran.stderr.contains("\"ant\"") && ran.stderr.contains("pets@1"),
        "{ran:?}"
    );
    let known = Folder::new(&["cat"], &[1]);
    let args = ["add", "pets@1", "--from", known.str(), "--no-new-classes"];
    let ran = tipserve(&fake, &args).expect(0);
    assert!(
        ran.stdout
            .contains("from caches/pets/versions/1: 32 examples taken over, 1 received"),
        "{ran:?}"
    );
    tipserve(&fake, &["add", "nope", "--from", known.str()]).expect(3);
    tipserve(&fake, &["add", "pets"]).expect(2);
}

#[test]
fn examples_are_removed_by_id_alone() {
    let fake = with_base();
    let folder = Folder::new(&[], &[]);
    let list = folder.write("gone.txt", "a/1.jpg\n\na b/2.jpg\n");
    let args = ["add", "pets", "--remove-file", list.to_str().unwrap()];
    tipserve(&fake, &[&args[..], &["--remove", "c"]].concat()).expect(0);
    let spec = fake.state().additions[0].clone();
    assert_eq!(spec.remove_example_ids, ["c", "a/1.jpg", "a b/2.jpg"]);
    assert!(spec.new_classes.is_empty() && fake.state().examples.is_empty());
    tipserve(&fake, &["add", "pets", "--remove-file", "/no/such"]).expect(3);
}

#[test]
fn shots_validation_and_prefixes() {
    let fake = with_base();
    let folder = Folder::new(&["cat", "new"], &[9, 9]);
    let other = Folder::new(&["new", "big_dog"], &[1, 1]);
    let args = [
        "add",
        "pets",
        "--from",
        folder.str(),
        "--shots",
        "2",
        "--validation",
        other.str(),
        "--id-prefix",
        "may/",
    ];
    tipserve(&fake, &args).expect(0);
    let train = arrived(&fake, false);
    assert_eq!(train.values().collect::<Vec<_>>(), [&0, &0, &2, &2]);
    assert!(train.keys().all(|id| id.starts_with("may/")), "{train:?}");
    let expected = [
        ("validation/may/big_dog/000.jpg", 1),
        ("validation/may/new/000.jpg", 2),
    ];
    let expected = expected.map(|(id, class)| (id.to_owned(), class));
    assert_eq!(arrived(&fake, true), BTreeMap::from(expected));
    // Validation examples alone.
    fake.state().examples.clear();
    let known = Folder::new(&["cat"], &[2]);
    tipserve(&fake, &["add", "pets@1", "--validation", known.str()]).expect(0);
    assert_eq!(arrived(&fake, true).len(), 2);
    let empty = Folder::new(&["cat", "hollow"], &[1, 0]);
    let ran = tipserve(&fake, &["add", "pets", "--from", empty.str()]).expect(1);
    assert!(ran.stderr.contains("\"hollow\""), "{ran:?}");
}

/// Rows count from 0 in every file; their ids must not collide.
#[test]
fn rows_of_two_files_keep_apart() {
    let fake = with_base();
    let folder = Folder::new(&[], &[]);
    let path = folder.path().join("more.npz");
    npz::rows_of(&path, "owl");
    let args = ["add", "pets@1", "--from", path.to_str().unwrap()];
    tipserve(&fake, &args).expect(0);
    let rows = (0..4).map(|row| (format!("more/{row}"), 2));
    assert_eq!(arrived(&fake, false), rows.collect());
    let weighs = |at: usize| {
        let class = &fake.state().additions[at].new_classes[0];
        class.text_weight.is_some()
    };
    assert!(weighs(0));
    tipserve(&fake, &[&args[..], &["--without-text"]].concat()).expect(0);
    assert!(!weighs(1));
}

#[test]
fn who_made_it_is_the_login_name_unless_said() {
    let fake = with_base();
    let folder = Folder::new(&["cat"], &[1]);
    let create = ["create", "c", "--from", folder.str()];
    let made_by = |args: &[&str], user: Option<&str>| {
        let mut command = command(&fake, args);
        command.env_remove("LOGNAME").env_remove("USER");
        if let Some(user) = user {
            command.env("USER", user);
        }
        assert!(command.output().unwrap().status.success());
        fake.state().specs.last().unwrap().created_by.clone()
    };
    assert_eq!(made_by(&create, Some("ada")), "ada");
    assert_eq!(made_by(&create, None), "");
    let said = [&create[..], &["--created-by", "the night job"]].concat();
    assert_eq!(made_by(&said, Some("ada")), "the night job");
    let args = ["add", "pets", "--from", folder.str(), "--created-by", "bob"];
    let args = [&args[..], &["--label", "a=b", "--description", "more"]].concat();
    tipserve(&fake, &args).expect(0);
    let spec = fake.state().additions[0].clone();
    assert_eq!(
        (spec.created_by.as_str(), spec.description.as_str()),
        ("bob", "more")
    );
    assert_eq!(spec.labels["a"], "b");
}
