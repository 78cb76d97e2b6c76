//! `tipserve classify` and `tipserve embed`.

use std::{io::Write as _, process::Stdio};

use crate::{
    fake::{Behaviour, Fake},
    run::{Folder, Ran, command, tipserve},
};

#[test]
fn lines_in_the_order_of_the_files_with_failures_in_their_place() {
    let fake = Fake::with(Behaviour {
        shuffle: true,
        ..Behaviour::default()
    });
    fake.add_cache("c", &["cat", "dog", "cow"]);
    let folder = Folder::new(&["x"], &[5]);
    folder.write("x/001.jpg", "IMG 1");
    folder.write("x/002.jpg", "no picture");
    let missing = folder.path().join("missing.jpg");
    let paths = [
        "x/000.jpg",
        "x/001.jpg",
        "x/002.jpg",
        "x/003.jpg",
        "x/001.jpg",
    ]
    .map(|name| folder.path().join(name));
    let mut args = vec![
        "classify",
        "c@1",
        "--json",
        "--top-k",
        "2",
        "--neighbours",
        "3",
        "--logits",
    ];
    args.extend(paths[..2].iter().map(|path| path.to_str().unwrap()));
    args.push(missing.to_str().unwrap());
    args.extend(paths[2..].iter().map(|path| path.to_str().unwrap()));
    let ran = tipserve(&fake, &args).expect(4);
    let lines = ran.json_lines();
    let names: Vec<_> = lines
        .iter()
        .map(|line| {
            line["id"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        names,
        [
            "000.jpg",
            "001.jpg",
            "missing.jpg",
            "002.jpg",
            "003.jpg",
            "001.jpg"
        ]
    );
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], index);
    }
    assert_eq!(lines[0]["version"], "caches/c/versions/1");
    assert_eq!(lines[1]["top"][0]["display_name"], "dog");
    assert_eq!(lines[1]["top"][0]["index"], 1);
    assert_eq!(lines[1]["top"].as_array().unwrap().len(), 2);
    assert_eq!(lines[1]["logits"].as_array().unwrap().len(), 3);
    assert_eq!(lines[1]["neighbours"].as_array().unwrap().len(), 3);
    assert_eq!(lines[1]["neighbours"][0]["example_id"], "key/0.jpg");
    assert!(lines[1].get("probabilities").is_none() && lines[1].get("error").is_none());
    assert_eq!(lines[2]["error"]["reason"], "FILE_UNREADABLE");
    assert_eq!(lines[2]["error"]["code"], "NOT_FOUND");
    assert_eq!(lines[3]["error"]["code"], "INVALID_ARGUMENT");
    assert!(lines[3].get("top").is_none());
    let config = &fake.state().configs[0];
    assert!(config.ordered && config.cache == "c@1");
}

#[test]
fn text_shows_classes_and_neighbours() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let folder = Folder::new(&["x", "y"], &[1, 1]);
    folder.write("y/\u{1b}[31m.jpg", "IMG 1");
    let ran = tipserve(&fake, &["classify", "c", folder.str(), "--neighbours", "1"]).expect(0);
    let block = "x/000.jpg\n   1  cat    90.00 %  logit 10.000\n   2  dog    10.00 %  logit 1.000\n  near  key/0.jpg  (cat, similarity 0.9900)";
    assert!(ran.stdout.contains(block), "{}", ran.stdout);
    assert!(
        !ran.stdout.contains('\u{1b}'),
        "a file's name commands the terminal"
    );
}

#[test]
fn the_window_bounds_what_is_on_its_way() {
    for order in ["--ordered", "--unordered"] {
        let fake = Fake::with(Behaviour {
            shuffle: true,
            ..Behaviour::default()
        });
        fake.add_cache("c", &["cat", "dog"]);
        let folder = Folder::new(&["x", "y"], &[200, 100]);
        let args = [
            "classify",
            "c",
            folder.str(),
            "--in-flight",
            "8",
            "--json",
            order,
        ];
        let mut lines = tipserve(&fake, &args).expect(0).json_lines();
        assert_eq!(lines.len(), 300);
        assert!(fake.most_outstanding() <= 8, "{}", fake.most_outstanding());
        lines.sort_by_key(|line| line["index"].as_u64());
        for line in &lines {
            let class = if line["id"].as_str().unwrap().contains("/x/") {
                "cat"
            } else {
                "dog"
            };
            assert_eq!(line["top"][0]["display_name"], class);
        }
        assert_eq!(fake.state().configs[0].ordered, order == "--ordered");
    }
}

#[test]
fn a_list_on_standard_input_is_answered_as_it_comes() {
    use std::io::{BufRead as _, BufReader};
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let folder = Folder::new(&["x"], &[2]);
    let mut child = command(&fake, &["classify", "c", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // The second name is given only once the first has been answered.
    for name in ["000.jpg", "001.jpg"] {
        writeln!(stdin, "{}/x/{name}", folder.str()).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains(name) && line.contains("cat"), "{line}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let folder = Folder::new(&["x"], &[500]);
    let mut child = command(&fake, &["classify", "c", folder.str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.stderr, "");
}

#[test]
fn nothing_to_classify() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let folder = Folder::new(&["x"], &[0]);
    let ran = tipserve(&fake, &["classify", "c", folder.str()]).expect(1);
    assert!(ran.stderr.contains("no file to classify"), "{ran:?}");
    tipserve(&fake, &["classify", "c"]).expect(2);
    tipserve(&fake, &["classify", "nope", folder.str()]).expect(3);
    tipserve(&fake, &["classify", "c@9", folder.str()]).expect(3);
}

#[test]
fn embeddings_as_json() {
    let fake = Fake::start();
    let folder = Folder::new(&["x", "y"], &[1, 1]);
    folder.write("y/z.jpg", "no picture");
    let ran = tipserve(
        &fake,
        &["embed", folder.str(), "--text", "abc", "--text", "de"],
    )
    .expect(4);
    let out = ran.json();
    assert_eq!(out["inputs"].as_array().unwrap().len(), 3);
    assert_eq!(out["inputs"][1]["embedding"][1], 1.0);
    assert!(
        out["inputs"][2]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no picture")
    );
    assert_eq!(out["texts"][0]["id"], "abc");
    assert_eq!(out["texts"][0]["embedding"][3], 1.0);
    assert_eq!(out["texts"][1]["embedding"][2], 1.0);
    let out = tipserve(&fake, &["embed", "--text", "a"]).expect(0).json();
    assert_eq!(out["inputs"].as_array().unwrap().len(), 0);
    tipserve(&fake, &["embed"]).expect(2);
}
