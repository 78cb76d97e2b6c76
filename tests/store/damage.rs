//! A damaged version is refused, named and set aside; all others serve.

use std::{fs, path::PathBuf};

use tipserve_store::{CacheId, Store, StoreError};

use crate::sample::{self, draft, id, number};

/// Positions all over a file: both ends, and one in each of many stretches.
fn positions(len: usize, count: usize) -> Vec<usize> {
    let inner = (0..count).map(|i| {
        let (from, to) = (i * len / count, (i + 1) * len / count);
        rand::random_range(from..to.max(from + 1)).min(len - 1)
    });
    let ends = [0, 1, 7, 8, 9, len - 1, len - 2];
    inner
        .chain(ends.into_iter().filter(|at| *at < len))
        .collect()
}

async fn assert_damaged(store: &Store, cache: &CacheId, n: u64, how: &str) {
    let error = store.load(cache, number(n)).await.expect_err(how);
    let StoreError::Damaged { what, .. } = &error else {
        panic!("{how}: {error}");
    };
    assert!(what.starts_with(&cache.resource_name()), "{how}: {what}");
}

struct Shelf {
    folder: tempfile::TempDir,
    cache: CacheId,
}

impl Shelf {
    /// Two versions of `x` with an alias, one of `other`.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = sample::local(folder.path()).await;
        let (cache, seed) = (id("x"), sample::fresh_seed());
        for i in 0..2 {
            let made = store
                .create_version(&cache, draft(seed.wrapping_add(i)))
                .await;
            made.expect("made");
        }
        store
            .create_version(&id("other"), draft(seed))
            .await
            .expect("made");
        let alias = "stable".parse().expect("an alias");
        store
            .set_alias(&cache, &alias, number(1), None)
            .await
            .expect("set");
        Self { folder, cache }
    }

    fn file(&self, relative: &str) -> PathBuf {
        let folder = self.folder.path().join("caches/x").join(relative);
        if folder.is_file() {
            return folder;
        }
        let mut entries = fs::read_dir(folder).expect("lists");
        let tensors = entries.find_map(|entry| {
            let path = entry.expect("an entry").path();
            (path.extension()? == "safetensors").then_some(path)
        });
        tensors.expect("a tensors file")
    }

    /// Damages a file in every region, every way; `check` looks at each.
    async fn damage(&self, file: &PathBuf, count: usize, mut check: impl AsyncFnMut(&str)) {
        let whole = fs::read(file).expect("reads");
        for at in positions(whole.len(), count) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << rand::random_range(0..8);
            fs::write(file, &flipped).expect("written");
            check(&format!("{}: a bit flipped in byte {at}", file.display())).await;
            fs::write(file, &whole[..at]).expect("written");
            check(&format!("{}: cut at {at}", file.display())).await;
        }
        let mut longer = whole.clone();
        longer.push(b'\n');
        fs::write(file, &longer).expect("written");
        check(&format!("{}: one byte more", file.display())).await;
        fs::write(file, &whole).expect("written");
    }
}

#[tokio::test]
async fn damaged_tensors_are_refused() {
    let shelf = Shelf::new().await;
    let file = shelf.file("versions/00000002");
    let store = sample::local(shelf.folder.path()).await;
    shelf
        .damage(&file, 40, async |how| {
            assert_damaged(&store, &shelf.cache, 2, how).await;
            // Set aside: again, and on a server that has not seen it.
            assert_damaged(&store, &shelf.cache, 2, how).await;
            assert_eq!(store.set_aside().len(), 1, "{how}");
            sample::load_whole(&store, &shelf.cache, number(1))
                .await
                .expect(how);
            sample::load_whole(&store, &id("other"), number(1))
                .await
                .expect(how);
        })
        .await;
    // Restored from a backup, it serves without a restart.
    sample::load_whole(&store, &shelf.cache, number(2))
        .await
        .expect("whole again");
    assert_eq!(store.set_aside(), []);

    fs::remove_file(&file).expect("removed");
    assert_damaged(&store, &shelf.cache, 2, "removed").await;
}

#[tokio::test]
async fn damaged_manifests_are_refused() {
    let shelf = Shelf::new().await;
    let file = shelf.file("versions/00000002/manifest.json");
    let store = sample::local(shelf.folder.path()).await;
    shelf
        .damage(&file, 60, async |how| {
            assert_damaged(&store, &shelf.cache, 2, how).await;
            sample::load_whole(&store, &shelf.cache, number(1))
                .await
                .expect(how);
        })
        .await;
    sample::load_whole(&store, &shelf.cache, number(2))
        .await
        .expect("whole again");
    // One version's manifest in another's place is whole, but not its own.
    fs::copy(shelf.file("versions/00000001/manifest.json"), &file).expect("copied");
    assert_damaged(&store, &shelf.cache, 2, "swapped").await;
}

#[tokio::test]
async fn a_damaged_state_is_refused() {
    let shelf = Shelf::new().await;
    let file = shelf.file("state/00000001.json");
    shelf
        .damage(&file, 40, async |how| {
            let store = sample::local(shelf.folder.path()).await;
            for text in ["x", "x@1", "x@stable"] {
                let reference = text.parse().expect("a reference");
                let error = store.resolve(&reference).await.expect_err(how);
                assert!(
                    matches!(error, StoreError::Damaged { .. }),
                    "{how}: {error}"
                );
            }
            let error = store
                .create_version(&shelf.cache, draft(1))
                .await
                .expect_err(how);
            assert!(
                matches!(error, StoreError::Damaged { .. }),
                "{how}: {error}"
            );
            sample::load_whole(&store, &id("other"), number(1))
                .await
                .expect(how);
            let page = store.list_caches(10, None).await.expect(how);
            assert_eq!(page.caches.len(), 1, "{how}");
            assert_eq!(page.damaged.len(), 1, "{how}");
        })
        .await;
    // Beyond repair, it can be deleted, and made anew.
    fs::write(&file, b"").expect("written");
    let store = sample::local(shelf.folder.path()).await;
    store
        .delete_cache(&shelf.cache, None)
        .await
        .expect("deleted");
    let made = store
        .create_version(&shelf.cache, draft(1))
        .await
        .expect("made");
    assert_eq!(made.version, number(3));
}

#[tokio::test]
async fn damaged_versions_do_not_stop_a_sweep_or_deletion() {
    let shelf = Shelf::new().await;
    fs::write(shelf.file("versions/00000002/manifest.json"), b"{").expect("written");
    let store = sample::sweeper(shelf.folder.path()).await;
    store.sweep().await.expect("sweeps");
    assert!(shelf.file("versions/00000002").is_file(), "nothing swept");
    store
        .delete_version(&shelf.cache, number(2), None)
        .await
        .expect("deleted");
    assert_eq!(store.latest(&shelf.cache).await, Ok(number(1)));
}
