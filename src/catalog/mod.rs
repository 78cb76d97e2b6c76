//! The catalogue of classifiers: makes versions of caches from labelled
//! features, loads them into memory, fine-tunes them. It joins the crates for
//! encoders, methods, engine and store; it knows nothing of RPCs.

mod add;
mod analysis;
mod bundle;
mod bundle_state;
mod bundles;
mod check;
mod class_names;
mod classifier;
mod columns;
mod compute;
mod create;
mod encoder;
mod error;
mod examples;
mod features;
mod finetune;
mod finite;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ingredients;
mod journal;
mod label_sets;
mod loader;
mod material;
mod notes;
pub mod orientation;
mod part_weights;
mod precision;
pub mod printable;
mod residual;
mod run;
mod scorecard;
mod selection_size;
mod shares;
mod tensors;
mod text;
mod text_queue;
mod traffic;
mod training;
mod tune;
mod turns;
mod unload;
mod version_memory;
mod versions;

use std::{sync::Arc, time::Duration};

pub use add::{Base, BaseChanges};
pub use analysis::{ExampleNames, LabelledExamples, UnlabelledPool};
pub use bundle::{LoadedBundle, Model};
pub use bundle_state::{BundleFolder, BundleSource, BundleState, BundleStatus, OpenBundles};
pub use bundles::{Bundles, EmbeddingCounts, MAX_BUNDLES};
pub use check::ImportBounds;
pub use class_names::{ClassNames, ClassRef};
pub use classifier::{BoundClassifier, Classifier};
pub use compute::{compute, select};
pub use create::{Recipe, Stage, TextRows, TextSource};
pub use encoder::ServedEncoder;
pub use error::CatalogError;
pub use examples::{ExampleEntry, ExampleList};
pub use features::{CollectedFeatures, ExampleFeature, ExampleNotes, Purpose};
pub use finetune::{FineTunes, Started};
pub use journal::Describe;
pub use notes::{check_metadata, check_uri};
pub use run::{Followed, Recipe as TuneRecipe, Run, RunProgress, TuneRequest};
pub use scorecard::Scorecard;
pub use selection_size::{MAX_SELECTION_LABELS, SelectionSize};
pub use text::{TextEmbedder, TextRequest, class_prompts};
pub use traffic::{Counts, ExampleTraffic, Seen, Traffic};
pub use version_memory::MemoryPermit;

use parking_lot::Mutex;

use crate::telemetry::ResidentFigures;
use loader::Loader;
use tipserve_store::{
    Reference, Resident, Store, VersionKey,
    resident::{Lease, Limits, ResidentError},
};
use version_memory::VersionMemory;

/// Longest display name of a class, bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// Longest description of a version, bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 4096;
/// Longest name of who made a version, bytes.
pub const MAX_CREATED_BY_BYTES: usize = 256;
/// Longest id of an item or example, bytes.
pub const MAX_ID_BYTES: usize = 1024;
/// Most augmented views of an example, R.
pub const MAX_VIEWS: usize = 64;
/// Most classes of a version whose examples have any number of them.
pub const MAX_MULTI_LABEL_CLASSES: usize = 4096;
/// Largest α, β, λ and other numbers of a head.
pub const MAX_MAGNITUDE: f64 = 1e6;
/// Most labels of a version.
pub const MAX_LABELS: usize = 64;
/// Longest key of a label, bytes.
pub const MAX_LABEL_KEY_BYTES: usize = 256;
/// Longest value of a label, bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 1024;

/// Longest URI of an example, bytes.
pub const MAX_URI_BYTES: usize = 2048;
/// Most entries of an example's metadata; its keys and values are bounded as
/// those of labels are.
pub const MAX_METADATA_ENTRIES: usize = 16;

/// How long a load waits for evicted versions that are still in use.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);

/// A classifier in use: it stays in memory until the last lease is dropped.
pub type Served = Lease<BoundClassifier>;

/// Every classifier that this server can serve.
pub struct Catalog {
    store: Store,
    resident: Resident<Loader>,
    bundles: Arc<Bundles>,
    device: tch::Device,
    /// How many of a cache's newest versions stay; 0: all.
    keep_versions: usize,
    /// The examples last listed: the pages of one list follow each other.
    listed: Mutex<Option<Arc<ExampleList>>>,
    /// What calls hold of versions beside those that are resident.
    version_memory: VersionMemory,
}

impl Catalog {
    /// A catalogue over a store, with a budget in bytes for resident versions.
    /// Of each cache it keeps the `keep_versions` newest versions and those
    /// with an alias; 0 keeps all.
    pub fn new(
        store: Store,
        resident_bytes: usize,
        bundles: Arc<Bundles>,
        device: tch::Device,
        keep_versions: usize,
    ) -> Catalog {
        let loader = Loader::new(store.clone(), Arc::clone(&bundles), device);
        let budget = loader.budget(resident_bytes);
        Catalog {
            resident: Resident::new(
                loader,
                Limits {
                    budget,
                    patience: LOAD_PATIENCE,
                },
                loader::observe,
            ),
            store,
            bundles,
            device,
            keep_versions,
            listed: Mutex::new(None),
            version_memory: VersionMemory::new(resident_bytes),
        }
    }

    /// The store that versions are kept in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The bundles that are loaded.
    pub fn bundles(&self) -> &Arc<Bundles> {
        &self.bundles
    }

    /// Most bytes of versions kept in memory.
    pub fn resident_bytes(&self) -> usize {
        let budget = self.resident.stats().budget;
        usize::try_from(budget.host.min(budget.device)).unwrap_or(usize::MAX)
    }

    /// The classifier that a name stands for now, loaded if need be.
    ///
    /// # Errors
    /// The store's, and [`CatalogError::WrongBundle`].
    pub async fn classifier(&self, reference: &Reference) -> Result<Served, CatalogError> {
        // Not by its number alone: whatever happens to a store, a resident
        // version never answers for another one.
        let key = self.store.identify(reference).await?;
        let served = self.resident_version(&key).await?;
        if !served.bundle.is_unloading() {
            return Ok(served);
        }
        // It was being loaded when its bundle left.
        self.resident.remove(&key);
        drop(served);
        self.resident_version(&key).await
    }

    async fn resident_version(&self, key: &VersionKey) -> Result<Served, CatalogError> {
        self.resident.get(key).await.map_err(|error| match error {
            ResidentError::Load(error) => error,
            ResidentError::TooLarge {
                what,
                place,
                size,
                budget,
            } => CatalogError::OverBudget {
                version: what,
                place,
                size,
                budget,
            },
            ResidentError::Busy { .. } | ResidentError::Stopped { .. } => CatalogError::NotLoaded {
                detail: error.to_string(),
            },
        })
    }

    /// What the resident set has done.
    pub fn resident_figures(&self) -> ResidentFigures {
        let stats = self.resident.stats();
        ResidentFigures {
            count: stats.count,
            bytes: stats.bytes.host + stats.bytes.device,
            hits: stats.hits,
            loads: stats.loads,
            failures: stats.failures,
            evictions: stats.evictions,
        }
    }
}
