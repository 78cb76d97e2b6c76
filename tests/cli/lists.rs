//! `--from` a file that lists pictures with the class of each: CSV, TSV, JSON lines, COCO.

use tipserve_api::v1::input::Content;

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

/// What the server got: class names, and each example's id with its class.
type Got = (Vec<String>, Vec<(String, i32)>);

/// A server, and a folder with two pictures in which lists are written.
struct Lists {
    fake: Fake,
    folder: Folder,
}

impl Lists {
    fn new() -> Self {
        let folder = Folder::new(&[], &[]);
        folder.write("0.png", "IMG 0");
        folder.write("1.png", "IMG 1");
        Self {
            fake: Fake::start(),
            folder,
        }
    }

    /// Makes a version of a list.
    fn made(&self, name: &str, text: &str) -> Got {
        let path = self.folder.write(name, text);
        tipserve(
            &self.fake,
            &["create", "c", "--from", path.to_str().unwrap()],
        )
        .expect(0);
        let mut state = self.fake.state();
        let spec = state.specs.pop().unwrap();
        let examples = std::mem::take(&mut state.examples).into_iter();
        (
            spec.classes
                .into_iter()
                .map(|one| one.display_name)
                .collect(),
            examples
                .map(|one| (one.example_id, one.class_index))
                .collect(),
        )
    }

    /// What is said of a list that is refused.
    fn refused(&self, name: &str, text: &str) -> String {
        let path = self.folder.write(name, text);
        let ran = tipserve(
            &self.fake,
            &["create", "c", "--from", path.to_str().unwrap()],
        );
        assert!(self.fake.state().specs.is_empty(), "{text}");
        ran.expect(1).stderr
    }
}

#[test]
fn all_forms_say_the_same() {
    let lists = Lists::new();
    let expected = (
        vec!["a".to_owned(), "b".to_owned()],
        vec![("0.png".to_owned(), 1), ("1.png".to_owned(), 0)],
    );
    let coco = r#"{"images": [{"id": 7, "file_name": "0.png"}, {"id": "k", "file_name": "1.png"}],
        "categories": [{"id": 3, "name": "a"}, {"id": 1, "name": "b"}],
        "annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 7, "category_id": 1},
                        {"image_id": "k", "category_id": 3}]}"#;
    for (name, text) in [
        ("x.csv", "path,label\n0.png,b\n1.png,a\n"),
        (
            "x.CSV",
            "\u{feff}Label, PATH\r\nb,0.png\r\n\r\n a ,1.png\r\n",
        ),
        ("x.csv", "file_name;class\n\"0.png\";b\n1.png;a\n"),
        (
            "x.tsv",
            "image\tcategory\tnote\n0.png\tb\tx, y\n1.png\ta\t\n",
        ),
        (
            "x.jsonl",
            "{\"path\": \"0.png\", \"label\": \"b\"}\n\n{\"label\": \"a\", \"path\": \"1.png\"}",
        ),
        ("x.json", coco),
        ("instances_val2017.JSON", coco),
    ] {
        assert_eq!(lists.made(name, text), expected, "{name}: {text}");
    }
}

#[test]
fn names_in_two_normal_forms_are_one_class() {
    let (names, examples) =
        Lists::new().made("x.csv", "path,label\n0.png,cafe\u{301}\n1.png,caf\u{e9}\n");
    assert_eq!(names, ["caf\u{e9}"]);
    assert_eq!(examples.len(), 2);
}

