//! Versions and aliases as their users know them.

use tipserve_store::{AliasName, Reference, StoreError};

use crate::sample::{self, draft, id, number};

fn alias(text: &str) -> AliasName {
    text.parse().expect("an alias")
}

fn reference(text: &str) -> Reference {
    text.parse().expect("a reference")
}

#[tokio::test]
async fn a_version_is_what_was_written_and_numbers_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    for expected in 1..=3 {
        let seed = sample::fresh_seed();
        let made = store.create_version(&x, draft(seed)).await.expect("made");
        assert_eq!(made.version, number(expected));
        assert_eq!(sample::load_whole(&store, &x, made.version).await, Ok(seed));
        assert_eq!(store.manifest(&x, made.version).await.expect("reads"), made);
        assert_eq!(store.latest(&x).await, Ok(made.version));
    }
    let info = store.cache(&x).await.expect("a cache");
    let numbers: Vec<u64> = info.versions.iter().map(|v| v.number.get()).collect();
    assert_eq!(numbers, [3, 2, 1]);
}

#[tokio::test]
async fn aliases_move_only_as_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let (x, stable) = (id("x"), alias("stable"));
    for seed in 0..3 {
        store.create_version(&x, draft(seed)).await.expect("made");
    }
    let before = store.cache(&x).await.expect("there").etag;
    let first = store
        .set_alias(&x, &stable, number(2), Some(&before))
        .await
        .expect("new");
    assert_eq!(
        store
            .resolve(&reference("x@stable"))
            .await
            .expect("there")
            .1,
        number(2)
    );

    // Somebody else was faster.
    let moved = store
        .set_alias(&x, &stable, number(3), Some(&first.etag))
        .await
        .expect("moves");
    for old in [before.as_str(), &first.etag, "", "new"] {
        let taken = store.set_alias(&x, &stable, number(1), Some(old)).await;
        let expected = StoreError::EtagMismatch {
            what: "caches/x".into(),
            expected: old.to_owned(),
            found: moved.etag.clone(),
        };
        assert_eq!(taken, Err(expected));
        let kept = store.delete_alias(&x, &stable, Some(old)).await;
        assert!(
            matches!(kept, Err(StoreError::EtagMismatch { .. })),
            "{kept:?}"
        );
    }
    assert_eq!(
        store
            .resolve(&reference("x@stable"))
            .await
            .expect("there")
            .1,
        number(3)
    );
}

#[tokio::test]
async fn every_change_of_a_cache_changes_its_etag_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    store.create_version(&x, draft(0)).await.expect("made");
    let before = store.cache(&x).await.expect("there").etag;
    let other = store
        .set_alias(&x, &alias("canary"), number(1), None)
        .await
        .expect("set");
    assert_ne!(other.etag, before);
    let same = store
        .set_alias(&x, &alias("canary"), number(1), None)
        .await
        .expect("set");
    assert_eq!(same.etag, other.etag);
    store.create_version(&x, draft(9)).await.expect("made");
    assert_ne!(store.cache(&x).await.expect("there").etag, other.etag);
}

#[tokio::test]
async fn an_alias_that_is_gone_is_not_found_and_the_others_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let (x, stable) = (id("x"), alias("stable"));
    store.create_version(&x, draft(0)).await.expect("made");
    for name in ["stable", "canary"] {
        store
            .set_alias(&x, &alias(name), number(1), None)
            .await
            .expect("set");
    }
    let missing = store.set_alias(&x, &stable, number(9), None).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
    let info = store
        .delete_alias(&x, &stable, None)
        .await
        .expect("removed");
    assert!(!info.aliases.contains_key(&stable));
    let gone = store
        .resolve(&reference("x@stable"))
        .await
        .expect_err("gone");
    assert!(gone.to_string().contains("canary"), "{gone}");
    let twice = store.delete_alias(&x, &stable, None).await;
    assert!(
        matches!(twice, Err(StoreError::NotFound { .. })),
        "{twice:?}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    for text in ["x", "x@1", "x@stable"] {
        let error = store.resolve(&reference(text)).await.expect_err("nothing");
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }
    assert!(store.load(&id("x"), number(1)).await.is_err());
    assert!(store.delete_cache(&id("x"), None).await.is_err());
    assert!(
        store
            .delete_version(&id("x"), number(1), None)
            .await
            .is_err()
    );
    assert!(
        store
            .set_alias(&id("x"), &alias("a"), number(1), None)
            .await
            .is_err()
    );
    assert!(store.retain(&id("x"), 1, None).await.is_err());
    assert!(!folder.path().join("caches").exists());
}

#[tokio::test]
async fn a_draft_that_could_not_be_read_back_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let mut nan = draft(1);
    nan.details.head.alpha = f64::NAN;
    let mut twice = draft(1);
    let copy = twice.tensors[0].clone();
    twice.tensors.push(copy);
    let mut short = draft(1);
    short.tensors[0].shape[0] += 1;
    for bad in [nan, twice, short] {
        let error = store.create_version(&id("x"), bad).await.expect_err("bad");
        assert!(matches!(error, StoreError::InvalidDraft { .. }), "{error}");
    }
    assert!(!folder.path().join("caches").exists());
}

#[tokio::test]
async fn caches_are_listed_in_pages_by_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let names = ["a", "a-b", "a.b", "a0", "b", "c", "zz"];
    for name in names {
        store
            .create_version(&id(name), draft(1))
            .await
            .expect("made");
    }
    store.delete_cache(&id("b"), None).await.expect("deleted");
    std::fs::create_dir(folder.path().join("caches/lost+found")).expect("made");
    for size in 1..9 {
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store
                .list_caches(size, after.as_ref())
                .await
                .expect("lists");
            assert!(page.caches.len() <= size);
            seen.extend(page.caches.into_iter().map(|c| c.id.to_string()));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "a-b", "a.b", "a0", "c", "zz"]);
        assert_eq!(
            pages,
            6_usize.div_ceil(size),
            "no empty page at size {size}"
        );
    }
}
