//! Export and import, and what Python's safetensors sees.

use std::{io::Write as _, process::Command};

use tipserve_store::{Dtype, Store, StoreError, TensorFile, TextColumn};

use crate::sample::{self, draft, id, number};

#[tokio::test]
async fn a_version_moves_between_stores_in_one_file() {
    let (here, there) = (
        tempfile::tempdir().expect("a"),
        tempfile::tempdir().expect("b"),
    );
    let (from, to) = (
        sample::local(here.path()).await,
        sample::local(there.path()).await,
    );
    let seed = sample::fresh_seed();
    from.create_version(&id("x"), draft(seed))
        .await
        .expect("made");
    let export = from.export(&id("x"), number(1)).await.expect("exports");
    let file: Vec<u8> = export.chunks(1000).flatten().collect();
    assert_eq!(file.len() as u64, export.size);

    let made = to
        .import(&id("y"), file.clone().into())
        .await
        .expect("imports");
    assert_eq!((made.cache.as_str(), made.version), ("y", number(1)));
    assert_eq!(sample::load_whole(&to, &id("y"), number(1)).await, Ok(seed));
    to.import(&id("y"), file.clone().into())
        .await
        .expect("again");
    assert_eq!(to.latest(&id("y")).await, Ok(number(2)));

    for at in (0..60).map(|_| rand::random_range(0..file.len())) {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << rand::random_range(0..8);
        for bad in [flipped, file[..at].to_vec()] {
            let error = to
                .import(&id("bad"), bad.into())
                .await
                .expect_err("damaged");
            let refused = matches!(error, StoreError::InvalidDraft { .. });
            assert!(refused, "byte {at}: {error}");
        }
    }
    assert!(to.latest(&id("bad")).await.is_err());
}

#[tokio::test]
async fn a_file_of_many_tensors_is_refused() {
    let entries: Vec<String> = (0..100_000)
        .map(|i| format!(r#""t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    for (count, words) in [(256, "not an export"), (100_000, "more than 256 tensors")] {
        let header = format!("{{{}}}", entries[..count].join(","));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        let error = Store::read_export(file.into()).await.expect_err("refused");
        assert!(matches!(error, StoreError::InvalidDraft { .. }), "{error}");
        assert!(error.to_string().contains(words), "{count}: {error}");
    }
}

#[tokio::test]
async fn python_opens_versions_and_exports() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let seed = sample::fresh_seed();
    let made = store
        .create_version(&id("x"), draft(seed))
        .await
        .expect("made");
    let export = store.export(&id("x"), number(1)).await.expect("exports");
    let exported = folder.path().join("export.safetensors");
    let mut out = std::fs::File::create(&exported).expect("made");
    for chunk in export.chunks(1 << 16) {
        out.write_all(&chunk).expect("written");
    }
    let version = folder.path().join("caches/x/versions/00000001");
    let script = r#"
import hashlib, json, re, sys
from safetensors import safe_open
folder, exported = sys.argv[1:]
text = open(folder + "/manifest.json", "rb").read()
manifest = json.loads(text)
end = text.rindex(b',\n  "checksum"')
assert hashlib.sha256(text[:end]).hexdigest() == manifest["checksum"]
record = manifest["tensors"]
file = folder + "/" + record["name"]
assert hashlib.sha256(open(file, "rb").read()).hexdigest() == record["sha256"]
for path in (file, exported):
    with safe_open(path, "np") as f:
        m, d, n = manifest["key_count"], manifest["width"], len(manifest["classes"])
        keys = f.get_tensor("keys")
        assert keys.shape == (m, d) and keys.dtype == "float32"
        assert f.get_tensor("labels").shape == (m,)
        assert f.get_tensor("labels").dtype == "int64"
        assert f.get_tensor("text").shape == (n, d)
        assert f.get_tensor("views").shape == (m, manifest["views"], d)
        assert f.get_tensor("views").dtype == "float16"
        at = f.get_tensor("example_ids.offsets")
        ids = f.get_tensor("example_ids.bytes").tobytes()
        ids = [ids[a:b].decode() for a, b in zip(at, at[1:])]
        assert ids == [f"p\u0159\u00edklad/{i}.jpg" for i in range(m)], ids
with safe_open(exported, "np") as f:
    assert json.loads(f.metadata()["tipserve.manifest"]) == manifest
    print(hashlib.sha256(f.get_tensor("keys").tobytes()).hexdigest())
"#;
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let ready = Command::new(&python)
        .args(["-c", "import safetensors, numpy"])
        .output();
    if !ready.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: {python} has no safetensors and numpy");
        return;
    }
    let done = Command::new(&python)
        .args(["-c", script])
        .args([&version, &exported])
        .output()
        .expect("runs");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    let (_, file) = store.load(&id("x"), made.version).await.expect("loads");
    let keys = file.get("keys").expect("there").bytes;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(keys);
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), hex);
}

