//! Deletion, retention, sweeping; numbers are never used twice.

use std::{fs, path::Path, time::Duration};

use tipserve_store::{AliasName, StoreError, StoreOptions, Swept};

use crate::sample::{self, draft, id, number};

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder).expect("below").to_owned();
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn numbers_go_on_after_deletion() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    for seed in 0..3 {
        store.create_version(&x, draft(seed)).await.expect("made");
    }
    store
        .delete_version(&x, number(3), None)
        .await
        .expect("deleted");
    assert_eq!(store.latest(&x).await, Ok(number(2)));
    let error = store.load(&x, number(3)).await.expect_err("deleted");
    assert!(error.to_string().contains("it was deleted"), "{error}");
    let made = store.create_version(&x, draft(4)).await.expect("made");
    assert_eq!(made.version, number(4));

    store.delete_cache(&x, None).await.expect("deleted");
    assert!(matches!(
        store.latest(&x).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.cache(&x).await,
        Err(StoreError::NotFound { .. })
    ));
    // Of a deleted cache one small object is left, out of the way of lists.
    let kept = files(folder.path());
    assert!(
        matches!(kept.as_slice(), [one] if one.starts_with("tombstones/x/")),
        "{kept:?}"
    );
    assert!(!folder.path().join("caches/x").exists());

    // Another server, which saw none of this.
    let again = sample::local(folder.path()).await;
    let made = again
        .create_version(&x, draft(5))
        .await
        .expect("made again");
    assert_eq!(made.version, number(5));
    assert!(again.load(&x, number(2)).await.is_err());
    assert_eq!(again.cache(&x).await.expect("there").versions.len(), 1);
}

#[tokio::test]
async fn aliased_and_only_versions_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let (x, stable) = (id("x"), "stable".parse::<AliasName>().expect("an alias"));
    store.create_version(&x, draft(1)).await.expect("made");
    let only = store
        .delete_version(&x, number(1), None)
        .await
        .expect_err("only one");
    assert!(matches!(only, StoreError::Conflict { .. }), "{only}");
    store.create_version(&x, draft(2)).await.expect("made");
    store
        .set_alias(&x, &stable, number(1), None)
        .await
        .expect("set");
    let aliased = store
        .delete_version(&x, number(1), None)
        .await
        .expect_err("aliased");
    assert!(aliased.to_string().contains("stable"), "{aliased}");
    sample::load_whole(&store, &x, number(1))
        .await
        .expect("still there");

    for seed in 3..=6 {
        store.create_version(&x, draft(seed)).await.expect("made");
    }
    let gone = store.retain(&x, 2, None).await.expect("kept");
    assert_eq!(gone, [number(4), number(3), number(2)]);
    let left: Vec<u64> = store
        .versions(&x)
        .await
        .expect("lists")
        .iter()
        .map(|v| v.number.get())
        .collect();
    assert_eq!(left, [6, 5, 1]);
    for n in [6, 5, 1] {
        sample::load_whole(&store, &x, number(n))
            .await
            .expect("whole");
    }
    assert_eq!(store.retain(&x, 2, None).await.expect("nothing"), []);
}

#[tokio::test]
async fn a_cache_changed_meanwhile_is_not_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    store.create_version(&x, draft(1)).await.expect("made");
    let etag = store.cache(&x).await.expect("there").etag;
    store.create_version(&x, draft(2)).await.expect("made");
    let error = store
        .delete_cache(&x, Some(&etag))
        .await
        .expect_err("changed");
    assert!(matches!(error, StoreError::EtagMismatch { .. }), "{error}");
    let etag = store.cache(&x).await.expect("there").etag;
    store.delete_cache(&x, Some(&etag)).await.expect("deleted");
}

#[tokio::test]
async fn a_sweep_takes_old_leftovers_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let (x, stable) = (id("x"), "stable".parse::<AliasName>().expect("an alias"));
    for seed in 1..=2 {
        store.create_version(&x, draft(seed)).await.expect("made");
        store
            .set_alias(&x, &stable, number(seed), None)
            .await
            .expect("set");
    }
    let before = files(folder.path());
    let versions = folder.path().join("caches/x/versions");
    fs::create_dir(versions.join("00000003")).expect("made");
    for dead in [
        "00000003/tensors-00dead.safetensors",
        "00000002/tensors-00dead.safetensors",
        "00000002/manifest.json#1",
    ] {
        fs::write(versions.join(dead), b"dead").expect("written");
    }
    fs::write(versions.join("00000002/readme.txt"), b"not ours").expect("written");
    let with_dead = files(folder.path());

    // Younger than a day: a writer may yet publish it.
    assert_eq!(store.sweep().await.expect("sweeps"), Swept::default());
    assert_eq!(files(folder.path()), with_dead);

    let swept = sample::sweeper(folder.path())
        .await
        .sweep()
        .await
        .expect("sweeps");
    let expected = Swept {
        leftovers: 2,
        records: 4,
        staged: 1,
        ..Swept::default()
    };
    assert_eq!(swept, expected);
    let left = files(folder.path());
    let gone = before.iter().filter(|f| !left.contains(f));
    let (marks, records): (Vec<_>, Vec<_>) = gone.partition(|f| f.contains("high-water"));
    assert_eq!(records, ["caches/x/state/00000001.json"]);
    assert_eq!(marks.len(), 3, "the newest stays");
    assert!(left.iter().any(|f| f.ends_with("readme.txt")));
    let again = sample::local(folder.path()).await;
    for n in 1..=2 {
        assert_eq!(sample::load_whole(&again, &x, number(n)).await, Ok(n));
    }
    let at = again
        .resolve(&"x@stable".parse().expect("a reference"))
        .await;
    assert_eq!(at.expect("there").1, number(2));
}

#[tokio::test]
async fn a_writer_that_paused_too_long_gives_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = StoreOptions {
        leftover_age: Duration::ZERO,
        ..StoreOptions::default()
    };
    let store = sample::open(folder.path(), options).await;
    let error = store
        .create_version(&id("x"), draft(1))
        .await
        .expect_err("too old");
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert!(store.latest(&id("x")).await.is_err());
}
