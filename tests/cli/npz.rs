//! `--from FILE.npz`: every layout that NumPy writes.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tipserve_api::v1::input::Content;
use zip::{CompressionMethod, ZipWriter, write::FileOptions};

use crate::{
    fake::Fake,
    run::{Folder, tipserve},
};

/// An array as NumPy's format writes it.
pub fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(data);
    array
}

pub fn archive(path: &Path, method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, array) in arrays {
        let options = FileOptions::default().compression_method(method);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(array).unwrap();
    }
    zip.finish().unwrap();
}

const ROWS: [[f32; 3]; 4] = [
    [1.0, 0.0, 0.5],
    [0.0, 2.0, 0.0],
    [0.25, 1.0, 0.0],
    [3.0, 0.0, 0.0],
];

pub fn features() -> Vec<u8> {
    npy(
        "<f4",
        false,
        "(4, 3)",
        &ROWS
            .as_flattened()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>(),
    )
}

pub fn labels() -> Vec<u8> {
    npy(
        "<i8",
        false,
        "(4,)",
        &[0_i64, 1, 1, 0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>(),
    )
}

pub fn names(descr: &str, width: usize, names: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    for name in names {
        let mut chars: Vec<u32> = name.chars().map(u32::from).collect();
        chars.resize(width, 0);
        data.extend(chars.iter().flat_map(|c| c.to_le_bytes()));
    }
    npy(descr, false, &format!("({},)", names.len()), &data)
}

pub fn classes() -> Vec<u8> {
    names("<U5", 5, &["naïve", "dog"])
}

pub fn path(folder: &Folder) -> PathBuf {
    folder.path().join("x.npz")
}

/// A file whose rows are all of one class.
pub fn rows_of(path: &Path, class: &str) {
    let arrays = [
        ("features", features()),
        ("labels", npy("<i8", false, "(4,)", &[0; 32])),
        ("classes", names("<U9", 9, &[class])),
        ("text_weights", npy("<f4", false, "(1, 3)", &[1; 12])),
    ];
    archive(path, CompressionMethod::Stored, &arrays);
}

/// What the server got: class names and (class, embedding) of each example.
fn got(fake: &Fake) -> (Vec<String>, Vec<(i32, Vec<f32>)>) {
    let mut state = fake.state();
    let spec = state.specs.pop().unwrap();
    let examples = std::mem::take(&mut state.examples);
    let values = |content| match content {
        Some(Content::Embedding(embedding)) => embedding.values,
        other => panic!("{other:?}"),
    };
    (
        spec.classes
            .into_iter()
            .map(|class| class.display_name)
            .collect(),
        examples
            .into_iter()
            .map(|it| (it.class_index, values(it.input.unwrap().content)))
            .collect(),
    )
}

#[test]
fn every_layout_gives_the_same() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let flat = ROWS.as_flattened();
    let f16: Vec<u8> = flat
        .iter()
        .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
        .collect();
    let f64: Vec<u8> = flat
        .iter()
        .flat_map(|v| f64::from(*v).to_le_bytes())
        .collect();
    let big: Vec<u8> = flat.iter().flat_map(|v| v.to_be_bytes()).collect();
    let columns: Vec<u8> = (0..3)
        .flat_map(|c| ROWS.iter().flat_map(move |row| row[c].to_le_bytes()))
        .collect();
    let bytes = npy("|S6", false, "(2,)", "na\u{ef}vedog\0\0\0".as_bytes());
    for (features, labels, classes) in [
        (features(), labels(), classes()),
        (
            npy("<f2", false, "(4, 3)", &f16),
            npy("|u1", false, "(4,)", &[0, 1, 1, 0]),
            classes(),
        ),
        (npy("<f8", false, "(4, 3)", &f64), labels(), bytes),
        (
            npy(">f4", false, "(4, 3)", &big),
            npy(">i2", false, "(4,)", &[0, 0, 0, 1, 0, 1, 0, 0]),
            classes(),
        ),
        (npy("<f4", true, "(4, 3)", &columns), labels(), classes()),
    ] {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let arrays = [
                ("features", features.clone()),
                ("labels", labels.clone()),
                ("classes", classes.clone()),
            ];
            archive(&path(&folder), method, &arrays);
            let args =
                ["create", "c", "--from", path(&folder).to_str().unwrap()].map(str::to_owned);
            tipserve(&fake, &args.each_ref().map(String::as_str)).expect(0);
            let (names, examples) = got(&fake);
            assert_eq!(names, ["naïve", "dog"]);
            let wanted: Vec<_> = [0, 1, 1, 0]
                .into_iter()
                .zip(ROWS.map(|row| row.to_vec()))
                .collect();
            assert_eq!(examples, wanted);
        }
    }
}