#[tokio::test]
async fn a_column_holds_a_million_ids() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let mut large = draft(3);
    large.tensors.retain(|t| !t.name.starts_with("example_ids"));
    let ids = (0..1_000_000).map(|i| format!("{i}"));
    large.tensors.extend(TextColumn::encode("example_ids", ids));
    store.create_version(&id("x"), large).await.expect("made");
    let (_, file) = store.load(&id("x"), number(1)).await.expect("loads");
    let column = TextColumn::read(&file, "example_ids")
        .expect("fits")
        .expect("there");
    assert_eq!(column.len(), 1_000_000);
    let i = rand::random_range(0..1_000_000);
    assert_eq!(column.get(i), Some(i.to_string().as_str()));
    assert_eq!(column.get(1_000_000), None);
    assert_eq!(column.iter().count(), 1_000_000);
    assert!(TextColumn::read(&file, "other").expect("fits").is_none());
}

#[test]
fn a_column_that_does_not_fit_is_refused() {
    use safetensors::tensor::{TensorView, serialize};
    let column = |text: &[u8], offsets: &[i64]| {
        let raw: Vec<u8> = offsets.iter().flat_map(|o| o.to_le_bytes()).collect();
        let text = TensorView::new(Dtype::U8, vec![text.len()], text).expect("a tensor");
        let index = TensorView::new(Dtype::I64, vec![offsets.len()], &raw).expect("a tensor");
        let file = serialize([("c.bytes", text), ("c.offsets", index)], None).expect("a file");
        let file = TensorFile::parse(file.into()).expect("parses");
        TextColumn::read(&file, "c").map(|c| c.map_or(0, |c| c.len()))
    };
    assert_eq!(column(b"abc", &[0, 1, 3]), Ok(2));
    assert_eq!(column(b"", &[0]), Ok(0));
    for offsets in [
        &[][..],
        &[1, 3],
        &[0, 4],
        &[0, 2, 1, 3],
        &[0, -1, 3],
        &[0, 1],
        &[0, i64::MAX],
    ] {
        assert!(column(b"abc", offsets).is_err(), "{offsets:?}");
    }
    assert!(column("é".as_bytes(), &[0, 1, 2]).is_err(), "half a letter");
}

/// Large enough to be mapped rather than read.
#[tokio::test]
async fn a_large_version_is_mapped_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let mut large = draft(7);
    let bytes: Vec<u8> = (0..40_000 * 128 * 4_usize)
        .map(|i| ((i * 31) >> 7) as u8)
        .collect();
    large.tensors[0].shape = vec![40_000, 128];
    large.tensors[0].bytes = bytes.clone().into();
    let made = store.create_version(&id("x"), large).await.expect("made");
    let (_, file) = store.load(&id("x"), made.version).await.expect("loads");
    store.delete_cache(&id("x"), None).await.expect("deleted");
    assert!(
        file.get("keys").expect("there").bytes == bytes,
        "whole after its deletion"
    );
}

/// How long loading takes: run with --ignored --nocapture.
#[tokio::test]
#[ignore = "a measurement"]
async fn seconds_per_gigabyte() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    for megabytes in [64, 256, 1024_usize] {
        let mut large = draft(7);
        large.tensors[0].shape = vec![megabytes << 11, 128];
        large.tensors[0].bytes = vec![7; megabytes << 20].into();
        let begun = std::time::Instant::now();
        let made = store.create_version(&id("x"), large).await.expect("made");
        let write = begun.elapsed().as_secs_f64();
        let mut load = Vec::new();
        for _ in 0..5 {
            let begun = std::time::Instant::now();
            store.load(&id("x"), made.version).await.expect("loads");
            load.push(begun.elapsed().as_secs_f64());
        }
        load.sort_by(f64::total_cmp);
        println!(
            "{megabytes} MiB: written in {write:.2} s, loaded in {:.3} s (median of 5)",
            load[2]
        );
    }
}
