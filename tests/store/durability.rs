//! Writers that die at every fail point and at random moments: what they were
//! told is done is there, what was under way is there whole or not at all.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    model::{self, Line, Model, Op},
    sample::{self, id, number},
};

/// Set for a child: the folder of its store.
const FOLDER: &str = "TIPSERVE_TEST_STORE";
/// Set for a child: the seed of its steps.
const SEED: &str = "TIPSERVE_TEST_SEED";

fn random_op(rng: &mut StdRng) -> Op {
    let caches = ["a", "b", "c.d"];
    let cache = id(caches.choose(rng).expect("some"));
    let alias = ["stable", "canary"].choose(rng).expect("some");
    let alias = alias.parse().expect("an alias");
    // Low numbers and high ones are often not there: refused, as it should be.
    let version = number(rng.random_range(1..12));
    match rng.random_range(0..20) {
        0..=5 => Op::Create {
            cache,
            seeds: vec![rng.random()],
        },
        6..=8 => Op::Create {
            cache,
            seeds: (0..4).map(|_| rng.random()).collect(),
        },
        9..=12 => Op::SetAlias {
            cache,
            alias,
            version,
        },
        13 => Op::DeleteAlias { cache, alias },
        14..=15 => Op::DeleteVersion { cache, version },
        16 => Op::DeleteCache { cache },
        17..=18 => Op::Retain {
            cache,
            keep: rng.random_range(1..4),
        },
        _ => Op::Sweep,
    }
}

/// Something for every sweep to find.
fn plant_leftovers(folder: &Path, nonce: u64) {
    let caches = std::fs::read_dir(folder.join("caches"))
        .into_iter()
        .flatten();
    for cache in caches.filter_map(Result::ok) {
        let version = cache.path().join("versions/00900000");
        std::fs::create_dir_all(&version).expect("made");
        let file = version.join(format!("tensors-dead{nonce}.safetensors"));
        std::fs::write(file, b"dead").expect("planted");
    }
}

/// Not a test of its own: the writer that the tests below start and kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let _scenario = fail::FailScenario::setup();
    let seed = std::env::var(SEED)
        .expect("a seed")
        .parse()
        .expect("a seed");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = Path::new(&folder);
    let store = sample::local(folder).await;
    let sweeper = sample::sweeper(folder).await;
    let tell = |line: Line| {
        let mut out = serde_json::to_vec(&line).expect("a line");
        out.insert(0, b'\n'); // the test runner's own words stay apart
        out.insert(1, b'>');
        out.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(&out)
            .and_then(|()| stdout.flush())
            .expect("told");
    };
    for step in 0.. {
        let op = random_op(&mut rng);
        if matches!(op, Op::Sweep) {
            plant_leftovers(folder, step);
        }
        model::perform(&store, &sweeper, op, &tell).await;
    }
}

struct Death {
    lines: Vec<Line>,
    code: Option<i32>,
}

