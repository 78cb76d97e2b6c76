//! `--from FILE.npz`: invalid files are refused, and the error names the array.

use zip::CompressionMethod;

use crate::{
    fake::Fake,
    npz::{archive, classes, features, labels, names, npy, path},
    run::{Folder, tipserve},
};

type Arrays = Vec<(&'static str, Vec<u8>)>;

/// The arrays of a valid file, but for one that is missing.
fn without(missing: &str) -> Arrays {
    let whole = [
        ("features", features()),
        ("labels", labels()),
        ("classes", classes()),
    ];
    (whole.into_iter())
        .filter(|(name, _)| *name != missing)
        .collect()
}

/// The arrays of a valid file, but for this one.
fn with(name: &'static str, array: Vec<u8>) -> Arrays {
    let mut arrays = without(name);
    arrays.push((name, array));
    arrays
}

/// What the error says, and the file that it is about.
fn invalid_files() -> Vec<(&'static str, Arrays)> {
    let five: Vec<u8> = [0_i64, 1, 5, 0]
        .iter()
        .flat_map(|label| label.to_le_bytes())
        .collect();
    vec![
        (
            "labels is missing (arrays in the file: classes, features)",
            without("labels"),
        ),
        ("features is missing", without("features")),
        (
            "labels holds 5 at position 2, but classes has 2 names",
            with("labels", npy("<i8", false, "(4,)", &five)),
        ),
        (
            "labels holds -1",
            with("labels", npy("|i1", false, "(4,)", &[0, 1, 0xff, 0])),
        ),
        (
            "labels has 2 values, but features has 4 rows",
            with("labels", npy("|u1", false, "(2,)", &[0, 1])),
        ),
        (
            "labels has dtype",
            with("labels", npy("<f4", false, "(4,)", &[0; 16])),
        ),
        (
            "features has shape [12]",
            with("features", npy("<f4", false, "(12,)", &[0; 48])),
        ),
        (
            "features has dtype",
            with("features", npy("<i4", false, "(4, 3)", &[0; 48])),
        ),
        (
            "classes holds Python objects",
            with("classes", npy("|O", false, "(2,)", b"pickle")),
        ),
        ("classes has dtype", with("classes", labels())),
        ("classes is empty", with("classes", names("<U5", 5, &[]))),
        (
            "classes has no name at position 1",
            with("classes", names("<U5", 5, &["cat", " "])),
        ),
        (
            "text_weights has shape [1, 3]",
            with("text_weights", npy("<f4", false, "(1, 3)", &[0; 12])),
        ),
        (
            "features cannot be read",
            with("features", features()[..130].to_vec()),
        ),
        (
            "features cannot be read",
            with("features", npy("<f4", false, "(4, 3)", &[0; 40])),
        ),
    ]
}

#[test]
fn wrong_files_are_named_with_the_array() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let path = path(&folder);
    let create = ["create", "c", "--from", path.to_str().unwrap()];
    for (says, arrays) in invalid_files() {
        archive(&path, CompressionMethod::Deflated, &arrays);
        let ran = tipserve(&fake, &create).expect(1);
        assert!(
            ran.stderr.contains(says) && ran.stderr.contains("x.npz"),
            "{says}: {}",
            ran.stderr
        );
    }
    std::fs::write(&path, "no zip").unwrap();
    let ran = tipserve(&fake, &create).expect(1);
    assert!(ran.stderr.contains("not an .npz file"), "{ran:?}");
    // None of them created a cache, not even the one that ended within its
    // rows.
    assert!(fake.state().caches.is_empty());
}

/// NumPy's own files, if there is a NumPy.
#[test]
fn values_that_would_be_cast_are_refused() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let path = folder.path().join("X.NPZ");
    for (says, arrays) in [
        (
            "the array labels has dtype '<f8', not whole numbers",
            [features(), npy("<f8", false, "(4,)", &[0; 32]), classes()],
        ),
        (
            "the array labels has dtype '|b1', not whole numbers",
            [features(), npy("|b1", false, "(4,)", &[0; 4]), classes()],
        ),
        (
            "the array labels has dtype '<U1', not whole numbers",
            [features(), npy("<U1", false, "(4,)", &[0; 16]), classes()],
        ),
        (
            "the array labels has shape [4, 2], not [M]",
            [features(), npy("<i8", false, "(4, 2)", &[0; 64]), classes()],
        ),
        (
            "the array features has dtype '<c8', not float16, float32 or float64",
            [npy("<c8", false, "(4, 3)", &[0; 96]), labels(), classes()],
        ),
        (
            "the array classes has dtype '<i8', not strings",
            [features(), labels(), npy("<i8", false, "(2,)", &[0; 16])],
        ),
        (
            "the array classes holds bytes that are not UTF-8",
            [
                features(),
                labels(),
                npy("|S3", false, "(2,)", b"caf\xe9\0\0"),
            ],
        ),
        (
            "the array classes has a name at position 1 that holds the control character U+000A",
            [features(), labels(), names("<U3", 3, &["a", "b\nc"])],
        ),
    ] {
        let arrays: Vec<_> = ["features", "labels", "classes"]
            .into_iter()
            .zip(arrays)
            .collect();
        archive(&path, CompressionMethod::Deflated, &arrays);
        let ran = tipserve(&fake, &["create", "c", "--from", path.to_str().unwrap()]).expect(1);
        assert!(
            ran.stderr.contains(says) && ran.stderr.contains("X.NPZ"),
            "{says}: {}",
            ran.stderr
        );
    }
    assert!(fake.state().caches.is_empty());
}

/// A zip archive has a checksum of each array: numbers that were damaged are numbers all the same.
#[test]
fn damaged_numbers_are_refused() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let path = path(&folder);
    let arrays = [
        ("features", features()),
        ("labels", labels()),
        ("classes", classes()),
    ];
    for (array, data) in &arrays {
        archive(&path, CompressionMethod::Stored, &arrays);
        let mut file = std::fs::read(&path).unwrap();
        let at = file
            .windows(data.len())
            .position(|window| window == data.as_slice())
            .unwrap();
        // The last number's lowest byte: another number, and nothing else is wrong.
        let last = at + data.len() - if *array == "features" { 4 } else { 8 };
        file[last] ^= 1;
        std::fs::write(&path, file).unwrap();
        let ran = tipserve(&fake, &["create", "c", "--from", path.to_str().unwrap()]).expect(1);
        let says = format!("the array {array} cannot be read: Invalid checksum");
        assert!(ran.stderr.contains(&says), "{says}: {}", ran.stderr);
        assert!(fake.state().caches.is_empty());
    }
}
