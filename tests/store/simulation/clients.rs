//! Clients of a simulated store: what each does, and the history of what it
//! was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use rand::{Rng as _, seq::IndexedRandom as _};
use tipserve_store::{
    AliasName, CacheId, Condition, NEW, RequestKey, Store, StoreError, StoreOptions, VersionNumber,
};

use super::{
    executor::{ClientEnvironment, Faults, Sim},
    history::History,
    linear::{Step, Timed},
    objects::{Bucket, Connection},
};
use crate::sample::{self, id};

/// One client, with a server's store of its own or one that it shares.
#[derive(Clone)]
pub struct Client {
    pub sim: Sim,
    pub history: History,
    pub store: Store,
    pub caches: Vec<CacheId>,
}

/// How one simulation is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub faults: Faults,
    pub clients: usize,
    pub operations: usize,
    pub caches: usize,
    /// Whether one more client makes many changes in a row.
    pub burst: bool,
}

/// The number of the client of [`Client::burst`].
pub const BURSTING: usize = 80;

pub fn open(sim: &Sim, bucket: &Bucket, client: usize) -> Store {
    let skew = sim.draw(|rng| TimeDelta::hours(rng.random_range(-72..72)));
    let connection = Connection {
        sim: sim.clone(),
        bucket: bucket.clone(),
        client,
        wakeful: client == BURSTING,
    };
    let options = StoreOptions {
        freshness: Duration::ZERO,
        environment: Arc::new(ClientEnvironment {
            sim: sim.clone(),
            skew,
        }),
        ..StoreOptions::default()
    };
    Store::over(Arc::new(connection), options)
}

fn timed((from, to): (u64, u64), step: Step) -> Timed {
    Timed {
        from,
        to,
        step,
        optional: false,
        after: None,
    }
}

fn optional((from, to): (u64, u64), step: Step, after: Option<usize>) -> Timed {
    Timed {
        from,
        to,
        step,
        optional: true,
        after,
    }
}

fn create(seed: u64, number: Option<u64>, only_new: bool) -> Step {
    Step::Create {
        seed,
        number,
        only_new,
    }
}

/// A version that may have been made and may have been taken back, then or by
/// a later sweep.
fn maybe_created(span: (u64, u64), seed: u64, only_new: bool, at: usize) -> Vec<Timed> {
    vec![
        optional(span, create(seed, None, only_new), None),
        optional((span.0, u64::MAX), Step::Retract { made_by: at }, Some(at)),
        // One before it may have been seen for a moment, and taken by a
        // deletion.
        optional(span, create(seed, None, only_new), None),
    ]
}

impl Client {
    pub async fn work(self, operations: usize) {
        for _ in 0..operations {
            let pause = self.sim.draw(|rng| rng.random_range(0..200));
            self.pause(Duration::from_millis(pause)).await;
            let cache = self.sim.draw(|rng| self.caches.choose(rng).cloned());
            let Some(cache) = cache else { return };
            match self.sim.draw(|rng| rng.random_range(0..20)) {
                0..=4 => drop(self.create(&cache, false).await),
                5 => drop(self.create(&cache, true).await),
                6..=7 => self.create_with_request_id(&cache).await,
                8..=10 => {
                    self.set_alias(&cache, self.alias(), self.version()).await;
                }
                11 => self.delete_alias(&cache, self.alias()).await,
                12..=13 => self.delete_version(&cache).await,
                14 => self.delete_cache(&cache).await,
                15 => self.retain(&cache).await,
                _ => self.look(&cache).await,
            }
        }
    }

    /// Changes one cache so often that whoever sleeps meanwhile finds more changes
    /// than a state record names.
    pub async fn burst(self) {
        let seconds = self.sim.draw(|rng| rng.random_range(1..86_400));
        self.pause(Duration::from_secs(seconds)).await;
        let Some(cache) = self.caches.first() else {
            return;
        };
        let Some(version) = self.create(cache, false).await else {
            return;
        };
        for _ in 0..18 {
            let alias = self.alias();
            self.set_alias(cache, alias.clone(), version).await;
            self.delete_alias(cache, alias).await;
        }
    }

    /// Sweeps now and then, hours and days apart.
    pub async fn sweep(self, times: usize) {
        for _ in 0..times {
            let pause = self.sim.draw(|rng| match rng.random_bool(0.5) {
                true => rng.random_range(0..2_000),
                false => rng.random_range(0..2 * 86_400_000),
            });
            self.pause(Duration::from_millis(pause)).await;
            let _ = self.store.sweep().await; // the next one goes on
        }
    }

    async fn pause(&self, duration: Duration) {
        use tipserve_store::Environment as _;
        let environment = ClientEnvironment {
            sim: self.sim.clone(),
            skew: TimeDelta::zero(),
        };
        environment.sleep(duration).await;
    }