/// Runs a writer until it dies by itself or `after` has gone by.
fn run_child(folder: &Path, seed: u64, fail_points: Option<&str>, after: Duration) -> Death {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args([
            "durability::child",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .env("FAILPOINTS", fail_points.unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let reader = std::thread::spawn(move || {
        let lines = stdout.split(b'\n').map_while(Result::ok);
        lines
            // A last line that was cut short was not told.
            .filter_map(|line| serde_json::from_slice(line.strip_prefix(b">")?).ok())
            .collect::<Vec<Line>>()
    });
    let begun = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waits") {
            break status;
        }
        if begun.elapsed() >= after {
            child.kill().expect("kills"); // SIGKILL
            break child.wait().expect("waits");
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    let lines = reader.join().expect("reads");
    Death {
        lines,
        code: status.code(),
    }
}

async fn kill_loop(rounds: u32) {
    let seed = sample::fresh_seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut model, mut steps) = (Model::new(), 0);
    for round in 0..rounds {
        let after = Duration::from_micros(rng.random_range(20_000..400_000));
        let death = run_child(folder.path(), rng.random(), None, after);
        assert_eq!(
            death.code,
            None,
            "killed, not ended: {:?}",
            death.lines.last()
        );
        steps += death.lines.len();
        let store = sample::local(folder.path()).await;
        model = model::check(&store, model, &death.lines).await;
        // Sometimes a start with what the dead left, sometimes without.
        if round % 3 == 0 {
            sample::sweeper(folder.path())
                .await
                .sweep()
                .await
                .expect("sweeps");
            let after_sweep = model::observe(&store, &model).await;
            assert_eq!(after_sweep, model, "a sweep takes nothing that exists");
        }
    }
    assert!(steps > rounds as usize, "the writers did nothing");
    eprintln!("{rounds} deaths, {steps} lines told");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments() {
    kill_loop(12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn killed_at_random_moments_for_long() {
    let minutes: u32 = std::env::var("SOAK_MINUTES").map_or(5, |m| m.parse().expect("minutes"));
    let end = std::time::Instant::now() + Duration::from_secs(60 * u64::from(minutes));
    while std::time::Instant::now() < end {
        kill_loop(100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_at_every_fail_point() {
    let seed = sample::fresh_seed();
    let mut rng = StdRng::seed_from_u64(seed);
    for point in tipserve_store::FAIL_POINTS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut model = Model::new();
        for _ in 0..3 {
            let passes = rng.random_range(0..4);
            let actions = format!("{point}={passes}*off->return");
            let limit = Duration::from_secs(120);
            let death = run_child(folder.path(), rng.random(), Some(&actions), limit);
            assert_eq!(death.code, Some(86), "{point}: {:?}", death.lines.last());
            let store = sample::local(folder.path()).await;
            model = model::check(&store, model, &death.lines).await;
        }
    }
}

/// Logs what matters for power loss: syncs with their paths, links, renames.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
static void say(const char *what, const char *path) {
    char line[5000];
    int n = snprintf(line, sizeof line, "%s %s\n", what, path);
    int out = open(getenv("TIPSERVE_TEST_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (write(out, line, n) != n) abort();
    close(out);
}
static void say_fd(const char *what, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    say(what, path);
}
int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int r = real(fd);
    say_fd("sync", fd);
    return r;
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
    int r = real(a, from, b, to, flags);
    say("name", to);
    return r;
}
int link(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    int r = real(from, to);
    say("name", to);
    return r;
}
int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    int r = real(from, to);
    say("name", to);
    return r;
}
"#;

/// Not a test of its own: makes one version and sets one alias.
#[tokio::test]
async fn one_of_each() {
    let (Some(folder), Some(log)) = (
        std::env::var_os("TIPSERVE_TEST_SYNCED"),
        std::env::var_os("TIPSERVE_TEST_LOG"),
    ) else {
        return;
    };
    let store = sample::local(Path::new(&folder)).await;
    let note = |text: &str| {
        let file = std::fs::OpenOptions::new().append(true).open(&log);
        file.and_then(|mut f| writeln!(f, "{text}")).expect("noted");
    };
    store
        .create_version(&id("x"), sample::draft(1))
        .await
        .expect("made");
    note("made .");
    let alias = "stable".parse().expect("an alias");
    store
        .set_alias(&id("x"), &alias, number(1), None)
        .await
        .expect("set");
    note("set .");
}

/// Before a name appears, its bytes are on disk; before success is told, so
/// is the name, with every folder above it.
#[test]
fn what_is_acknowledged_was_synced_in_order() {
    let work = tempfile::tempdir().expect("a folder");
    let at = |name: &str| work.path().join(name);
    std::fs::write(at("shim.c"), SHIM).expect("written");
    std::fs::create_dir(at("store")).expect("made");
    std::fs::write(at("log"), b"").expect("written");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([at("shim.so"), at("shim.c")])
        .arg("-ldl")
        .status();
    if !compiled.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no C compiler (cc)");
        return;
    }
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["durability::one_of_each", "--exact"])
        .env("TIPSERVE_TEST_SYNCED", at("store"))
        .env("TIPSERVE_TEST_LOG", at("log"))
        .env("LD_PRELOAD", at("shim.so"))
        .stdout(Stdio::null())
        .status()
        .expect("runs");
    assert!(status.success());
    let log = std::fs::read_to_string(at("log")).expect("reads");
    let store = at("store").canonicalize().expect("there");
    let lines: Vec<(&str, String)> = log
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(what, path)| {
            let path = Path::new(path)
                .strip_prefix(&store)
                .unwrap_or(Path::new(path));
            (what, path.display().to_string())
        })
        .collect();
    let find = |from: usize, what: &str, found: &dyn Fn(&str) -> bool| {
        let mut rest = lines.iter().enumerate().skip(from);
        rest.find(|(_, (w, path))| *w == what && found(path))
            .unwrap_or_else(|| panic!("no {what} from line {from} of\n{log}"))
            .0
    };
    let version = "caches/x/versions/00000001";
    let is_tensors = |p: &str| p.starts_with(&format!("{version}/tensors-"));
    let tensors_synced = find(0, "sync", &is_tensors);
    let tensors_named = find(tensors_synced, "name", &is_tensors);
    let tensors_kept = find(tensors_named, "sync", &|p| p == version);
    let is_manifest = |p: &str| p.starts_with(&format!("{version}/manifest.json"));
    let manifest_synced = find(0, "sync", &is_manifest);
    let manifest_named = find(tensors_kept.max(manifest_synced), "name", &is_manifest);
    let made = find(0, "made", &|_| true);
    let first_name = find(0, "name", &is_manifest);
    assert_eq!(
        first_name, manifest_named,
        "named before all was on disk:\n{log}"
    );
    for folder in [version, "caches/x/versions", "caches/x", "caches", ""] {
        assert!(
            find(manifest_named, "sync", &|p| p == folder) < made,
            "{folder}:\n{log}"
        );
    }
    let is_state = |p: &str| p.starts_with("caches/x/state/00000001.json");
    let state_synced = find(made, "sync", &is_state);
    let state_named = find(state_synced, "name", &is_state);
    let set = find(state_named, "set", &|_| true);
    for folder in ["caches/x/state", "caches/x"] {
        assert!(
            find(state_named, "sync", &|p| p == folder) < set,
            "{folder}:\n{log}"
        );
    }
}
