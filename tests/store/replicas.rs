//! Two servers on one store agree: by number at once, by alias within 2 s.

use std::time::{Duration, Instant};

use tipserve_store::{AliasName, Store, StoreError};

use crate::{
    sample::{self, draft, id, number},
    seaweedfs::SeaweedFs,
};

/// Asks until the answer is right; panics after ten times the promise.
async fn until(what: &str, mut right: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !right().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
}

async fn agree([a, b]: [Store; 2]) {
    let (x, stable) = (id("x"), "stable".parse::<AliasName>().expect("an alias"));
    let at = "x@stable".parse().expect("a reference");
    // Absence seen by the other is not remembered.
    assert!(b.latest(&x).await.is_err());
    a.create_version(&x, draft(1)).await.expect("made");
    assert_eq!(b.latest(&x).await, Ok(number(1)));
    assert!(b.resolve(&at).await.is_err());
    a.set_alias(&x, &stable, number(1), None)
        .await
        .expect("set");
    assert_eq!(b.resolve(&at).await.expect("at once").1, number(1));

    a.create_version(&x, draft(2)).await.expect("made");
    assert_eq!(
        sample::load_whole(&b, &x, number(2)).await,
        Ok(2),
        "by number at once"
    );
    a.set_alias(&x, &stable, number(2), None)
        .await
        .expect("set");
    until("an alias moved elsewhere", async || {
        b.resolve(&at).await.expect("never unknown").1 == number(2)
    })
    .await;
    until("a new latest", async || b.latest(&x).await == Ok(number(2))).await;

    a.delete_version(&x, number(1), None)
        .await
        .expect("deleted");
    until("a deletion elsewhere", async || {
        let gone = b.load(&x, number(1)).await;
        matches!(gone, Err(StoreError::NotFound { .. }))
    })
    .await;
    assert_eq!(
        b.cache(&x).await.expect("there"),
        a.cache(&x).await.expect("there")
    );
    b.delete_cache(&x, None).await.expect("deleted");
    until("a cache deleted elsewhere", async || {
        matches!(a.latest(&x).await, Err(StoreError::NotFound { .. }))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    agree([
        sample::local(folder.path()).await,
        sample::local(folder.path()).await,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3() {
    let Some(server) = SeaweedFs::start() else {
        return;
    };
    agree([
        sample::bucket(&server, "p").await,
        sample::bucket(&server, "p").await,
    ])
    .await;
}

/// Larger than one request, and than one part of a fetch.
#[tokio::test(flavor = "multi_thread")]
async fn large_versions_go_in_parts() {
    let Some(server) = SeaweedFs::start() else {
        return;
    };
    let (a, b) = (
        sample::bucket(&server, "l").await,
        sample::bucket(&server, "l").await,
    );
    let mut large = draft(7);
    let (rows, width) = (rand::random_range(150_000..160_000), 128);
    let bytes: Vec<u8> = (0..rows * width * 4_usize)
        .map(|i| ((i * 31) >> 7) as u8)
        .collect();
    large.tensors[0].shape = vec![rows, width];
    large.tensors[0].bytes = bytes.clone().into();
    let made = a.create_version(&id("large"), large).await.expect("made");
    assert!(made.tensors.size > 64 << 20);
    let (_, file) = b.load(&id("large"), made.version).await.expect("loads");
    assert!(file.get("keys").expect("there").bytes == bytes);
}
