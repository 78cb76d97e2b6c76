//! Many writers on one id, from two servers: numbers only grow, none is lost.

use std::collections::{BTreeMap, BTreeSet};

use tipserve_store::{AliasName, Condition, NEW, Needs, Store, StoreError};

use crate::{
    sample::{self, draft, id, number},
    seaweedfs::SeaweedFs,
};

const WRITERS: u64 = 8;
const EACH: u64 = 5;

/// Eight writers, half on each server.
async fn writers_race(servers: [Store; 2]) {
    let (x, base) = (id("x"), sample::fresh_seed() >> 8);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = servers[(writer % 2) as usize].clone();
        let x = x.clone();
        writers.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for i in 0..EACH {
                let seed = base + writer * EACH + i;
                let manifest = store.create_version(&x, draft(seed)).await.expect("made");
                made.push((manifest.version, seed));
            }
            made
        }));
    }
    let mut all = BTreeMap::new();
    for writer in writers {
        let made = writer.await.expect("ends");
        assert!(made.is_sorted(), "one writer's numbers grow: {made:?}");
        for (version, seed) in made {
            assert_eq!(all.insert(version, seed), None, "version {version} twice");
        }
    }
    let numbers: Vec<u64> = all.keys().map(|v| v.get()).collect();
    assert_eq!(numbers, (1..=WRITERS * EACH).collect::<Vec<_>>());
    for store in &servers {
        assert_eq!(store.versions(&x).await.expect("lists").len(), all.len());
        for (version, seed) in &all {
            assert_eq!(sample::load_whole(store, &x, *version).await, Ok(*seed));
        }
    }
}

/// Alias moves against deletions: no alias ever points at what is deleted.
async fn aliases_race_with_deletions(servers: [Store; 2]) {
    let (x, stable) = (id("x"), "stable".parse::<AliasName>().expect("an alias"));
    let [a, b] = servers;
    a.create_version(&x, draft(0)).await.expect("made");
    for round in 1..=12 {
        let target = a
            .create_version(&x, draft(round))
            .await
            .expect("made")
            .version;
        let (set, deleted) = tokio::join!(
            a.set_alias(&x, &stable, target, None),
            b.delete_version(&x, target, None)
        );
        assert!(set.is_ok() != deleted.is_ok(), "{set:?} {deleted:?}");
        for store in [&a, &b] {
            let info = store.cache(&x).await.expect("there");
            let there: BTreeSet<_> = info.versions.iter().map(|v| v.number).collect();
            for (alias, at) in &info.aliases {
                assert!(there.contains(&at.version), "{alias} at {}", at.version);
            }
        }
    }
}

