//! Numbers that were given out never come again, and what was lost is missed,
//! whatever is damaged.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tipserve_store::{AliasName, StoreError, StoreOptions};

use crate::sample::{self, draft, id, number};

#[derive(Clone, Copy, Debug)]
enum Harm {
    Flipped,
    Cut,
    Emptied,
    Removed,
}

fn harm(path: &Path, how: Harm) {
    if path.is_dir() {
        return fs::remove_dir_all(path).expect("removed");
    }
    let mut bytes = fs::read(path).expect("reads");
    match how {
        Harm::Flipped => {
            let at = rand::random_range(0..bytes.len());
            bytes[at] ^= 1 << rand::random_range(0..8);
        }
        Harm::Cut => bytes.truncate(bytes.len() / 2),
        Harm::Emptied => bytes.clear(),
        Harm::Removed => return fs::remove_file(path).expect("removed"),
    }
    fs::write(path, bytes).expect("written");
}

/// Everything that a cache's folder holds once its newest version is deleted,
/// damaged in every way: a number that was given out never comes again.
#[tokio::test]
async fn no_damage_gives_a_number_twice() {
    let stable = "stable".parse::<AliasName>().expect("an alias");
    let mut reborn = 0;
    for how in [Harm::Flipped, Harm::Cut, Harm::Emptied, Harm::Removed] {
        for part in 0.. {
            let folder = tempfile::tempdir().expect("a folder");
            let store = sample::local(folder.path()).await;
            let x = id("x");
            for n in 1..=4 {
                store.create_version(&x, draft(n)).await.expect("made");
            }
            store
                .set_alias(&x, &stable, number(2), None)
                .await
                .expect("set");
            store
                .delete_version(&x, number(4), None)
                .await
                .expect("deleted");
            let all = parts_of(&folder.path().join("caches/x"));
            let Some(victim) = all.get(part) else { break };
            harm(victim, how);
            let how = format!("{how:?} {}", victim.display());

            let store = sample::local(folder.path()).await;
            let alias = store
                .resolve(&"x@stable".parse().expect("a reference"))
                .await;
            match alias {
                Ok((_, at)) => assert_eq!(at, number(2), "{how}: an older state counts"),
                Err(e) => assert!(matches!(e, StoreError::Damaged { .. }), "{how}: {e}"),
            }
            let mut made = store.create_version(&x, draft(5)).await;
            if made.is_err() {
                match store.delete_cache(&x, None).await {
                    Ok(()) => made = store.create_version(&x, draft(5)).await,
                    Err(e) => assert!(matches!(e, StoreError::Damaged { .. }), "{how}: {e}"),
                }
            }
            match made {
                Ok(made) => {
                    assert!(made.version > number(4), "{how}: {} again", made.version);
                    reborn += 1;
                }
                Err(e) => assert!(matches!(e, StoreError::Damaged { .. }), "{how}: {e}"),
            }
        }
    }
    assert!(reborn > 10, "nearly everything is refused: {reborn}");
}

/// A cache's state records and marks one by one, folders whole, and the newest
/// manifest.
fn parts_of(cache: &Path) -> Vec<PathBuf> {
    let mut parts = vec![cache.join("state"), cache.join("high-water")];
    for folder in ["state", "high-water", "versions/00000003"] {
        let entries = fs::read_dir(cache.join(folder)).expect("lists");
        parts.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    parts.sort();
    parts
}

/// A deleted cache that comes again, whatever became of its tombstone's bytes.
#[tokio::test]
async fn a_damaged_tombstone_still_tells_the_numbers() {
    for how in [Harm::Flipped, Harm::Cut, Harm::Emptied] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = sample::local(folder.path()).await;
        let x = id("x");
        for n in 1..=3 {
            store.create_version(&x, draft(n)).await.expect("made");
        }
        store.delete_cache(&x, None).await.expect("deleted");
        let tombstones = fs::read_dir(folder.path().join("tombstones/x")).expect("lists");
        for tombstone in tombstones {
            harm(&tombstone.expect("an entry").path(), how);
        }
        let store = sample::local(folder.path()).await;
        assert!(matches!(
            store.cache(&x).await,
            Err(StoreError::NotFound { .. })
        ));
        let made = store.create_version(&x, draft(4)).await.expect("made");
        assert_eq!(made.version, number(4), "{how:?}");
    }
}

