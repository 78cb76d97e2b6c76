//! What a store must hold after what was acknowledged: a model to hold the
//! reopened store against.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tipserve_store::{AliasName, CacheId, Store, StoreError, VersionNumber};

use crate::sample;

/// One step of a writer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Makes versions at the same time, one of each seed.
    Create {
        cache: CacheId,
        seeds: Vec<u64>,
    },
    SetAlias {
        cache: CacheId,
        alias: AliasName,
        version: VersionNumber,
    },
    DeleteAlias {
        cache: CacheId,
        alias: AliasName,
    },
    DeleteVersion {
        cache: CacheId,
        version: VersionNumber,
    },
    DeleteCache {
        cache: CacheId,
    },
    Retain {
        cache: CacheId,
        keep: usize,
    },
    Sweep,
}

/// What a writer tells, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Line {
    Begin(Op),
    Made {
        seed: u64,
        version: VersionNumber,
    },
    /// The step is done, or was refused as it should be.
    End {
        done: bool,
    },
    Failed(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    pub versions: BTreeMap<VersionNumber, u64>,
    pub aliases: BTreeMap<AliasName, VersionNumber>,
    /// The highest number ever seen.
    pub highest: u64,
}

pub type Model = BTreeMap<CacheId, Cache>;

impl Cache {
    fn retain(&mut self, keep: usize) {
        let aliased: BTreeSet<_> = self.aliases.values().copied().collect();
        let newest: Vec<_> = self.versions.keys().rev().take(keep).copied().collect();
        self.versions
            .retain(|v, _| newest.contains(v) || aliased.contains(v));
    }

    fn clear(&mut self) {
        self.versions.clear();
        self.aliases.clear();
    }
}

/// Applies a step that was acknowledged, creations apart.
pub fn apply(model: &mut Model, op: &Op) {
    match op {
        Op::Create { .. } | Op::Sweep => {}
        Op::SetAlias {
            cache,
            alias,
            version,
        } => {
            let cache = model.entry(cache.clone()).or_default();
            cache.aliases.insert(alias.clone(), *version);
        }
        Op::DeleteAlias { cache, alias } => {
            model
                .entry(cache.clone())
                .or_default()
                .aliases
                .remove(alias);
        }
        Op::DeleteVersion { cache, version } => {
            model
                .entry(cache.clone())
                .or_default()
                .versions
                .remove(version);
        }
        Op::DeleteCache { cache } => model.entry(cache.clone()).or_default().clear(),
        Op::Retain { cache, keep } => model.entry(cache.clone()).or_default().retain(*keep),
    }
}

/// What is in the store, every byte of it read and checked.
pub async fn observe(store: &Store, before: &Model) -> Model {
    let mut seen = before.clone();
    for cache in seen.values_mut() {
        cache.clear();
    }
    let page = store.list_caches(10_000, None).await.expect("lists");
    assert_eq!(page.damaged, []);
    for info in page.caches {
        let cache = seen.entry(info.id.clone()).or_default();
        for version in info.versions {
            let seed = sample::load_whole(store, &info.id, version.number).await;
            cache
                .versions
                .insert(version.number, seed.expect("every version is whole"));
            cache.highest = cache.highest.max(version.number.get());
        }
        for (alias, at) in info.aliases {
            assert!(
                cache.versions.contains_key(&at.version),
                "{alias} at nothing"
            );
            cache.aliases.insert(alias, at.version);
        }
    }
    seen
}

/// The caches that hold versions, whatever numbers were given before.
fn live(model: &Model) -> Model {
    let live = model.iter().filter(|(_, c)| !c.versions.is_empty());
    live.map(|(id, c)| {
        let cache = Cache {
            highest: 0,
            ..c.clone()
        };
        (id.clone(), cache)
    })
    .collect()
}

/// Reads a writer's lines into the model and holds the store against it: all
/// that was acknowledged is there, and of the step under way, all or nothing.
/// Returns the state to go on from.
pub async fn check(store: &Store, mut model: Model, lines: &[Line]) -> Model {
    let mut under_way: Option<&Op> = None;
    let mut unmade: Vec<u64> = Vec::new();
    // The highest number when the step under way began.
    let mut floor = 0;
    for line in lines {
        match line {
            Line::Begin(op) => {
                under_way = Some(op);
                if let Op::Create { cache, seeds } = op {
                    unmade.clone_from(seeds);
                    floor = model.get(cache).map_or(0, |c| c.highest);
                }
            }
            Line::Made { seed, version } => {
                let Some(Op::Create { cache, .. }) = under_way else {
                    panic!("made out of order: {lines:?}");
                };
                let cache = model.entry(cache.clone()).or_default();
                assert!(version.get() > floor, "number {version} again");
                cache.versions.insert(*version, *seed);
                cache.highest = cache.highest.max(version.get());
                unmade.retain(|s| s != seed);
            }
            Line::End { done } => {
                if let (Some(op), true) = (under_way, done) {
                    apply(&mut model, op);
                }
                under_way = None;
                unmade.clear();
            }
            Line::Failed(error) => panic!("a step failed: {error}"),
        }
    }
    let seen = observe(store, &model).await;
    let mut expected = vec![model.clone()];
    match under_way {
        Some(Op::Create { cache, .. }) => {
            // Any of those not acknowledged may be there, whole and new.
            let known = model.get(cache).cloned().unwrap_or_default();
            let extra = seen
                .get(cache)
                .map(|c| c.versions.clone())
                .unwrap_or_default();
            let extra: Vec<_> = extra
                .into_iter()
                .filter(|(v, _)| !known.versions.contains_key(v))
                .collect();
            let there = model.entry(cache.clone()).or_default();
            for (version, seed) in extra {
                assert!(unmade.contains(&seed), "{cache}@{version} was never begun");
                unmade.retain(|s| *s != seed);
                there.versions.insert(version, seed);
                there.highest = there.highest.max(version.get());
            }
            expected = vec![model];
        }
        Some(op) => {
            apply(&mut model, op);
            expected.push(model);
        }
        None => {}
    }
    let seen_live = live(&seen);
    assert!(
        expected.iter().any(|e| live(e) == seen_live),
        "after {under_way:?}: the store holds {seen_live:?}, acknowledged was {:?}",
        expected.first()
    );
    seen
}

/// Does one step and tells of it.
pub async fn perform(store: &Store, sweeper: &Store, op: Op, tell: &(impl Fn(Line) + Sync)) {
    tell(Line::Begin(op.clone()));
    let outcome = match op {
        Op::Create { cache, seeds } => {
            let made = seeds.into_iter().map(|seed| {
                let cache = &cache;
                async move {
                    let manifest = store.create_version(cache, sample::draft(seed)).await?;
                    tell(Line::Made {
                        seed,
                        version: manifest.version,
                    });
                    Ok(())
                }
            });
            futures::future::try_join_all(made).await.map(drop)
        }
        Op::SetAlias {
            cache,
            alias,
            version,
        } => store
            .set_alias(&cache, &alias, version, None)
            .await
            .map(drop),
        Op::DeleteAlias { cache, alias } => {
            store.delete_alias(&cache, &alias, None).await.map(drop)
        }
        Op::DeleteVersion { cache, version } => store.delete_version(&cache, version, None).await,
        Op::DeleteCache { cache } => store.delete_cache(&cache, None).await,
        Op::Retain { cache, keep } => store.retain(&cache, keep, None).await.map(drop),
        Op::Sweep => sweeper.sweep().await.map(drop),
    };
    tell(match outcome {
        Ok(()) => Line::End { done: true },
        Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Line::End { done: false },
        Err(e) => Line::Failed(e.to_string()),
    });
}
