//! The resources that the engines of a process share.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    admission::Admission,
    embeddings::{EmbeddingCache, Embeddings},
    lone::Team,
    settings::EngineSettings,
    slots::{Share, Slot, Slots},
};

/// The shared resources of engines on one machine: the bounds of admission, the
/// slots for decoding pictures, encoding batches and computing heads, and the
/// memory for cached embeddings. A single engine has all of it; several take
/// turns, by the time that their batches take.
///
/// Each stage has as many slots as one engine has threads, so that several
/// engines load the machine no more than one does.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    admission: Admission,
    decoders: Arc<Slots>,
    workers: Arc<Slots>,
    heads: Arc<Slots>,
    team: Option<Arc<Team>>,
    /// Absent if it is off.
    embeddings: Option<Arc<EmbeddingCache>>,
    engines: AtomicU32,
}

/// An engine's shares of each kind of slot.
#[derive(Debug)]
pub(crate) struct Shares {
    pub admission: Admission,
    pub decoders: Share,
    pub workers: Share,
    pub heads: Share,
    /// For batches that run alone; absent if it would be no quicker.
    pub team: Option<Arc<Team>>,
    pub embeddings: Option<Arc<Embeddings>>,
}

/// Turns on the machine's workers; see [`Machine::turns`].
#[derive(Debug)]
pub struct Turns(Share);

/// A turn on a worker, which ends when it is dropped.
#[derive(Debug)]
pub struct HeldTurn<'a> {
    _slot: Slot<'a>,
}

impl Turns {
    /// Waits for the next turn. Take it for no longer than a batch takes, and
    /// never a second one meanwhile.
    pub fn take(&self) -> HeldTurn<'_> {
        HeldTurn {
            _slot: self.0.enter(),
        }
    }
}

impl Machine {
    /// A machine for engines of these settings.
    pub fn new(settings: &EngineSettings) -> Machine {
        Machine(Arc::new(Parts {
            admission: Admission::new(settings.queue_items, settings.queue_bytes),
            decoders: Slots::new(settings.threads.decoders),
            workers: Slots::new(settings.threads.workers),
            heads: Slots::new(1),
            team: Team::start(settings.threads.lone, settings.threads.intra_op).map(Arc::new),
            embeddings: (settings.embedding_cache_bytes > 0)
                .then(|| EmbeddingCache::new(settings.embedding_cache_bytes)),
            engines: AtomicU32::new(0),
        }))
    }

    /// For work of no engine that keeps a core or a device busy, such as trying
    /// a model that is being loaded: turns as an engine's batches have them.
    pub fn turns(&self) -> Turns {
        Turns(self.0.workers.share())
    }

    pub(crate) fn shares(&self) -> Shares {
        let parts = &self.0;
        let number = parts.engines.fetch_add(1, Ordering::Relaxed);
        Shares {
            admission: parts.admission.sibling(),
            decoders: parts.decoders.share(),
            workers: parts.workers.share(),
            heads: parts.heads.share(),
            team: parts.team.clone(),
            embeddings: parts
                .embeddings
                .as_ref()
                .map(|cache| Embeddings::new(cache, number)),
        }
    }
}