/// Writers that were asleep while their cache was deleted: one wakes up and puts
/// its mark, another one a manifest under a number that is long gone.
#[tokio::test]
async fn a_late_writer_of_a_deleted_cache_brings_no_number_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("caches/x");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    for n in 1..=2 {
        store.create_version(&x, draft(n)).await.expect("made");
    }
    let version = cache.join("versions/00000001");
    let late: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&version)
        .expect("lists")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("reads")))
        .collect();
    store.delete_cache(&x, None).await.expect("deleted");

    fs::create_dir_all(cache.join("high-water")).expect("a folder");
    fs::write(cache.join("high-water/00000000-00000001-0"), "").expect("written");
    fs::create_dir_all(&version).expect("a folder");
    for (path, bytes) in &late {
        fs::write(path, bytes).expect("written");
    }
    for store in [store, sample::local(folder.path()).await] {
        let found = store.cache(&x).await;
        assert!(
            matches!(found, Err(StoreError::NotFound { .. })),
            "{found:?}"
        );
        let found = store.load(&x, number(1)).await.map(|_| ());
        assert!(
            matches!(found, Err(StoreError::NotFound { .. })),
            "{found:?}"
        );
    }
    let store = sample::local(folder.path()).await;
    let made = store.create_version(&x, draft(3)).await.expect("made");
    assert_eq!(made.version, number(3));
}

/// A writer that slept until a sweep had removed its tensors, and died after its
/// manifest: its version never was, for readers and aliases alike.
#[tokio::test]
async fn a_version_whose_parts_were_swept_before_it_was_published_does_not_exist() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    for n in 1..=2 {
        store.create_version(&x, draft(n)).await.expect("made");
    }
    let version = folder.path().join("caches/x/versions/00000002");
    for entry in fs::read_dir(&version).expect("lists") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("tensors-") {
            let notice = version.join(format!("sweep-0123456789ab-{name}"));
            fs::write(&notice, "").expect("written");
            let before = SystemTime::now() - Duration::from_secs(3600);
            let file = fs::File::open(&notice).expect("opens");
            file.set_modified(before).expect("its time");
            fs::remove_file(path).expect("removed");
        }
    }
    let stable: AliasName = "stable".parse().expect("an alias");
    for swept in [false, true] {
        if swept {
            let sweeper = sample::sweeper(folder.path()).await;
            sweeper.sweep().await.expect("sweeps");
            assert!(!version.exists());
        }
        let store = sample::local(folder.path()).await;
        assert_eq!(store.latest(&x).await, Ok(number(1)));
        let aliased = store.set_alias(&x, &stable, number(2), None).await;
        assert!(
            matches!(aliased, Err(StoreError::NotFound { .. })),
            "{aliased:?}"
        );
        let found = store.load(&x, number(2)).await.map(|_| ());
        assert!(
            matches!(found, Err(StoreError::NotFound { .. })),
            "{found:?}"
        );
    }
    let made = store.create_version(&x, draft(3)).await.expect("made");
    assert_eq!(made.version, number(3));
}

/// A manifest that vanishes is a loss, and said to be one: neither the older
/// version nor "no such version" is the answer.
#[tokio::test]
async fn a_lost_manifest_is_data_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    for n in 1..=3 {
        store.create_version(&x, draft(n)).await.expect("made");
    }
    for lost in [3, 2] {
        let version = folder.path().join(format!("caches/x/versions/{lost:08}"));
        let manifest = fs::read(version.join("manifest.json")).expect("reads");
        fs::remove_file(version.join("manifest.json")).expect("removed");
        let store = sample::local(folder.path()).await;
        let error = store.load(&x, number(lost)).await.expect_err("lost");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(store.latest(&x).await, Ok(number(3)));
        // A sweep keeps the tensors for when the manifest comes back.
        sample::sweeper(folder.path())
            .await
            .sweep()
            .await
            .expect("sweeps");
        fs::write(version.join("manifest.json"), manifest).expect("restored");
        assert_eq!(sample::load_whole(&store, &x, number(lost)).await, Ok(lost));
    }
}

/// Another version under a number that somebody still holds in memory has
/// another key there.
#[tokio::test]
async fn a_number_alone_does_not_identify_a_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let x = id("x");
    let mut keys = Vec::new();
    let seen = sample::open(
        folder.path(),
        StoreOptions {
            freshness: std::time::Duration::ZERO,
            ..StoreOptions::default()
        },
    )
    .await;
    for n in 1..=3 {
        // Somebody removes the whole cache by hand, history and all.
        let _ = fs::remove_dir_all(folder.path().join("caches/x"));
        let store = sample::local(folder.path()).await;
        let made = store.create_version(&x, draft(n)).await.expect("made");
        assert_eq!(made.version, number(1));
        for reference in ["x", "x@1"] {
            let reference = reference.parse().expect("a reference");
            let key = seen.identify(&reference).await.expect("there");
            assert_eq!(seen.identify(&reference).await.as_ref(), Ok(&key));
            assert!(n == 1 || !keys.contains(&key), "{key:?}");
            if reference.to_string() == "x@1" {
                keys.push(key);
            }
        }
    }
}
