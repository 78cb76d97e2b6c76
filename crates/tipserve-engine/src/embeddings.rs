//! The embedding cache: a picture that was encoded lately, or is being
//! encoded, is not encoded again. Off by default.
//!
//! A content has a key, the hash of what the client sent. Held features are
//! looked up at admission (a hit goes straight to the head) and once more when
//! the picture's turn at a decoder comes; there, a picture whose content is
//! on its way to the encoder already follows that one, its *leader*. Following
//! starts at the picture's own turn and not at admission, so that the leader is
//! always ahead of it: queueing behind a greedy flow's copy would be unfair,
//! and so an interactive picture never follows a bulk one. The leader may then
//! still wait in the ready queue, which is bounded to two batches a worker.
//!
//! Every follower keeps its own head, deadline and ticket. A leader that lapses
//! hands its prepared pixels and its place to its first follower that has not;
//! one that fails gives its followers the same error.
//!
//! All engines of a machine share one cache, so that it stays within its bound
//! however many there are. An engine keeps its encoder, so its number is part
//! of the key instead of the bundle's fingerprint. Only centre crops are
//! cached: a random view is seldom drawn twice.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
// Bounded by weight at every moment, which moka's is not (it evicts later, in
// batches); small, without threads of its own.
use quick_cache::{Weighter, sync::Cache};

use crate::{
    counters::Counters,
    error::EngineError,
    job::{Content, Crop, Item, Priority, Source, lapse},
    stage::Stage,
};
use tipserve_clip::ExifOrientation;

/// What an entry takes beside its feature: the key, the counted pointer's
/// header and the table's slot, rounded up.
const ENTRY_BYTES: u64 = 128;
/// Width that the number of entries is estimated with, before any is cached.
const TYPICAL_WIDTH: usize = 512;

/// The hash of a picture as it was sent. BLAKE3: it must resist collisions
/// made on purpose, as callers share the cache, and is several times as fast
/// as SHA-256 on machines without instructions for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContentKey([u8; 32]);

impl ContentKey {
    /// The key of a content whose feature may be kept.
    fn of(content: &Content) -> Option<ContentKey> {
        let Content::Picture {
            source,
            crop: Crop::Centre,
        } = content
        else {
            return None;
        };
        let mut hasher = blake3::Hasher::new();
        match source {
            Source::File {
                bytes,
                exif_orientation,
            } => {
                let kind: &[u8; 4] = match exif_orientation {
                    ExifOrientation::Ignore => b"file",
                    ExifOrientation::Apply => b"turn",
                };
                hasher.update(kind).update(bytes)
            }
            Source::Rgb {
                width,
                height,
                data,
            } => hasher
                .update(b"rgb ")
                .update(&width.to_le_bytes())
                .update(&height.to_le_bytes())
                .update(data),
        };
        Some(ContentKey(hasher.finalize().into()))
    }
}

/// An engine's number, and a content that it has encoded.
type CacheKey = (u32, ContentKey);

/// A feature that is kept.
#[derive(Clone, Debug)]
pub(super) struct CachedEmbedding {
    /// The unit feature, f32 [D].
    pub unit: Arc<[f32]>,
    /// Length of the encoder's raw output.
    pub norm: f32,
    /// Whether the picture's file lacks its end mark.
    pub lacks_end_mark: bool,
}

#[derive(Clone)]
struct Weight;

impl Weighter<CacheKey, CachedEmbedding> for Weight {
    fn weight(&self, _: &CacheKey, cached: &CachedEmbedding) -> u64 {
        size_of_val(&*cached.unit) as u64 + ENTRY_BYTES
    }
}

/// Items that wait for the feature of an equal picture ahead of them, oldest
/// first. Their own pictures are dropped: where the leader lapses, its pixels
/// are passed on. A leader and its followers are of one priority, but that bulk
/// items may follow an interactive one.
type InFlight = HashMap<(ContentKey, Priority), VecDeque<Item>>;

/// The memory for features, shared by the engines of a machine.
#[derive(Debug)]
pub(super) struct EmbeddingCache(Cache<CacheKey, CachedEmbedding, Weight>);

impl EmbeddingCache {
    /// An empty cache that holds at most `bytes` bytes of features.
    pub fn new(bytes: usize) -> Arc<EmbeddingCache> {
        let typical = TYPICAL_WIDTH * size_of::<f32>() + ENTRY_BYTES as usize;
        let cache = Cache::with_weighter(bytes.div_ceil(typical), bytes as u64, Weight);
        Arc::new(EmbeddingCache(cache))
    }
}

/// An engine's cached features, and the contents on their way to its encoder.
pub(super) struct Embeddings {
    cache: Arc<EmbeddingCache>,
    engine: u32,
    in_flight: Mutex<InFlight>,
}

