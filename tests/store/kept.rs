//! What was acknowledged is kept: with clocks that are off, parts that vanish,
//! disks that fail to sync, and records that are damaged or lost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tipserve_store::{AliasName, RequestObserver, Store, StoreError, StoreOptions};

use crate::{
    faulty::{Fault, Faulty},
    sample::{self, draft, id, number},
};

/// Set for a child: its store's folder.
const FOLDER: &str = "TIPSERVE_TEST_KEPT";

/// Builds a shim to load before the C library; none without a C compiler.
fn shim(folder: &Path, name: &str, source: &str) -> Option<PathBuf> {
    let (c, so) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}.so")),
    );
    fs::write(&c, source).expect("written");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&so, &c])
        .arg("-ldl")
        .status();
    if compiled.is_ok_and(|status| status.success()) {
        return Some(so);
    }
    eprintln!("skipped: no C compiler (cc)");
    None
}

/// Runs one of the tests below as a process of its own, under a shim.
fn run_under(shim: &Path, test: &str, store: &Path, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args([
            &format!("kept::{test}"),
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, store)
        .env("LD_PRELOAD", shim)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    const char *shift = getenv("TIPSERVE_TEST_SHIFT");
    if (id == CLOCK_REALTIME && shift) t->tv_sec += atol(shift);
    return r;
}
"#;

/// Not a test of its own: a server that sweeps.
#[tokio::test]
async fn sweeps_once() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let swept = sample::local(Path::new(&folder)).await.sweep().await;
    println!("swept {:?}", swept.expect("sweeps"));
}

#[tokio::test]
async fn a_server_whose_clock_is_days_ahead_sweeps_nothing_young() {
    let work = tempfile::tempdir().expect("a folder");
    let folder = work.path().join("store");
    let Some(clock) = shim(work.path(), "clock", CLOCK) else {
        return;
    };
    let store = sample::local(&folder).await;
    let (x, stable) = (id("x"), "stable".parse::<AliasName>().expect("an alias"));
    for n in 1..=2 {
        store.create_version(&x, draft(n)).await.expect("made");
        store
            .set_alias(&x, &stable, number(n), None)
            .await
            .expect("set");
    }
    // What a writer that is about to publish has written so far.
    let versions = folder.join("caches/x/versions");
    fs::create_dir(versions.join("00000003")).expect("made");
    let young = [
        "00000003/tensors-00young.safetensors",
        "00000002/manifest.json#1",
    ];
    for file in young {
        fs::write(versions.join(file), b"on its way").expect("written");
    }
    let two_days = (2 * 86_400).to_string();
    run_under(
        &clock,
        "sweeps_once",
        &folder,
        &[("TIPSERVE_TEST_SHIFT", &two_days)],
    );
    for file in young {
        assert!(versions.join(file).exists(), "{file} was swept");
    }
    assert!(folder.join("caches/x/state/00000001.json").exists());
    // And one whose clock is behind sweeps what is old.
    let ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_401);
    for file in young {
        let file = fs::File::options().write(true).open(versions.join(file));
        file.and_then(|file| file.set_modified(ago)).expect("dated");
    }
    run_under(
        &clock,
        "sweeps_once",
        &folder,
        &[("TIPSERVE_TEST_SHIFT", "-999999")],
    );
    for file in young {
        assert!(!versions.join(file).exists(), "{file} was not swept");
    }
}

const SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
/* The nth fsync of a file, or of a folder that holds it, fails. */
int fsync(int fd) {
    static int (*real)(int);
    static int seen;
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    const char *holds = getenv("TIPSERVE_TEST_HOLDS"), *nth = getenv("TIPSERVE_TEST_NTH");
    struct stat s;
    int hit = 0;
    if (holds && !fstat(fd, &s)) {
        if (S_ISDIR(s.st_mode)) hit = faccessat(fd, holds, F_OK, 0) == 0;
        else {
            char link[64], path[4096];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(link, path, sizeof path - 1);
            path[n < 0 ? 0 : n] = 0;
            hit = strstr(path, holds) != NULL;
        }
    }
    if (hit && ++seen == atoi(nth)) { errno = EIO; return -1; }
    return real(fd);
}
"#;

