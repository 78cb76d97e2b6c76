//! Versioned caches on an object store: a local folder, S3, Google Cloud
//! Storage or Azure Blob Storage.
//!
//! Every change is a new object, created only if there is none of its name; a
//! version exists once its manifest does. So the same code is safe on a local
//! disk and on a bucket with many replicas, without locks or a database.
//! `docs/storage.md` describes format, layout and promises.
//!
//! - [`Store`]: versions, aliases, deletion, sweeping, export and import, and
//!   the records of fine-tuning runs.
//! - [`Draft`] and [`Manifest`]: a version before and after it is published.
//! - [`Resident`]: values kept in memory within a budget, loaded once however
//!   many ask.
//!
//! ```no_run
//! use tipserve_store::{Draft, Store, StoreError};
//!
//! async fn publish(draft: Draft) -> Result<(), StoreError> {
//!     let store = Store::open("s3://bucket/caches").await?;
//!     let id = "fabric".parse()?;
//!     // Durable once this returns; asking again with the same request id
//!     // returns the same version.
//!     let made = store.create_version(&id, draft).await?;
//!     store.set_alias(&id, &"stable".parse()?, made.version, None).await?;
//!     // Another server sees the alias within a second, and loads every byte
//!     // checked.
//!     let (id, version) = store.resolve(&"fabric@stable".parse()?).await?;
//!     let (manifest, tensors) = store.load(&id, version).await?;
//!     println!("{} holds {:?}", manifest.resource_name(), tensors.names());
//!     Ok(())
//! }
//! ```

mod backend;
mod changes;
mod condition;
mod environment;
mod error;
mod failures;
mod fault;
mod folder;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod garbage;
mod layout;
mod listing;
pub mod manifest;
mod mapped;
mod open;
mod pictures;
mod publish;
mod requests;
pub mod resident;
mod runs;
mod sealed;
mod state;
pub mod tensors;
mod tombstones;
mod transfer;
mod versions;
mod view;
mod views;
mod wire;

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use object_store::{ObjectMeta, ObjectStore};

pub use condition::{Condition, NEW, Needs};
pub use environment::{Environment, System};
pub use error::StoreError;
pub use fault::FAIL_POINTS;
pub use folder::Identity;
pub use garbage::Swept;
pub use listing::{AliasInfo, CacheInfo, CachePage, VersionInfo};
pub use manifest::{
    ClassRecord, Details, Draft, EncoderRecord, ExifOrientation, FineTuneRecipe, FineTuneRecord,
    Manifest, PartWeight, RequestKey, SourceCounts, TensorsRecord,
};
pub use pictures::{PictureColumn, PicturePlace};
pub use requests::MAX_REQUEST_ID_BYTES;
pub use resident::Resident;
pub use runs::{
    MAX_RUN_ID_BYTES, MAX_RUNS_KEPT, RunError, RunProgress, RunRecord, RunState, StoredRun,
};
pub use sealed::FORMAT;
pub use tensors::{Dtype, NamedTensor, TensorFile, TensorView, TextColumn};
use tipserve_api::names as name;
pub use tipserve_api::names::{
    AliasName, CacheId, MAX_ID_LEN, Reference, VersionNumber, VersionSelector,
};
pub use transfer::{Export, Imported, MANIFEST_KEY};
pub use wire::{BucketAnswer, RequestObserver, Unobserved};

use backend::{Backend, Surroundings};
use view::View;
use views::Views;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Settings of the storage that overrule the environment, by
    /// object_store's keys: `("aws_endpoint", "http://127.0.0.1:8333")`.
    pub settings: Vec<(String, String)>,
    /// How long `latest`, an alias or a deletion made by another server may
    /// stay unseen. Default 1 s. Versions are seen at once by number.
    pub freshness: Duration,
    /// Age from which leftovers of dead writers, and records that newer ones
    /// replaced, are swept. Default one day. No writer may pause longer
    /// between two steps of one change; one that finds that it did gives up.
    pub leftover_age: Duration,
    /// Observes the requests to a bucket, and writes that a disk did not keep.
    pub observer: Arc<dyn RequestObserver>,
    /// Clock, randomness and background tasks: the machine's, except in a
    /// simulation.
    pub environment: Arc<dyn Environment>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            freshness: Duration::from_secs(1),
            leftover_age: Duration::from_secs(24 * 60 * 60),
            observer: Arc::new(wire::Unobserved),
            environment: Arc::new(System),
        }
    }
}

impl StoreOptions {
    fn surroundings(&self) -> Surroundings {
        Surroundings {
            environment: Arc::clone(&self.environment),
            observer: Arc::clone(&self.observer),
        }
    }
}

/// A store of versioned caches. Cheap to clone; clones share what they have
/// seen.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
    views: Arc<Views>,
    /// Versions found damaged, with the state of the file that was found so.
    damaged: Arc<DashMap<(CacheId, VersionNumber), Damage>>,
    options: Arc<StoreOptions>,
}

/// A version that is set aside because it is damaged.
#[derive(Clone, Debug)]
struct Damage {
    error: StoreError,
    /// The tensors file as it was; none if it was absent. When it changes
    /// (restored from a backup, say), it is read again.
    file: Option<ObjectMeta>,
}