impl fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embeddings")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// A picture's part in single-flight, once its turn at a decoder has come.
pub(super) enum Role {
    /// Its feature is cached; the item is given back.
    Cached(Item, CachedEmbedding),
    /// An equal picture is ahead, and will share its feature.
    Follower,
    /// The first of its content: it is the leader.
    Leader(Item, Leader),
}

impl Embeddings {
    /// The cache of the engine with this number.
    pub fn new(cache: &Arc<EmbeddingCache>, engine: u32) -> Arc<Embeddings> {
        Arc::new(Embeddings {
            cache: Arc::clone(cache),
            engine,
            in_flight: Mutex::default(),
        })
    }

    /// The content's key, and its feature if that is held.
    pub fn look_up(&self, content: &Content) -> Option<(ContentKey, Option<CachedEmbedding>)> {
        let key = ContentKey::of(content)?;
        Some((key, self.cached(&key)))
    }

    /// The feature, if it is held.
    pub fn cached(&self, key: &ContentKey) -> Option<CachedEmbedding> {
        self.cache.0.get(&(self.engine, *key))
    }

    /// The cached features of all engines, and their bytes, keys included.
    pub fn held(&self) -> (usize, u64) {
        (self.cache.0.len(), self.cache.0.weight())
    }

    /// Drops the engine's features when it stops: no other can use them.
    pub fn clear(&self) {
        self.cache.0.retain(|(engine, _), _| *engine != self.engine);
    }

    /// Takes an item whose turn at a decoder has come.
    pub fn join(self: &Arc<Self>, key: ContentKey, item: Item, counters: &Counters) -> Role {
        let mut in_flight = self.in_flight.lock();
        // A leader caches its feature before it leaves the pictures in flight,
        // so that under the lock one of the two is seen.
        if let Some(cached) = self.cached(&key) {
            counters.embedding_hits.fetch_add(1, Ordering::Relaxed);
            return Role::Cached(item, cached);
        }
        let followed = match item.priority {
            Priority::Bulk if !in_flight.contains_key(&(key, Priority::Interactive)) => {
                Priority::Bulk
            }
            _ => Priority::Interactive,
        };
        if let Some(followers) = in_flight.get_mut(&(key, followed)) {
            followers.push_back(item);
            counters.embedding_coalesced.fetch_add(1, Ordering::Relaxed);
            return Role::Follower;
        }
        in_flight.insert((key, followed), VecDeque::new());
        counters.embedding_misses.fetch_add(1, Ordering::Relaxed);
        let leader = Leader {
            embeddings: Arc::clone(self),
            key,
            priority: followed,
            ended: false,
        };
        Role::Leader(item, leader)
    }
}

/// The right, and duty, to settle a content in flight. It goes with the item
/// that is encoded; dropped, it gives followers no answer but their tickets'
/// own.
pub(super) struct Leader {
    embeddings: Arc<Embeddings>,
    key: ContentKey,
    priority: Priority,
    ended: bool,
}

impl Leader {
    /// The key under which the leader will publish its feature.
    pub fn key(&self) -> &ContentKey {
        &self.key
    }

    /// The first follower that is alive, to take the place of a leader that is
    /// not; if there is none, the content is no longer in flight. Others
    /// are answered.
    pub fn successor(&mut self, counters: &Counters) -> Option<Item> {
        loop {
            let next = {
                let mut in_flight = self.embeddings.in_flight.lock();
                let next = in_flight
                    .get_mut(&(self.key, self.priority))
                    .and_then(VecDeque::pop_front);
                if next.is_none() {
                    in_flight.remove(&(self.key, self.priority));
                    self.ended = true;
                }
                next
            }?;
            let stage = Stage::EqualPicture;
            match lapse(next.deadline, &next.cancelled, stage) {
                None => return Some(next),
                Some(error) => {
                    counters.dropped.fetch_add(1, Ordering::Relaxed);
                    next.ticket.answer(Err(error));
                }
            }
        }
    }

    /// Keeps the feature, and returns the items that wait for it.
    pub fn publish(mut self, cached: CachedEmbedding) -> VecDeque<Item> {
        let embeddings = &self.embeddings;
        let key = (embeddings.engine, self.key);
        embeddings.cache.0.insert(key, cached);
        let mut followers = self.end();
        if self.priority == Priority::Interactive {
            // Items that follow a slower bulk leader need wait no longer.
            let mut in_flight = self.embeddings.in_flight.lock();
            if let Some(bulk) = in_flight.get_mut(&(self.key, Priority::Bulk)) {
                followers.append(bulk);
            }
        }
        followers
    }

    /// Gives every follower this error.
    pub fn fail(mut self, error: &EngineError) {
        for follower in self.end() {
            follower.ticket.answer(Err(error.clone()));
        }
    }

    fn end(&mut self) -> VecDeque<Item> {
        if std::mem::replace(&mut self.ended, true) {
            return VecDeque::new();
        }
        let mut in_flight = self.embeddings.in_flight.lock();
        in_flight
            .remove(&(self.key, self.priority))
            .unwrap_or_default()
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        drop(self.end());
    }
}
