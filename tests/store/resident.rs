//! Resident values: loaded once, kept within budgets, never freed in use.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use rand::Rng as _;
use tipserve_store::resident::{Event, Footprint, Limits, Load, Resident, ResidentError};
use tokio::sync::Semaphore;

/// Makes values of the size that their key says, as fast as it is let.
struct Loader {
    loads: AtomicUsize,
    gate: Semaphore,
    alive: Arc<AtomicU64>,
    most_alive: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Value {
    key: u64,
    size: u64,
    alive: Arc<AtomicU64>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.size, SeqCst);
    }
}

fn size(key: u64) -> u64 {
    key % 1000
}

const BAD: u64 = 1_000_010;
const PANICS: u64 = 2_000_010;

impl Load for Loader {
    type Key = u64;
    type Value = Value;
    type Error = String;

    async fn footprint(&self, key: &u64) -> Result<Footprint, String> {
        Ok(Footprint::host(size(*key)))
    }

    async fn load(&self, key: &u64) -> Result<Value, String> {
        self.loads.fetch_add(1, SeqCst);
        self.gate.acquire().await.expect("open").forget();
        assert!(*key != PANICS, "as asked");
        if *key == BAD {
            return Err("bad".into());
        }
        let alive = self.alive.fetch_add(size(*key), SeqCst) + size(*key);
        self.most_alive.fetch_max(alive, SeqCst);
        Ok(Value {
            key: *key,
            size: size(*key),
            alive: Arc::clone(&self.alive),
        })
    }
}

struct Fixture {
    loader: Arc<Loader>,
    resident: Resident<Arc<Loader>>,
    events: Arc<Mutex<Vec<Event>>>,
}

fn fixture(budget: u64, gate: usize) -> Fixture {
    fixture_with(budget, gate, Duration::from_secs(60))
}

fn fixture_with(budget: u64, gate: usize, patience: Duration) -> Fixture {
    let loader = Arc::new(Loader {
        loads: AtomicUsize::new(0),
        gate: Semaphore::new(gate),
        alive: Arc::default(),
        most_alive: Arc::default(),
    });
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let limits = Limits {
        budget: Footprint::host(budget),
        patience,
    };
    let tell = move |event| seen.lock().expect("whole").push(event);
    let resident = Resident::new(Arc::clone(&loader), limits, tell);
    Fixture {
        loader,
        resident,
        events,
    }
}