#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl RequestObserver for Counter {
    fn write_distrusted(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Not a test of its own: a server that makes a version and sets an alias.
#[tokio::test]
async fn writes_once() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let counter = Arc::new(Counter::default());
    let options = StoreOptions {
        observer: Arc::<Counter>::clone(&counter),
        ..StoreOptions::default()
    };
    let store = sample::open(Path::new(&folder), options).await;
    let x = id("x");
    let made = store.create_version(&x, draft(2)).await;
    let stable = "stable".parse::<AliasName>().expect("an alias");
    let set = store.set_alias(&x, &stable, number(1), None).await;
    for (what, error) in [("made", made.map(drop).err()), ("set", set.map(drop).err())] {
        match error {
            None => println!("\n>{what} ok"),
            Some(StoreError::NotDurable { .. }) => println!("\n>{what} distrusted"),
            Some(e) => println!("\n>{what} {e}"),
        }
    }
    println!("\n>counted {}", counter.0.load(Relaxed));
}

/// Every sync of a version and of a state record, failing in turn: each either
/// did not matter, or the write is refused, counted and not there.
#[tokio::test]
async fn what_was_not_synced_is_refused_and_counted() {
    let work = tempfile::tempdir().expect("a folder");
    let Some(sync) = shim(work.path(), "sync", SYNC) else {
        return;
    };
    let mut refused = 0;
    for holds in [
        "manifest.json",
        "tensors-",
        "versions",
        "state",
        "00000001.json",
    ] {
        for nth in 1..=4 {
            let folder = work.path().join(format!("{holds}-{nth}"));
            let store = sample::local(&folder).await;
            let x = id("x");
            store.create_version(&x, draft(1)).await.expect("made");
            let nth = nth.to_string();
            let variables = [("TIPSERVE_TEST_HOLDS", holds), ("TIPSERVE_TEST_NTH", &nth)];
            let told = run_under(&sync, "writes_once", &folder, &variables);
            let how = format!("sync {nth} of {holds}: {told}");
            let told: Vec<&str> = told.lines().filter_map(|l| l.strip_prefix('>')).collect();
            let store = sample::local(&folder).await;
            let made = store.load(&x, number(2)).await;
            if told.contains(&"made ok") {
                assert!(made.is_ok(), "{how}");
            } else {
                assert!(told.contains(&"made distrusted"), "{how}");
                assert!(
                    matches!(made, Err(StoreError::NotFound { .. })),
                    "{how}: {made:?}"
                );
                refused += 1;
            }
            let distrusted = told
                .iter()
                .filter(|line| line.ends_with("distrusted"))
                .count();
            let counted = told.iter().find_map(|line| line.strip_prefix("counted "));
            let counted: usize = counted.and_then(|n| n.parse().ok()).expect("counted");
            assert!(counted >= distrusted, "{how}");
            // The store goes on, and gives the number to nobody else.
            let next = store.create_version(&x, draft(3)).await.expect("made");
            assert!(next.version > number(2) || made.is_err(), "{how}");
            sample::load_whole(&store, &x, number(1))
                .await
                .expect("kept");
            sample::load_whole(&store, &x, next.version)
                .await
                .expect("whole");
        }
    }
    assert!(refused >= 4, "the shim hit nothing: {refused}");
}

/// A part of a version vanishes just when its manifest is there: no OK.
#[tokio::test]
async fn a_version_that_lost_a_part_is_not_acknowledged() {
    for fault in [Fault::TensorsVanish, Fault::TensorsCut] {
        let faulty = Faulty::new(fault);
        let store = Store::over(Arc::new(faulty.clone()), StoreOptions::default());
        let x = id("x");
        store.create_version(&x, draft(1)).await.expect("made");
        faulty.arm();
        let error = store
            .create_version(&x, draft(2))
            .await
            .expect_err("lost a part");
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        let fresh = Store::over(Arc::new(faulty.clone()), StoreOptions::default());
        assert_eq!(fresh.latest(&x).await, Ok(number(1)));
        let made = fresh.create_version(&x, draft(3)).await.expect("made");
        assert_eq!(sample::load_whole(&fresh, &x, made.version).await, Ok(3));
    }
}

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
