//! Kept samples: every older format reads, a newer one is refused and says so.

use std::{fs, path::Path};

use sha2::{Digest as _, Sha256};
use tipserve_store::{Dtype, StoreError, TextColumn};

use crate::sample::{self, id, number};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("lists") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

fn kept(format: u32) -> tempfile::TempDir {
    let samples =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/store/samples");
    let folder = tempfile::tempdir().expect("a folder");
    copy(&samples.join(format!("format-{format}")), folder.path());
    folder
}

/// Changes a file's format and seals it again, as a newer tipserve would.
fn make_newer(file: &Path) {
    let text = fs::read_to_string(file).expect("reads");
    let (body, _) = text.split_once(",\n  \"checksum\"").expect("sealed");
    let body = body.replacen("\"format\": 1,", "\"format\": 2,\n  \"novelty\": true,", 1);
    let digest = Sha256::digest(&body);
    let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    fs::write(file, format!("{body},\n  \"checksum\": \"{digest}\"\n}}\n")).expect("written");
}

#[tokio::test]
async fn format_1_reads() {
    let folder = kept(1);
    let store = sample::local(folder.path()).await;
    let at = store
        .resolve(&"kept@stable".parse().expect("a reference"))
        .await;
    assert_eq!(at.expect("there").1, number(2));
    assert_eq!(store.latest(&id("kept")).await, Ok(number(3)));
    assert!(
        store.load(&id("kept"), number(1)).await.is_err(),
        "was deleted"
    );

    let (manifest, file) = store.load(&id("kept"), number(2)).await.expect("loads");
    assert_eq!(manifest.details.description, "kept sample");
    assert_eq!(manifest.details.classes[1].display_name, "two");
    assert_eq!(manifest.details.head.alpha, 1.5);
    assert_eq!(
        manifest.create_time.to_rfc3339(),
        "2026-01-02T03:04:05+00:00"
    );
    let keys = file.get("keys").expect("there");
    assert_eq!((keys.dtype, keys.shape), (Dtype::F32, &[2, 2][..]));
    let expected: Vec<u8> = [1.0_f32, 0.0, 0.0, 1.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert_eq!(keys.bytes, expected);
    let ids = TextColumn::read(&file, "example_ids")
        .expect("fits")
        .expect("there");
    assert_eq!(ids.iter().collect::<Vec<_>>(), ["one.jpg", "two.jpg"]);

    let made = store
        .create_version(&id("kept"), sample::draft(1))
        .await
        .expect("made");
    assert_eq!(made.version, number(4));
}

#[tokio::test]
async fn a_newer_manifest_is_refused() {
    let folder = kept(1);
    make_newer(
        &folder
            .path()
            .join("caches/kept/versions/00000003/manifest.json"),
    );
    let store = sample::local(folder.path()).await;
    let error = store.load(&id("kept"), number(3)).await.expect_err("newer");
    let expected = StoreError::NewerFormat {
        what: "caches/kept/versions/3".into(),
        found: 2,
        supported: 1,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("upgrade"), "{error}");
    store
        .load(&id("kept"), number(2))
        .await
        .expect("the older one reads");
}

#[tokio::test]
async fn a_newer_state_is_refused() {
    let folder = kept(1);
    make_newer(&folder.path().join("caches/kept/state/00000002.json"));
    let store = sample::local(folder.path()).await;
    let error = store.latest(&id("kept")).await.expect_err("newer");
    assert!(matches!(error, StoreError::NewerFormat { .. }), "{error}");
    let error = store
        .delete_cache(&id("kept"), None)
        .await
        .expect_err("newer");
    assert!(matches!(error, StoreError::NewerFormat { .. }), "{error}");
}

#[tokio::test]
async fn a_format_changed_by_hand_is_named_too() {
    let folder = kept(1);
    let file = folder
        .path()
        .join("caches/kept/versions/00000003/manifest.json");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replace("\"format\": 1", "\"format\": 9")).expect("written");
    let store = sample::local(folder.path()).await;
    let error = store.load(&id("kept"), number(3)).await.expect_err("newer");
    assert!(
        error.to_string().contains("format 9, newer than 1"),
        "{error}"
    );
}