const OPEN: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_loads_once_however_many_ask() {
    let f = fixture(1000, 0);
    let asking: Vec<_> = (0..64)
        .map(|_| {
            let resident = f.resident.clone();
            tokio::spawn(async move { resident.get(&7).await.expect("loads").key })
        })
        .collect();
    while f.loader.loads.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // Some go away; the load goes on.
    for gone in &asking[..32] {
        gone.abort();
    }
    f.loader.gate.add_permits(OPEN);
    for waiting in asking.into_iter().skip(32) {
        assert_eq!(waiting.await.expect("ends"), 7);
    }
    assert_eq!(f.loader.loads.load(SeqCst), 1);
    assert!(f.resident.peek(&7).is_some());
    let stats = f.resident.stats();
    assert_eq!((stats.count, stats.loads, stats.bytes.host), (1, 1, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_everybody_left_is_not_lost() {
    let f = fixture(1000, 0);
    let resident = f.resident.clone();
    let asking = tokio::spawn(async move { resident.get(&7).await.map(|v| v.key) });
    while f.loader.loads.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    f.loader.gate.add_permits(OPEN);
    assert_eq!(f.resident.get(&7).await.expect("loads").key, 7);
    assert_eq!(f.loader.loads.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_load_does_not_hold_up_others() {
    let f = fixture(1000, 0);
    f.loader.gate.add_permits(1);
    f.resident.get(&1).await.expect("loads");
    let resident = f.resident.clone();
    let slow = tokio::spawn(async move { resident.get(&2).await.map(|v| v.key) });
    while f.loader.loads.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(f.resident.get(&1).await.expect("there").key, 1);
    assert!(f.resident.peek(&2).is_none());
    f.loader.gate.add_permits(OPEN);
    assert_eq!(slow.await.expect("ends").expect("loads"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_goes_first() {
    let f = fixture(100, OPEN);
    for key in [1030, 2030, 3030] {
        f.resident.get(&key).await.expect("loads");
    }
    f.resident.get(&1030).await.expect("there");
    f.resident.get(&4030).await.expect("loads");
    let mut keys = f.resident.keys();
    keys.sort_unstable();
    assert_eq!(keys, [1030, 3030, 4030]);
    let evicted = Event::Evicted {
        footprint: Footprint::host(30),
    };
    let events = f.events.lock().expect("whole").clone();
    assert_eq!(events.iter().filter(|e| **e == evicted).count(), 1);
    assert_eq!(events.iter().filter(|e| **e == Event::Hit).count(), 1);
    let loaded = |e: &&Event| {
        matches!(
            e,
            Event::Loaded {
                footprint: Footprint { host: 30, .. },
                ..
            }
        )
    };
    assert_eq!(events.iter().filter(loaded).count(), 4);
    let stats = f.resident.stats();
    assert_eq!(
        (stats.count, stats.bytes.host, stats.evictions, stats.hits),
        (3, 90, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_never_freed_and_counts() {
    let f = fixture(100, OPEN);
    let lease = f.resident.get(&1060).await.expect("loads");
    let resident = f.resident.clone();
    let waiting = tokio::spawn(async move { resident.get(&2060).await.map(|v| v.key) });
    while f.resident.keys().contains(&1060) {
        tokio::task::yield_now().await; // until it is evicted, in use
    }
    assert_eq!(lease.key, 1060);
    assert_eq!(f.loader.alive.load(SeqCst), 60);
    assert_eq!(
        f.loader.loads.load(SeqCst),
        1,
        "no second load while there is no room"
    );
    drop(lease);
    assert_eq!(waiting.await.expect("ends").expect("loads"), 2060);
    assert_eq!(f.loader.most_alive.load(SeqCst), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_evicted_than_is_needed() {
    let f = fixture(100, OPEN);
    let oldest = f.resident.get(&1050).await.expect("loads");
    f.resident.get(&2030).await.expect("loads");
    let resident = f.resident.clone();
    let waiting = tokio::spawn(async move { resident.get(&3060).await.map(|v| v.key) });
    while f.resident.keys().contains(&1050) {
        tokio::task::yield_now().await;
    }
    assert!(
        f.resident.peek(&2030).is_some(),
        "the oldest alone makes the room"
    );
    drop(oldest);
    assert_eq!(waiting.await.expect("ends").expect("loads"), 3060);
    assert!(f.resident.peek(&2030).is_some());
}

#[tokio::test]
async fn a_load_without_room_ends_with_a_reason() {
    let f = fixture_with(100, OPEN, Duration::from_millis(20));
    let _lease = f.resident.get(&1060).await.expect("loads");
    let error = f.resident.get(&2060).await.expect_err("no room");
    assert!(matches!(error, ResidentError::Busy { .. }), "{error}");
}

#[tokio::test]
async fn one_larger_than_the_budget_is_refused_with_both_numbers() {
    let f = fixture(500, OPEN);
    f.resident.get(&10).await.expect("loads");
    let error = f
        .resident
        .get(&501)
        .await
        .expect_err("too large")
        .to_string();
    assert!(error.contains("501") && error.contains("500"), "{error}");
    assert_eq!(
        f.loader.loads.load(SeqCst),
        1,
        "refused before it is loaded"
    );
    assert!(f.resident.peek(&10).is_some(), "nothing was evicted for it");
    f.resident.get(&500).await.expect("just fits");
}

#[tokio::test]
async fn failures_are_not_remembered() {
    let f = fixture(100, OPEN);
    for tries in 1..=3 {
        let error = f.resident.get(&BAD).await.expect_err("bad");
        assert_eq!(error, ResidentError::Load("bad".into()));
        assert_eq!(f.loader.loads.load(SeqCst), tries);
    }
    let error = f.resident.get(&PANICS).await.expect_err("panics");
    assert!(matches!(error, ResidentError::Stopped { .. }), "{error}");
    assert_eq!(f.resident.stats().bytes, Footprint::default());
    assert_eq!(f.resident.stats().failures, 4);
    f.resident
        .get(&1100)
        .await
        .expect("all room is there again");
}

#[tokio::test]
async fn a_removed_value_goes_when_its_last_user_does() {
    let f = fixture(100, OPEN);
    let lease = f.resident.get(&1060).await.expect("loads");
    f.resident.remove(&1060);
    assert!(f.resident.peek(&1060).is_none());
    assert_eq!(f.resident.stats().bytes.host, 60);
    drop(lease);
    assert_eq!(f.resident.stats().bytes.host, 0);
    assert_eq!(f.resident.stats().evictions, 0);
}

/// Many tasks, far more values than fit: the budget holds at every moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_holds_under_a_crowd() {
    let f = fixture(1000, OPEN);
    let users: Vec<_> = (0..16)
        .map(|_| {
            let resident = f.resident.clone();
            tokio::spawn(async move {
                for _ in 0..300 {
                    let key = rand::rng().random_range(1..40) * 1000 + 90;
                    let lease = resident.get(&key).await.expect("loads");
                    assert_eq!(lease.key, key);
                    if rand::random_ratio(1, 8) {
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                    let again = lease.clone();
                    drop(lease);
                    assert_eq!(again.key, key);
                }
            })
        })
        .collect();
    for user in users {
        user.await.expect("ends");
    }
    assert!(f.loader.most_alive.load(SeqCst) <= 1000);
    let stats = f.resident.stats();
    assert!(stats.evictions > 0 && stats.hits > 0);
    assert_eq!(stats.bytes.host, f.loader.alive.load(SeqCst));
    assert_eq!(stats.bytes.host, stats.count * 90);
}