#[test]
fn rows_have_ids_of_their_own_or_an_embedding() {
    let lists = Lists::new();
    let (_, examples) = lists.made("x.csv", "id,path,label\nfirst,0.png,a\nsecond,1.png,a\n");
    assert_eq!(
        examples,
        [("first".to_owned(), 0), ("second".to_owned(), 0)]
    );
    let text =
        "{\"embedding\": [1, 0.5], \"label\": \"a\"}\n{\"embedding\": [0, 1], \"label\": \"b\"}";
    let path = lists.folder.write("x.jsonl", text);
    tipserve(
        &lists.fake,
        &["create", "c", "--from", path.to_str().unwrap()],
    )
    .expect(0);
    let examples = std::mem::take(&mut lists.fake.state().examples).into_iter();
    let sent: Vec<_> = examples
        .map(|one| match one.input.unwrap().content {
            Some(Content::Embedding(embedding)) => (one.example_id, embedding.values),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        sent,
        [
            ("0".to_owned(), vec![1.0, 0.5]),
            ("1".to_owned(), vec![0.0, 1.0])
        ]
    );
}

#[test]
fn what_would_be_a_guess_is_refused() {
    let lists = Lists::new();
    for (name, text, says) in [
        (
            "x.csv",
            "path,label,class\n0.png,a,x\n",
            "label and class may be the class's",
        ),
        ("x.csv", "path,foo\n0.png,a\n", "none may be the class's"),
        ("x.csv", "0.png,a\n1.png,b\n", "none is a picture's"),
        ("x.csv", "", "of its columns (none)"),
        (
            "x.csv",
            "path,label\n0.png\n",
            "line 2 has another number of columns",
        ),
        ("x.csv", "path,label\n0.png,\n", "line 2 has no class"),
        (
            "x.csv",
            "path,label\n0.png,\"a\nb\"\n",
            "holds the control character U+000A",
        ),
        (
            "x.csv",
            "path,label\ngs://bucket/a.jpg,a\n",
            "is an address of a kind that is not read",
        ),
        (
            "x.jsonl",
            "{\"path\": \"0.png\", \"label\": 1}",
            "line 1: it has the class 1",
        ),
        (
            "x.jsonl",
            "{\"path\": \"0.png\", \"label\": \"a\"}\n{\"path\": \"1.png\"}",
            "line 2: it lacks \"label\"",
        ),
        (
            "x.jsonl",
            "{\"path\": \"0.png\", \"label\": null}",
            "it has no class",
        ),
        ("x.jsonl", "\n", "it has no lines"),
        ("x.json", "{\"images\": []}", "it is no COCO file"),
        (
            "x.json",
            r#"{"images": [{"id": 1, "file_name": "0.png"}], "categories": [],
                "annotations": [{"image_id": 1, "category_id": 9}]}"#,
            "the category 9",
        ),
        (
            "x.json",
            r#"{"images": [{"id": 1, "file_name": "gone.png"}], "categories": [],
                "annotations": []}"#,
            "is not beside it",
        ),
        ("x.parquet", "PAR1", "it cannot be read as Parquet"),
        (
            "x.txt",
            "0.png a\n",
            "or an .npz, .csv, .tsv, .jsonl, .parquet or COCO .json file",
        ),
        (
            "x.zip",
            "PK",
            "or an .npz, .csv, .tsv, .jsonl, .parquet or COCO .json file",
        ),
    ] {
        let error = lists.refused(name, text);
        assert!(error.contains(says), "{text}: {error}");
        assert!(error.contains(name), "{text}: {error}");
    }
}

#[test]
fn a_picture_of_several_categories_is_rejected_by_its_id() {
    let lists = Lists::new();
    let coco = r#"{"images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "1.png"}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 1, "category_id": 2},
                        {"image_id": 2, "category_id": 1}]}"#;
    let path = lists.folder.write("x.json", coco);
    let flags = ["create", "c", "--from", path.to_str().unwrap(), "--json"];
    let made = tipserve(
        &lists.fake,
        &[&flags[..], &["--allow-empty-classes"]].concat(),
    )
    .expect(4);
    let rejected = &made.json()["rejected"];
    assert_eq!(rejected[0]["id"], "0.png", "{rejected}");
    assert_eq!(rejected[0]["reason"], "SEVERAL_CATEGORIES", "{rejected}");
    assert_eq!(lists.fake.state().examples.len(), 1);
}
