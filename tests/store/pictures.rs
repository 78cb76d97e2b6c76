//! Pictures kept with a version: fetched one by one, each checked, and part of
//! all that happens to the version.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tipserve_store::{Draft, PictureColumn, Store, StoreError, TensorFile};

use crate::sample::{self, draft, id, number};

/// What an example's picture is here: random bytes, of a third of them none.
fn pictures(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|i| {
            let size = if i % 3 == 1 {
                0
            } else {
                rng.random_range(1..5000)
            };
            (0..size).map(|_| rng.random()).collect()
        })
        .collect()
}

fn pictured(seed: u64) -> (Draft, Vec<Vec<u8>>) {
    let mut draft = draft(seed);
    let kept = pictures(seed, draft.details.key_count as usize);
    draft
        .tensors
        .extend(PictureColumn::encode("example_pictures", &kept));
    draft.details.pictures = kept.iter().filter(|picture| !picture.is_empty()).count() as u64;
    (draft, kept)
}

fn column(file: &TensorFile) -> PictureColumn {
    let read = PictureColumn::read(file, "example_pictures").expect("fits");
    read.expect("a column")
}

/// Whether a version keeps exactly these, each fetched alone.
async fn keeps(store: &Store, cache: &str, version: u64, kept: &[Vec<u8>]) {
    let (manifest, file) = store
        .load(&id(cache), number(version))
        .await
        .expect("loads");
    let column = column(&file);
    assert_eq!(column.len(), kept.len());
    for (at, expected) in kept.iter().enumerate() {
        let Some(place) = column.place(at) else {
            assert!(expected.is_empty(), "example {at} has lost its picture");
            assert_eq!(column.get(&file, at), None);
            continue;
        };
        assert_eq!(place.size(), expected.len() as u64);
        let fetched = store.read_picture(&manifest, &place).await.expect("reads");
        assert_eq!(fetched, expected.as_slice());
        assert_eq!(column.get(&file, at).expect("in memory"), fetched);
    }
    assert!(column.place(kept.len()).is_none());
    assert!(column.place(usize::MAX).is_none());
}

#[tokio::test]
async fn a_picture_is_fetched_alone_and_goes_where_its_version_goes() {
    let (here, there) = (
        tempfile::tempdir().expect("a"),
        tempfile::tempdir().expect("b"),
    );
    let (store, other) = (
        sample::local(here.path()).await,
        sample::local(there.path()).await,
    );
    let (draft, kept) = pictured(sample::fresh_seed());
    let total: usize = kept.iter().map(Vec::len).sum();
    let made = store.create_version(&id("x"), draft).await.expect("made");
    assert!(made.tensors.size >= total as u64);
    keeps(&store, "x", 1, &kept).await;

    let export = store.export(&id("x"), number(1)).await.expect("exports");
    let file: Vec<u8> = export.chunks(1000).flatten().collect();
    let imported = other.import(&id("y"), file.into()).await.expect("imports");
    assert_eq!(imported.details.pictures, made.details.pictures);
    keeps(&other, "y", 1, &kept).await;
}

#[tokio::test]
async fn a_damaged_picture_is_never_given_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let (draft, kept) = pictured(sample::fresh_seed());
    store.create_version(&id("x"), draft).await.expect("made");
    let (manifest, file) = store.load(&id("x"), number(1)).await.expect("loads");
    let column = column(&file);
    let at = kept.iter().position(|p| !p.is_empty()).expect("a picture");
    let place = column.place(at).expect("a place");

    let path = folder
        .path()
        .join("caches/x/versions/00000001")
        .join(&manifest.tensors.name);
    let mut bytes = std::fs::read(&path).expect("reads");
    let within = bytes
        .windows(kept[at].len())
        .position(|window| window == kept[at])
        .expect("it is in the file");
    bytes[within] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let error = store.read_picture(&manifest, &place).await;
    let error = error.expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    std::fs::remove_file(&path).expect("removes");
    let error = store.read_picture(&manifest, &place).await;
    let error = error.expect_err("gone");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn columns_that_do_not_fit_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let seed = sample::fresh_seed();
    for (part, change, reason) in [
        ("offsets", 8, "out of order"),
        ("offsets", 0, "out of order"),
        ("sha256", usize::MAX, "not a column of pictures"),
    ] {
        let (mut draft, _) = pictured(seed);
        for tensor in &mut draft.tensors {
            if tensor.name != format!("example_pictures.{part}") {
                continue;
            }
            let mut bytes = tensor.bytes.to_vec();
            match change {
                usize::MAX => {
                    bytes.truncate(bytes.len() - 32);
                    tensor.shape[0] -= 1;
                }
                at => bytes[at..at + 8].copy_from_slice(&i64::MAX.to_le_bytes()),
            }
            tensor.bytes = bytes.into();
        }
        let made = store.create_version(&id("x"), draft).await.expect("made");
        let (_, file) = store.load(&id("x"), made.version).await.expect("loads");
        let error = PictureColumn::read(&file, "example_pictures").expect_err("refused");
        assert!(error.contains(reason), "{error}");
    }
}