    fn alias(&self) -> AliasName {
        let name = self
            .sim
            .draw(|rng| ["stable", "canary"][rng.random_range(0..2)]);
        name.parse().expect("an alias")
    }

    fn version(&self) -> VersionNumber {
        sample::number(self.sim.draw(|rng| rng.random_range(1..6)))
    }

    fn end(&self, from: u64, what: impl FnOnce() -> String) -> (u64, u64) {
        let to = self.sim.moment();
        self.sim.note(|| format!("call {from}..{to}: {}", what()));
        (from, to)
    }

    async fn create(&self, cache: &CacheId, only_new: bool) -> Option<VersionNumber> {
        let from = self.sim.moment();
        let seed = from;
        let condition = match only_new {
            true => Condition::etag(NEW),
            false => Condition::default(),
        };
        let draft = sample::draft(seed);
        let made = self.store.create_version_if(cache, draft, &condition).await;
        let number = made.as_ref().ok().map(|manifest| manifest.version);
        let made = made.map(|manifest| manifest.version.get());
        let span = self.end(from, || {
            format!("create in {cache}, only new: {only_new}: {made:?}")
        });
        if let Ok(number) = made {
            self.history.acknowledge(cache, number, seed);
        }
        self.history.add(cache, |at| match made {
            // A number before it may have been seen for a moment, and taken by
            // a deletion that came before the acknowledgement.
            Ok(number) => {
                let seen = optional(span, create(seed, None, only_new), None);
                let made = timed(span, create(seed, Some(number), only_new));
                vec![seen.clone(), seen, made]
            }
            Err(StoreError::EtagMismatch { .. }) => vec![timed(span, Step::IsThere)],
            Err(_) => maybe_created(span, seed, only_new, at),
        });
        number
    }

    /// Asks until it is told, as a client with a request id does.
    async fn create_with_request_id(&self, cache: &CacheId) {
        let mut from = self.sim.moment();
        let seed = from;
        for _ in 0..3 {
            let mut draft = sample::draft(seed);
            draft.request = Some(RequestKey {
                id: format!("request-{seed}"),
                digest: String::new(),
            });
            let made = self.store.create_version(cache, draft).await;
            let made = made.map(|manifest| manifest.version.get());
            let span = self.end(from, || {
                format!("create in {cache} by request {seed}: {made:?}")
            });
            if let Ok(number) = made {
                self.history.acknowledge(cache, number, seed);
            }
            self.history.add(cache, |at| {
                let mut steps = maybe_created(span, seed, false, at);
                if let Ok(number) = made {
                    steps.push(timed(span, Step::Has { seed, number }));
                }
                steps
            });
            if made.is_ok() {
                return;
            }
            from = self.sim.moment();
        }
    }

    async fn set_alias(&self, cache: &CacheId, alias: AliasName, version: VersionNumber) {
        let from = self.sim.moment();
        let set = self.store.set_alias(cache, &alias, version, None).await;
        let set = set.map(drop);
        let span = self.end(from, || {
            format!("set {cache}@{alias} to {version}: {set:?}")
        });
        let (alias, version) = (alias.to_string(), version.get());
        self.history.add(cache, |_| match set {
            Ok(()) => vec![timed(span, Step::SetAlias { alias, version })],
            Err(StoreError::NotFound { .. }) => {
                // Of the version; or of the cache, which was deleted when its
                // description was to be returned.
                let set = Step::SetAlias { alias, version };
                vec![optional(span, set, None)]
            }
            Err(_) => vec![optional(span, Step::SetAlias { alias, version }, None)],
        });
    }

    async fn delete_alias(&self, cache: &CacheId, alias: AliasName) {
        let from = self.sim.moment();
        let deleted = self.store.delete_alias(cache, &alias, None).await;
        let deleted = deleted.map(drop);
        let span = self.end(from, || format!("delete {cache}@{alias}: {deleted:?}"));
        let alias = alias.to_string();
        self.history.add(cache, |_| match deleted {
            Ok(()) => vec![timed(span, Step::DeleteAlias { alias })],
            Err(_) => vec![optional(span, Step::DeleteAlias { alias }, None)],
        });
    }

    async fn delete_version(&self, cache: &CacheId) {
        let version = self.version();
        let from = self.sim.moment();
        let deleted = self.store.delete_version(cache, version, None).await;
        let span = self.end(from, || format!("delete {cache}@{version}: {deleted:?}"));
        let version = version.get();
        self.history.add(cache, |_| match deleted {
            Ok(()) => vec![timed(span, Step::DeleteVersion { version })],
            Err(StoreError::NotFound { .. }) => vec![timed(span, Step::HasNo { version })],
            Err(StoreError::Conflict { .. }) => vec![timed(span, Step::IsInUse { version })],
            Err(_) => vec![optional(span, Step::DeleteVersion { version }, None)],
        });
    }

