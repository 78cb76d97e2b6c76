//! Request ids make asking again safe; lists cost what is alive.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use tipserve_store::{Draft, MAX_REQUEST_ID_BYTES, RequestKey, Store, StoreError, StoreOptions};

use crate::{
    faulty::{Fault, Faulty},
    sample::{self, draft, id, number},
};

fn key(id: &str, digest: &str) -> RequestKey {
    RequestKey {
        id: id.to_owned(),
        digest: digest.to_owned(),
    }
}

fn asked(seed: u64, request_id: &str) -> Draft {
    Draft {
        request: Some(key(request_id, "a")),
        ..draft(seed)
    }
}

#[tokio::test]
async fn a_request_asked_again_returns_what_it_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    let first = store
        .create_version(&x, asked(1, "one"))
        .await
        .expect("made");
    assert_eq!(first.request_id.as_deref(), Some("one"));
    // On another server, after another version, and with another content.
    let other = sample::local(folder.path()).await;
    other.create_version(&x, draft(2)).await.expect("made");
    let again = other
        .create_version(&x, asked(3, "one"))
        .await
        .expect("there");
    assert_eq!(again, first);
    let second = other
        .create_version(&x, asked(3, "two"))
        .await
        .expect("made");
    assert_eq!(second.version, number(3));
    // Another cache's is another request; a deleted version is made again.
    let y = other
        .create_version(&id("y"), asked(1, "one"))
        .await
        .expect("made");
    assert_eq!(y.version, number(1));
    other
        .delete_version(&x, number(1), None)
        .await
        .expect("deleted");
    let anew = store
        .create_version(&x, asked(4, "one"))
        .await
        .expect("made");
    assert_eq!(anew.version, number(4));
    assert_eq!(sample::load_whole(&store, &x, number(4)).await, Ok(4));
}

#[tokio::test]
async fn an_id_that_is_used_for_something_else_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    let first = store
        .create_version(&x, asked(1, "one"))
        .await
        .expect("made");
    let known = store.made_by(&x, &key("one", "a")).await.expect("looks");
    assert_eq!(known, Some(first));
    assert_eq!(store.made_by(&x, &key("two", "a")).await, Ok(None));
    let mut other = asked(2, "one");
    other.request = Some(key("one", "b"));
    let error = store.create_version(&x, other).await.expect_err("refused");
    let reused = StoreError::RequestReused {
        what: "caches/x/versions/1".to_owned(),
        request_id: "one".to_owned(),
    };
    assert_eq!(error, reused);
    assert_eq!(store.versions(&x).await.expect("lists").len(), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let faulty = Faulty::new(Fault::ManifestUnanswered);
    let store = Store::over(Arc::new(faulty.clone()), StoreOptions::default());
    let x = id("x");
    faulty.arm();
    let lost = store.create_version(&x, asked(1, "one")).await;
    assert!(
        matches!(lost, Err(StoreError::Unavailable { .. })),
        "{lost:?}"
    );
    faulty.heal();
    let again = store
        .create_version(&x, asked(1, "one"))
        .await
        .expect("there");
    assert_eq!(again.version, number(1));
    assert_eq!(store.versions(&x).await.expect("lists").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_from_many_servers_makes_one_version() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..5 {
        let (x, request) = (id("x"), format!("request {round}").replace(' ', "-"));
        let mut servers = Vec::new();
        for seed in 0..6 {
            let store = sample::local(folder.path()).await;
            let (x, draft) = (x.clone(), asked(seed, &request));
            servers.push(tokio::spawn(async move {
                store.create_version(&x, draft).await
            }));
        }
        let mut made = Vec::new();
        for server in servers {
            made.push(server.await.expect("ends").expect("made"));
        }
        assert!(made.windows(2).all(|two| two[0] == two[1]), "{made:#?}");
        let store = sample::local(folder.path()).await;
        let there = store.versions(&x).await.expect("lists").len();
        assert_eq!(there, round + 1, "one version a request");
    }
}

#[tokio::test]
async fn a_request_id_has_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let long = "x".repeat(MAX_REQUEST_ID_BYTES + 1);
    let error = store
        .create_version(&id("x"), asked(1, &long))
        .await
        .expect_err("long");
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    for odd in ["line\nfeed", "spa ce", "\u{1b}[31m", "ž"] {
        let error = store
            .create_version(&id("x"), asked(1, odd))
            .await
            .expect_err(odd);
        assert!(matches!(error, StoreError::InvalidDraft { .. }), "{error}");
    }
    assert!(!folder.path().join("caches").exists());
}

/// However many caches were deleted, a list asks for the living.
#[tokio::test]
async fn lists_cost_what_is_alive() {
    let faulty = Faulty::new(Fault::None);
    let store = Store::over(Arc::new(faulty.clone()), StoreOptions::default());
    store
        .create_version(&id("zz-live"), draft(1))
        .await
        .expect("made");
    let mut cost = Vec::new();
    for round in 0..3 {
        for i in 0..20 {
            let gone = id(&format!("tmp-{round}-{i}"));
            store.create_version(&gone, draft(i)).await.expect("made");
            store.delete_cache(&gone, None).await.expect("deleted");
        }
        let other = Store::over(Arc::new(faulty.clone()), StoreOptions::default());
        let before = faulty.lists.load(SeqCst);
        let page = other.list_caches(1, None).await.expect("lists");
        assert_eq!(page.caches.len(), 1);
        cost.push(faulty.lists.load(SeqCst) - before);
    }
    // The ids, the one cache, and its tombstones, since no record speaks for it.
    assert_eq!(cost, [3, 3, 3], "listings for a list of one cache");
}

/// The same on a disk, and after a server that died while it deleted.
#[tokio::test]
async fn deleted_caches_leave_no_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    for i in 0..10 {
        let gone = id(&format!("tmp-{i}"));
        for seed in 0..3 {
            store
                .create_version(&gone, draft(seed))
                .await
                .expect("made");
        }
        store.delete_cache(&gone, None).await.expect("deleted");
    }
    assert!(!folder.path().join("caches").exists());
    let made = store
        .create_version(&id("tmp-3"), draft(4))
        .await
        .expect("made");
    assert_eq!(made.version, number(4));
}