#[test]
fn text_weights_shots_and_classify() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let weights: Vec<u8> = [1_f32, 0., 0., 0., 1., 0.]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    archive(
        &path(&folder),
        CompressionMethod::Deflated,
        &[
            ("features", features()),
            ("labels", labels()),
            ("classes", classes()),
            ("text_weights", npy("<f4", false, "(2, 3)", &weights)),
        ],
    );
    let file = path(&folder);
    let file = file.to_str().unwrap();
    tipserve(&fake, &["create", "c", "--from", file, "--shots", "1"]).expect(0);
    assert_eq!(
        fake.state().specs[0].classes[1]
            .text_weight
            .as_ref()
            .unwrap()
            .values,
        [0.0, 1.0, 0.0]
    );
    let (_, examples) = got(&fake);
    assert_eq!(examples.iter().map(|it| it.0).collect::<Vec<_>>().len(), 2);
    assert!(examples.iter().all(|(class, row)| {
        ROWS.iter()
            .zip([0, 1, 1, 0])
            .any(|(it, label)| it[..] == row[..] && label == *class)
    }));
    tipserve(&fake, &["create", "d", "--from", file, "--without-text"]).expect(0);
    assert!(fake.state().specs[0].classes[0].text_weight.is_none());
    let lines = tipserve(&fake, &["classify", "c", file, "--json"])
        .expect(0)
        .json_lines();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["id"], format!("{file}#1"));
    assert_eq!(lines[1]["top"][0]["display_name"], "dog");
    let out = tipserve(&fake, &["evaluate", "c", "--from", file, "--json"])
        .expect(0)
        .json();
    assert_eq!((&out["top1"], &out["count"]), (&1.0.into(), &4.into()));
}

#[test]
fn repeated_names_are_matched_by_index() {
    let fake = Fake::start();
    fake.add_cache("c", &["crane", "crane", "z"]);
    let folder = Folder::new(&[], &[]);
    archive(
        &path(&folder),
        CompressionMethod::Stored,
        &[
            ("features", features()),
            ("labels", labels()),
            ("classes", names("<U5", 5, &["crane", "crane", "y"])),
        ],
    );
    let args = ["evaluate", "c", "--json", "--from"];
    let ran = tipserve(
        &fake,
        &[&args[..], &[path(&folder).to_str().unwrap()]].concat(),
    )
    .expect(0);
    assert_eq!(ran.json()["matched_by"], "index");
    assert!(ran.stderr.contains("matched by index"), "{ran:?}");
}

#[test]
fn numpy_itself() {
    let folder = Folder::new(&[], &[]);
    let script = "import sys, numpy as np\n\
        np.savez_compressed(sys.argv[1], features=np.eye(3, dtype=np.float16)[[0, 1, 2, 0]],\n\
        labels=np.array([0, 1, 2, 0], dtype=np.uint16), classes=np.array(['a', 'Ωmega 漢', 'c']))";
    let ran = Command::new("python3")
        .args(["-c", script])
        .arg(path(&folder))
        .output();
    if !ran.is_ok_and(|ran| ran.status.success()) {
        eprintln!("skipped: there is no python3 with NumPy on PATH");
        return;
    }
    let fake = Fake::start();
    tipserve(
        &fake,
        &["create", "c", "--from", path(&folder).to_str().unwrap()],
    )
    .expect(0);
    let (names, examples) = got(&fake);
    assert_eq!(names, ["a", "Ωmega 漢", "c"]);
    assert_eq!(examples[2], (2, vec![0.0, 0.0, 1.0]));
    assert_eq!(examples.len(), 4);
}

/// Nothing is cast in silence; the error names the file and the array.
#[test]
fn the_extension_may_be_in_upper_case_and_strings_of_bytes_are_text() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let path = folder.path().join("X.NPZ");
    let bytes = npy("|S6", false, "(2,)", "na\u{ef}vedog\0\0\0".as_bytes());
    let arrays = [
        ("features", features()),
        ("labels", labels()),
        ("classes", bytes),
    ];
    archive(&path, CompressionMethod::Stored, &arrays);
    let path = path.to_str().unwrap();
    tipserve(&fake, &["create", "c", "--from", path]).expect(0);
    assert_eq!(got(&fake).0, ["na\u{ef}ve", "dog"]);
    let lines = tipserve(&fake, &["classify", "c", path, "--json"])
        .expect(0)
        .json_lines();
    assert_eq!(lines.len(), 4);
}