/// A version, distinguished from any other that ever had its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionKey {
    /// The cache that it is a version of.
    pub cache: CacheId,
    /// The version's number.
    pub version: VersionNumber,
    /// Of its manifest; none if that is not there to be seen.
    pub identity: Option<Identity>,
}

impl std::fmt::Display for VersionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cache.version_name(self.version))
    }
}

impl Store {
    /// Opens the store at `url`: a folder (made if it is absent), or
    /// `file://`, `s3://BUCKET/PREFIX`, `gs://…`, `az://…` with credentials and
    /// endpoint from the environment, as object_store reads it
    /// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP`, …).
    ///
    /// # Errors
    /// [`StoreError::Open`] where the folder or bucket cannot be used.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, StoreOptions::default()).await
    }

    /// [`Self::open`] with options.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let backend = Backend::open(url, &options.settings, options.surroundings()).await?;
        Ok(Self::on(backend, options))
    }

    /// A store on storage of the caller's own, one that makes durable what it
    /// acknowledges, lists consistently, and creates objects only if absent
    /// if it is asked to.
    pub fn over(objects: Arc<dyn ObjectStore>, options: StoreOptions) -> Self {
        Self::on(Backend::over(objects, options.surroundings()), options)
    }

    fn on(backend: Backend, options: StoreOptions) -> Self {
        let backend = Arc::new(backend);
        let views = Views::new(Arc::clone(&backend), options.freshness);
        Self {
            backend,
            views: Arc::new(views),
            damaged: Arc::new(DashMap::new()),
            options: Arc::new(options),
        }
    }

    /// The memory that tensors of this many bytes take while they are held as
    /// they were read: none if their file is mapped.
    pub fn memory_of(&self, bytes: u64) -> u64 {
        match self.backend.folder() {
            Some(_) if mapped::is_mapped(bytes) => 0,
            _ => bytes,
        }
    }

    fn random_nonce(&self) -> String {
        layout::nonce(self.options.environment.random())
    }

    /// Which version a reference stands for, now. `latest`, aliases and
    /// deletions by other servers are seen within the store's `freshness`, this
    /// store's own changes at once; what is not found is always looked up
    /// afresh. While the storage does not answer, the last view counts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Damaged`] where the cache's
    /// state cannot be read.
    pub async fn resolve(
        &self,
        reference: &Reference,
    ) -> Result<(CacheId, VersionNumber), StoreError> {
        let (number, _) = self.look_up(reference).await?;
        Ok((reference.cache.clone(), number))
    }

    /// [`Self::resolve`], with what distinguishes the version from any other
    /// that may ever have its number: memory of a version is kept under both.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn identify(&self, reference: &Reference) -> Result<VersionKey, StoreError> {
        let (version, view) = self.look_up(reference).await?;
        Ok(VersionKey {
            cache: reference.cache.clone(),
            version,
            identity: view.identity(version).cloned(),
        })
    }

    async fn look_up(
        &self,
        reference: &Reference,
    ) -> Result<(VersionNumber, Arc<View>), StoreError> {
        let id = &reference.cache;
        let look = |view: &View| match &reference.version {
            VersionSelector::Latest => view.latest(),
            VersionSelector::Number(number) => Ok(view.has(*number)?.then_some(*number)),
            VersionSelector::Alias(alias) => view.alias(alias),
        };
        let recent = self.views.recent(id).await?;
        if let Some(number) = look(&recent)?
            && recent.identity(number).is_some()
        {
            return Ok((number, recent));
        }
        let fresh = self.views.fresh(id).await?;
        match look(&fresh)? {
            Some(number) => Ok((number, fresh)),
            None => Err(missing(&fresh, reference)),
        }
    }

    /// The newest version of a cache.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn latest(&self, id: &CacheId) -> Result<VersionNumber, StoreError> {
        let reference = Reference {
            cache: id.clone(),
            version: VersionSelector::Latest,
        };
        self.resolve(&reference).await.map(|(_, number)| number)
    }

    /// Versions that were found damaged and are set aside, with the reasons.
    pub fn set_aside(&self) -> Vec<StoreError> {
        self.damaged.iter().map(|d| d.error.clone()).collect()
    }
}

/// Why `reference` names nothing, with a hint if there is one.
fn missing(view: &View, reference: &Reference) -> StoreError {
    let latest = view.latest().ok().flatten();
    let (what, hint) = match (&reference.version, latest) {
        (_, None) | (VersionSelector::Latest, _) => {
            (reference.cache.resource_name(), String::new())
        }
        (VersionSelector::Number(number), Some(latest)) => {
            let deleted = view.state().is_ok_and(|state| state.is_deleted(*number));
            let hint = if deleted {
                ": it was deleted".to_owned()
            } else {
                format!(": the newest version is {latest}")
            };
            (reference.to_string(), hint)
        }
        (VersionSelector::Alias(_), Some(_)) => {
            let aliases: Vec<&str> = view
                .state()
                .map(|state| state.aliases.keys().map(AliasName::as_str).collect())
                .unwrap_or_default();
            let hint = if aliases.is_empty() {
                ": the cache has no aliases".to_owned()
            } else {
                format!(": the cache's aliases are {}", aliases.join(", "))
            };
            (reference.to_string(), hint)
        }
    };
    StoreError::NotFound { what, hint }
}