/// Creating against deleting the whole cache: what is made after a deletion
/// stays, what a deletion took stays gone, and no number comes twice.
async fn creations_race_with_deletions(servers: [Store; 2]) {
    let x = id("y");
    let [a, b] = servers;
    let maker = {
        let (a, x) = (a.clone(), x.clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            for seed in 0..15 {
                made.push(
                    a.create_version(&x, draft(seed))
                        .await
                        .expect("made")
                        .version,
                );
            }
            made
        })
    };
    let mut deletions = 0;
    while !maker.is_finished() {
        match b.delete_cache(&x, None).await {
            Ok(()) => deletions += 1,
            Err(StoreError::NotFound { .. }) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
    let made = maker.await.expect("ends");
    assert!(made.windows(2).all(|w| w[0] < w[1]), "{made:?}");
    eprintln!("{deletions} deletions among 15 creations");
    if let Ok(latest) = b.latest(&x).await {
        sample::load_whole(&b, &x, latest).await.expect("whole");
    }
    let next = b.create_version(&x, draft(1)).await.expect("made").version;
    assert!(next > made[14]);
}

/// Two that expect the same etag: one wins.
async fn one_of_two_expectations_holds(servers: [Store; 2]) {
    let (x, stable) = (id("z"), "stable".parse::<AliasName>().expect("an alias"));
    let [a, b] = servers;
    for seed in 0..3 {
        a.create_version(&x, draft(seed)).await.expect("made");
    }
    a.set_alias(&x, &stable, number(1), None)
        .await
        .expect("set");
    let etag = a.cache(&x).await.expect("there").etag;
    let (left, right) = tokio::join!(
        a.set_alias(&x, &stable, number(2), Some(&etag)),
        b.set_alias(&x, &stable, number(3), Some(&etag))
    );
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
    let at = b.cache(&x).await.expect("there").aliases[&stable].version;
    assert_eq!(at, if left.is_ok() { number(2) } else { number(3) });
}

/// Eight writers on two servers that expect the same etag: exactly one makes
/// its version, under the next number; first of a cache that must be new, then
/// of one that is there.
async fn one_of_eight_expectations_holds(servers: [Store; 2]) {
    let x = id("etag");
    let mut etag = NEW.to_owned();
    for round in 1..=4_u64 {
        let writers = (0..WRITERS).map(|writer| {
            let (store, x) = (servers[(writer % 2) as usize].clone(), x.clone());
            let condition = Condition::etag(&etag);
            let seed = round * 100 + writer;
            tokio::spawn(async move { store.create_version_if(&x, draft(seed), &condition).await })
        });
        let (mut made, mut refused) = (Vec::new(), 0);
        for writer in writers.collect::<Vec<_>>() {
            match writer.await.expect("ends") {
                Ok(manifest) => made.push(manifest),
                Err(StoreError::EtagMismatch { expected, .. }) => {
                    assert_eq!(expected, etag);
                    refused += 1;
                }
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!((made.len() as u64, refused), (1, WRITERS - 1));
        assert_eq!(made[0].version, number(round));
        for store in &servers {
            let info = store.cache(&x).await.expect("there");
            assert_eq!(info.versions.len() as u64, round);
            assert_ne!(info.etag, etag);
            sample::load_whole(store, &x, made[0].version)
                .await
                .expect("whole");
        }
        etag = servers[0].cache(&x).await.expect("there").etag;
    }
    // Deleted, it is new again, and its numbers go on.
    let [a, b] = servers;
    a.delete_cache(&x, Some(&etag)).await.expect("deleted");
    let stale = b
        .create_version_if(&x, draft(1), &Condition::etag(&etag))
        .await;
    assert!(
        matches!(stale, Err(StoreError::EtagMismatch { .. })),
        "{stale:?}"
    );
    let again = b
        .create_version_if(&x, draft(1), &Condition::etag(NEW))
        .await
        .expect("new");
    assert_eq!(again.version, number(5));
}

/// Children against the deletion of their cache: none that was acknowledged
/// after it brings it back.
async fn children_race_with_deletions(servers: [Store; 2]) {
    let x = id("child");
    let [a, b] = servers;
    for round in 0..12 {
        let parent = a.create_version(&x, draft(round)).await.expect("made");
        for needs in [Needs::Cache, Needs::Version(parent.version)] {
            let condition = Condition { etag: None, needs };
            a.create_version_if(&x, draft(round), &condition)
                .await
                .expect("made");
        }
        let condition = Condition {
            etag: None,
            needs: Needs::Cache,
        };
        let mut child = draft(round + 100);
        child.details.parent = Some(parent.resource_name());
        let (child, deleted) = tokio::join!(
            a.create_version_if(&x, child, &condition),
            b.delete_cache(&x, None)
        );
        deleted.expect("deleted");
        // Either the deletion took the child along, or there never was one;
        // the two run into each other at random places.
        if let Err(e) = child {
            assert!(matches!(e, StoreError::NotFound { .. }), "{e}");
        }
        for store in [&a, &b] {
            let gone = store.cache(&x).await;
            assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
        }
        let orphan = a.create_version_if(&x, draft(round), &condition).await;
        assert!(
            matches!(orphan, Err(StoreError::NotFound { .. })),
            "{orphan:?}"
        );
    }
}

async fn race(servers: [Store; 2]) {
    one_of_eight_expectations_holds(servers.clone()).await;
    children_race_with_deletions(servers.clone()).await;
    writers_race(servers.clone()).await;
    creations_race_with_deletions(servers.clone()).await;
    one_of_two_expectations_holds(servers.clone()).await;
    let fresh = servers;
    fresh[0]
        .delete_cache(&id("x"), None)
        .await
        .expect("deleted");
    aliases_race_with_deletions(fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    race([
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
    race([
        sample::bucket(&server, "r").await,
        sample::bucket(&server, "r").await,
    ])
    .await;
}
