//! What the engines of a process share of their machine.

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

/// What engines on one machine share: the bounds on what is admitted, the slots
/// in which pictures are decoded, batches encoded and heads computed, and the
/// memory for cached embeddings. An engine alone has all of it; of several,
/// each gets its turn, by the time that its batches take.
///
/// There are as many slots as one engine has threads for a stage, so that any
/// number of engines load the machine no more than one does.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    admission: Admission,
    decoders: Arc<Slots>,
    workers: Arc<Slots>,
    heads: Arc<Slots>,
    /// Absent where it is off.
    embeddings: Option<Arc<EmbeddingCache>>,
    engines: AtomicU32,
}

/// An engine's shares.
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

    /// Runs something that keeps a core or a device busy for a while, such as
    /// loading another model, as one batch among those of the engines.
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