    async fn delete_cache(&self, cache: &CacheId) {
        let from = self.sim.moment();
        let deleted = self.store.delete_cache(cache, None).await;
        let span = self.end(from, || format!("delete {cache}: {deleted:?}"));
        self.history.add(cache, |at| {
            let clear = Step::Clear { observed_by: at };
            match deleted {
                Ok(()) => {
                    let mut clear = timed(span, clear);
                    clear.after = Some(at);
                    vec![timed(span, Step::ObserveAll), clear]
                }
                Err(StoreError::NotFound { .. }) => vec![timed(span, Step::IsAbsent)],
                Err(_) => vec![
                    optional(span, Step::ObserveAll, None),
                    optional(span, clear, Some(at)),
                ],
            }
        });
    }

    async fn retain(&self, cache: &CacheId) {
        let keep = self.sim.draw(|rng| rng.random_range(1..3));
        let from = self.sim.moment();
        let deleted = self.store.retain(cache, keep, None).await;
        let span = self.end(from, || format!("retain {keep} of {cache}: {deleted:?}"));
        self.history.add(cache, |at| {
            let remove = Step::Remove { observed_by: at };
            let look = |found| Step::ObserveSuperseded { keep, found };
            match deleted {
                Ok(deleted) => {
                    let found: Vec<u64> = deleted.iter().map(|v| v.get()).collect();
                    let mut remove = timed(span, remove);
                    remove.after = Some(at);
                    vec![timed(span, look(Some(found))), remove]
                }
                Err(StoreError::NotFound { .. }) => vec![timed(span, Step::IsAbsent)],
                Err(_) => vec![
                    optional(span, look(None), None),
                    optional(span, remove, Some(at)),
                ],
            }
        });
    }

    /// Looks at a cache, and loads one of its versions.
    async fn look(&self, cache: &CacheId) {
        let from = self.sim.moment();
        let seen = self.store.cache(cache).await;
        let span = self.end(from, || {
            format!("look at {cache}: {:?}", seen.as_ref().map(|s| &s.etag))
        });
        let info = match seen {
            Ok(info) => info,
            Err(StoreError::NotFound { .. }) => {
                self.history
                    .add(cache, |_| vec![timed(span, Step::IsAbsent)]);
                return;
            }
            Err(e @ StoreError::Damaged { .. }) => return self.history.violation(e.to_string()),
            Err(_) => return,
        };
        let versions: BTreeSet<u64> = info.versions.iter().map(|v| v.number.get()).collect();
        let aliases = info.aliases.iter();
        let aliases = aliases.map(|(alias, to)| (alias.to_string(), to.version.get()));
        let snapshot = Step::Snapshot {
            versions: versions.clone(),
            aliases: aliases.collect(),
        };
        self.history.add(cache, |_| vec![timed(span, snapshot)]);
        let versions: Vec<u64> = versions.into_iter().collect();
        if let Some(number) = self.sim.draw(|rng| versions.choose(rng).copied()) {
            let known = self.history.is_acknowledged(cache, number);
            let loaded = sample::load_whole(&self.store, cache, sample::number(number)).await;
            if let Err(error @ StoreError::Damaged { .. }) = loaded
                && known
            {
                self.history.violation(error.to_string());
            }
        }
    }

    /// What is there in the end, every byte of it.
    pub async fn conclude(self) {
        for cache in &self.caches {
            let from = self.sim.moment();
            let (mut versions, mut aliases) = (BTreeMap::new(), BTreeMap::new());
            match self.store.cache(cache).await {
                Ok(info) => {
                    for version in info.versions {
                        match sample::load_whole(&self.store, cache, version.number).await {
                            Ok(seed) => {
                                versions.insert(version.number.get(), seed);
                            }
                            Err(e) => self.history.violation(format!("in the end: {e}")),
                        }
                    }
                    let to = info.aliases.iter();
                    aliases.extend(to.map(|(a, at)| (a.to_string(), at.version.get())));
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(e) => self.history.violation(format!("in the end: {e}")),
            }
            let span = self.end(from, || {
                format!("in the end {cache}: {versions:?} {aliases:?}")
            });
            let end = Step::Final { versions, aliases };
            self.history.add(cache, |_| vec![timed(span, end)]);
            // And the numbers go on.
            let _ = self.create(cache, false).await; // may be refused
        }
    }
}

pub fn ids(count: usize) -> Vec<CacheId> {
    ["a", "b", "c"]
        .iter()
        .take(count)
        .map(|name| id(name))
        .collect()
}
