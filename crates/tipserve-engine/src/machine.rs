//! The resources that the engines of a process share.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    admission::Admission,
    embeddings::{EmbeddingCache, Embeddings},
    settings::EngineSettings,
    slots::{Share, Slots},
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
    pub embeddings: Option<Arc<Embeddings>>,
}

impl Machine {
    /// A machine for engines of these settings.
    pub fn new(settings: &EngineSettings) -> Machine {
        Machine(Arc::new(Parts {
            admission: Admission::new(settings.queue_items, settings.queue_bytes),
            decoders: Slots::new(settings.threads.decoders),
            workers: Slots::new(settings.threads.workers),
            heads: Slots::new(1),
            embeddings: (settings.embedding_cache_bytes > 0)
                .then(|| EmbeddingCache::new(settings.embedding_cache_bytes)),
            engines: AtomicU32::new(0),
        }))
    }

    /// Runs work that keeps a core or a device busy for a while, such as
    /// loading another model, as if it were a batch of an engine.
    pub fn in_turn<T>(&self, run: impl FnOnce() -> T) -> T {
        let share = self.0.workers.share();
        let _slot = share.enter();
        run()
    }

    pub(crate) fn shares(&self) -> Shares {
        let parts = &self.0;
        let number = parts.engines.fetch_add(1, Ordering::Relaxed);
        Shares {
            admission: parts.admission.sibling(),
            decoders: parts.decoders.share(),
            workers: parts.workers.share(),
            heads: parts.heads.share(),
            embeddings: parts
                .embeddings
                .as_ref()
                .map(|cache| Embeddings::new(cache, number)),
        }
    }
}
