//! A folder that cannot be written and a bucket that goes away: clear errors,
//! nothing partial, and what was read goes on.

use std::{fs, time::Duration};

use tipserve_store::{Store, StoreError, StoreOptions};

use crate::{
    sample::{self, draft, id, number},
    seaweedfs::SeaweedFs,
};

#[tokio::test]
async fn a_store_that_is_no_folder_does_not_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    for url in [
        file.to_str().expect("plain").to_owned(),
        format!("{}/below", file.display()),
        "ftp://host/x".into(),
        "s3://".into(),
    ] {
        let error = Store::open(&url).await.err().expect("does not open");
        assert!(matches!(error, StoreError::Open { .. }), "{error}");
    }
    let secret = Store::open("ftp://user:secret@host/x?sig=secret").await;
    let text = secret.err().expect("does not open").to_string();
    assert!(!text.contains("secret"), "{text}");
}

/// Runs as root too, which permissions do not stop: a file stands where a
/// folder would have to be made.
#[tokio::test]
async fn a_write_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let x = id("x");
    store.create_version(&x, draft(1)).await.expect("made");
    let blocked = folder.path().join("caches/x/versions/00000002");
    fs::write(&blocked, b"in the way").expect("written");
    let error = store
        .create_version(&x, draft(2))
        .await
        .expect_err("blocked");
    assert!(matches!(error, StoreError::Storage { .. }), "{error}");
    assert!(
        error.to_string().contains("caches/x/versions/00000002"),
        "{error}"
    );
    assert_eq!(store.latest(&x).await, Ok(number(1)));
    assert_eq!(sample::load_whole(&store, &x, number(1)).await, Ok(1));
    fs::remove_file(&blocked).expect("removed");
    let made = store.create_version(&x, draft(2)).await.expect("made");
    assert_eq!(made.version, number(2));
}

/// A real full disk: the folder named by `TIPSERVE_SMALL_DISK`, or a tmpfs of
/// one MiB, which takes the right to mount.
#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_partial() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = std::env::var_os("TIPSERVE_SMALL_DISK").map(std::path::PathBuf::from);
    let disk = named.clone().unwrap_or_else(|| folder.path().to_owned());
    let mount = |program: &str, args: &[&str]| {
        let done = std::process::Command::new(program).args(args).output();
        done.is_ok_and(|o| o.status.success())
    };
    let path = disk.to_str().expect("plain").to_owned();
    if named.is_none()
        && !mount(
            "mount",
            &["-t", "tmpfs", "-o", "size=1m", "tipserve-test", &path],
        )
    {
        eprintln!("skipped: no right to mount a small tmpfs, and no TIPSERVE_SMALL_DISK");
        return;
    }
    let outcome = tokio::spawn(async move {
        let store = sample::local(&disk).await;
        let x = id("x");
        let mut made = 0;
        let error = loop {
            match store.create_version(&x, draft(made)).await {
                Ok(_) => made += 1,
                Err(e) => break e,
            }
            assert!(made < 10_000, "the disk never fills");
        };
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(store.latest(&x).await, Ok(number(made)));
        for n in 1..=made {
            assert_eq!(sample::load_whole(&store, &x, number(n)).await, Ok(n - 1));
        }
        eprintln!("full after {made} versions: {error}");
        // Room is made by deleting at the latest when a little is left.
        assert_eq!(
            sample::local(&disk).await.latest(&x).await,
            Ok(number(made))
        );
    })
    .await;
    if named.is_none() {
        mount("umount", &[&path]);
    }
    outcome.expect("as promised");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_goes_away_is_said_and_what_was_seen_serves() {
    let Some(mut server) = SeaweedFs::start() else {
        return;
    };
    let store = sample::bucket(&server, "away").await;
    let x = id("x");
    store.create_version(&x, draft(1)).await.expect("made");
    let alias = "stable".parse().expect("an alias");
    store
        .set_alias(&x, &alias, number(1), None)
        .await
        .expect("set");
    let (manifest, file) = store.load(&x, number(1)).await.expect("loads");

    // Stopped in mid-write.
    let writer = {
        let (store, x) = (store.clone(), x.clone());
        tokio::spawn(async move {
            let mut acknowledged = vec![1];
            loop {
                match store.create_version(&x, draft(2)).await {
                    Ok(made) => acknowledged.push(made.version.get()),
                    Err(e) => return (acknowledged, e),
                }
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    let (acknowledged, error) = writer.await.expect("ends");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    eprintln!("{} acknowledged, then: {error}", acknowledged.len());

    tokio::time::sleep(Duration::from_millis(1100)).await;
    for text in ["x@1", "x@stable"] {
        let reference = text.parse().expect("a reference");
        assert_eq!(
            store.resolve(&reference).await.expect("as last seen").1,
            number(1)
        );
    }
    store.latest(&x).await.expect("as last seen");
    assert!(sample::is_whole(&manifest, &file));
    let error = store.load(&x, number(1)).await.expect_err("no bucket");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let error = store
        .resolve(&"never-seen".parse().expect("a reference"))
        .await;
    assert!(
        matches!(error, Err(StoreError::Unavailable { .. })),
        "{error:?}"
    );
    let options = StoreOptions {
        settings: server.settings(),
        ..StoreOptions::default()
    };
    let error = Store::open_with(&server.url("away"), options).await.err();
    assert!(matches!(error, Some(StoreError::Open { .. })), "{error:?}");
}
