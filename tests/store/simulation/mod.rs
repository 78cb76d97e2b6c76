//! Clients of one store under a simulated storage, clock and scheduler: what
//! they were told must be what one cache on one machine could have told them.
//!
//! Every run is drawn from a seed. One that fails prints it, and
//! `TIPSERVE_SIM_SEED=… cargo test -p tipserve-store --test store simulation`
//! runs it again, step by step the same. `TIPSERVE_SIM_SEEDS` says how many
//! seeds are tried; `make soak` tries fresh ones for `SOAK_MINUTES`.

mod clients;
mod executor;
mod history;
mod linear;
mod objects;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use clients::{Client, Plan};
use executor::{Faults, Sim};
use history::History;
use objects::Bucket;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::sample;

/// Seeds that a run of the tests tries.
const SEEDS: u64 = 3000;
/// Of how many plans one has a burst of changes.
const BURSTS: u32 = 16;
/// Seeds that found something: a conditional create was refused as if it had
/// made nothing, though its version had been seen and then deleted; the mark of
/// a writer that woke up after its cache was deleted let another such writer
/// take the cache's first number again; an alias was set to a version whose
/// parts had been swept, or given notice of, before its writer woke up and published it;
/// a version that was refused, and absent to who looked, appeared when the sweep withdrew
/// its notice; a deletion whose writer had slept was acknowledged because the storage
/// did not answer when it asked whether its record still counts; a version that a sweep
/// had given notice of was there as long as another writer's tensors lay beside its own;
/// a change was made twice, as its writer found 24 newer ones and could not tell.
const ONCE_FAILED: [u64; 8] = [
    1_168_624_667_483_823_531,
    9_520_645_421_538_678_475,
    8_349_102_062_306_758_642,
    892_471_234_870_899_713,
    13_315_332_657_019_297_502,
    18_384_508_798_162_827_154,
    3_974_830_901_582_496_791,
    17_091_519_908_328_189_536,
];

fn plan(seed: u64) -> Plan {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let often = |rng: &mut StdRng| [0, 0, 5, 20, 60][rng.random_range(0..5)];
    let plan = Plan {
        faults: Faults {
            failed: often(&mut rng),
            answer_lost: often(&mut rng),
            suspended: often(&mut rng),
        },
        clients: rng.random_range(2..5),
        operations: rng.random_range(2..8),
        caches: rng.random_range(1..3),
        burst: false,
    };
    if rng.random_range(0..BURSTS) > 0 {
        return plan;
    }
    // The checker takes 128 steps of a cache, and each that may or may not have
    // happened doubles what it has to try.
    Plan {
        faults: Faults {
            suspended: 60,
            ..Faults::default()
        },
        clients: 2,
        operations: plan.operations.min(3),
        caches: 1,
        burst: true,
    }
}

/// What one seed came to.
#[derive(Debug, PartialEq)]
struct Run {
    trace: Vec<String>,
    /// Whether the checker gave up on the history of one of its caches.
    undecided: bool,
}

