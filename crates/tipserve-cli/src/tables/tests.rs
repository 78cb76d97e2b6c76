use super::*;

type Found = (Vec<String>, Vec<(String, Vec<usize>)>);

/// Writes a file, and lists it: class names, and each example's id with its classes.
fn found(name: &str, text: &str) -> Result<Found, String> {
    let folder = tempfile::tempdir().unwrap();
    for picture in ["0.png", "1.png"] {
        std::fs::write(folder.path().join(picture), b"").unwrap();
    }
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let found = open(&path, "--from")
        .unwrap()
        .map_err(|error| error.to_string())?;
    let names = found.class_names().into_iter().map(str::to_owned).collect();
    let examples = found.examples.iter();
    Ok((
        names,
        examples
            .map(|one| (one.id.clone(), one.classes().to_vec()))
            .collect(),
    ))
}

fn two() -> Result<Found, String> {
    Ok((
        vec!["a".to_owned(), "b".to_owned()],
        vec![("0.png".to_owned(), vec![1]), ("1.png".to_owned(), vec![0])],
    ))
}

#[test]
fn all_forms_say_the_same() {
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
    ] {
        assert_eq!(found(name, text), two(), "{name}: {text}");
    }
    let coco = r#"{"images": [{"id": 7, "file_name": "0.png"}, {"id": "k", "file_name": "1.png"}],
        "categories": [{"id": 3, "name": "a"}, {"id": 1, "name": "b"}],
        "annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 7, "category_id": 1},
                        {"image_id": "k", "category_id": 3}]}"#;
    assert_eq!(found("x.json", coco), two());
}

#[test]
fn names_in_two_normal_forms_are_one_class() {
    let (names, examples) =
        found("x.csv", "path,label\n0.png,cafe\u{301}\n1.png,caf\u{e9}\n").unwrap();
    assert_eq!(names, ["caf\u{e9}"]);
    assert_eq!(examples.len(), 2);
}

#[test]
fn ids_and_embeddings() {
    let (_, examples) = found("x.csv", "id,path,label\nfirst,0.png,a\nsecond,1.png,a\n").unwrap();
    assert_eq!(examples[1].0, "second");
    let (_, examples) = found(
        "x.jsonl",
        "{\"embedding\": [1, 0.5], \"label\": \"a\"}\n{\"embedding\": [0, 1], \"label\": [\"a\", \"b\"]}",
    )
    .unwrap();
    assert_eq!(
        examples,
        [("0".to_owned(), vec![0]), ("1".to_owned(), vec![0, 1])]
    );
}

#[test]
fn what_would_be_a_guess_is_refused() {
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
            "path,label\nhttps://x.org/a.jpg,a\n",
            "is an address",
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
        ("x.parquet", "PAR1", "Parquet is read by the Python client"),
    ] {
        let error = found(name, text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_picture_of_several_categories_is_rejected_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0.png"), b"").unwrap();
    let path = folder.path().join("x.json");
    let coco = r#"{"images": [{"id": 1, "file_name": "0.png"}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 1, "category_id": 2}]}"#;
    std::fs::write(&path, coco).unwrap();
    let found = open(&path, "--from").unwrap().unwrap();
    assert!(matches!(
        &found.examples[0].place,
        Place::Unusable { reason: "SEVERAL_CATEGORIES", message } if message.contains("(a, b)")
    ));
}