/// Runs one seed; returns what happened.
///
/// # Errors
/// What it was that could not have been.
fn simulate(seed: u64) -> Result<Run, String> {
    let plan = plan(seed);
    let (sim, bucket, history) = (
        Sim::new(seed, plan.faults),
        Bucket::default(),
        History::default(),
    );
    let client = |store| Client {
        sim: sim.clone(),
        history: history.clone(),
        store,
        caches: clients::ids(plan.caches),
    };
    let mut shared = None;
    for number in 0..plan.clients {
        // Some share a server, and so what it remembers.
        let share = sim.draw(|rng| rng.random_bool(0.4));
        let store = match shared.take() {
            Some(store) if share => store,
            _ => clients::open(&sim, &bucket, number),
        };
        shared = Some(store.clone());
        sim.spawn(Box::pin(client(store).work(plan.operations)));
    }
    if plan.burst {
        let store = clients::open(&sim, &bucket, clients::BURSTING);
        sim.spawn(Box::pin(client(store).burst()));
    }
    let sweeper = clients::open(&sim, &bucket, 90);
    sim.spawn(Box::pin(client(sweeper).sweep(4)));
    sim.run();
    // The dust settles; another server looks.
    sim.stop_faults();
    let sweeper = clients::open(&sim, &bucket, 91);
    sim.spawn(Box::pin(client(sweeper).sweep(3)));
    sim.run();
    let reader = clients::open(&sim, &bucket, 92);
    sim.spawn(Box::pin(client(reader).conclude()));
    sim.run();

    let mut trace = sim.trace();
    trace.extend(bucket.paths());
    let explain = |what: String| format!("{what}\n{plan:?}\n{}", trace.join("\n"));
    if let Some(violation) = history.violations().first() {
        return Err(explain(violation.clone()));
    }
    let mut undecided = false;
    for (cache, steps) in history.of_caches() {
        match linear::linearize(&steps) {
            Ok(Some(_)) => {}
            Ok(None) => {
                eprintln!("seed {seed}, {cache}: undecided");
                undecided = true;
            }
            Err(longest) => {
                let told: Vec<String> = steps
                    .iter()
                    .enumerate()
                    .map(|(i, step)| {
                        let order = longest.iter().position(|l| *l == i);
                        format!("{i:>3} {order:?} {step:?}")
                    })
                    .collect();
                let what = format!("{cache}: no order explains\n{}", told.join("\n"));
                return Err(explain(what));
            }
        }
    }
    Ok(Run { trace, undecided })
}

fn try_seed(seed: u64) -> Result<Run, String> {
    catch_unwind(AssertUnwindSafe(|| simulate(seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", text.unwrap_or("of unknown text")))
    })
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
    )
}

/// Tries seeds from `first` on, on every core, until `enough` says so.
fn try_seeds(first: u64, enough: impl Fn(u64) -> bool + Sync) {
    let (next, undecided) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let tried = next.fetch_add(1, Relaxed);
                        if enough(tried) {
                            return Ok(());
                        }
                        let seed = first.wrapping_add(tried);
                        let run = try_seed(seed).map_err(|why| (seed, why))?;
                        undecided.fetch_add(u64::from(run.undecided), Relaxed);
                    }
                })
            })
            .collect();
        for worker in workers {
            if let Err((seed, why)) = worker.join().expect("a worker") {
                panic!("TIPSERVE_SIM_SEED={seed} fails: {why}");
            }
        }
    });
    let (tried, undecided) = (next.into_inner(), undecided.into_inner());
    eprintln!("{tried} histories are linearizable, but for {undecided} that are undecided");
    // One in ten thousand is; a checker that gives up often proves nothing.
    assert!(
        undecided <= 3 + tried / 1000,
        "{undecided} of {tried} are undecided"
    );
}

#[test]
fn histories_of_concurrent_clients_are_linearizable() {
    if let Some(seed) = setting("TIPSERVE_SIM_SEED") {
        match try_seed(seed) {
            Ok(run) => eprintln!("{}", run.trace.join("\n")),
            Err(why) => panic!("TIPSERVE_SIM_SEED={seed} fails: {why}"),
        }
        return;
    }
    for seed in ONCE_FAILED {
        if let Err(why) = try_seed(seed) {
            panic!("TIPSERVE_SIM_SEED={seed} fails: {why}");
        }
    }
    let seeds = setting("TIPSERVE_SIM_SEEDS").unwrap_or(SEEDS);
    try_seeds(sample::fresh_seed(), |tried| tried >= seeds);
}

#[test]
#[ignore = "long: make soak"]
fn histories_of_concurrent_clients_are_linearizable_for_long() {
    let minutes = setting("SOAK_MINUTES").unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    try_seeds(sample::fresh_seed(), |_| Instant::now() >= end);
}

#[test]
fn a_seed_replays() {
    let seed = sample::fresh_seed();
    for seed in (0..20).map(|i| seed.wrapping_add(i)) {
        assert_eq!(try_seed(seed), try_seed(seed), "seed {seed}");
    }
}
