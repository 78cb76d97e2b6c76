//! The loaded bundles, and loading and unloading while the server runs.
//!
//! Look-ups read a snapshot: they take no lock, and a bundle stays usable even
//! if it is unloaded meanwhile. A version finds its bundle by the fingerprint
//! that it records; a request that names none is served by the default one.

use std::sync::{Arc, atomic::Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use super::{
    BundleFolder, BundleSource, BundleState, BundleStatus, CatalogError, LoadedBundle, Model,
    OpenBundles,
};
use tipserve_engine::{Admission, Engine};
use tipserve_store::Manifest;

/// Most bundles that are loaded at once. With that many, half of the engines'
/// pool is reserved.
pub const MAX_BUNDLES: usize = 16;

// Or the last ones would wait for their parts forever.
const _: () = assert!(2 * MAX_BUNDLES <= Admission::PARTS);

/// The number of leading digits of a fingerprint that suffice to name a bundle,
/// if they are unambiguous.
const SHORT: usize = 12;

/// A bundle that is being unloaded.
struct Leaving {
    model: Model,
    folder: String,
    engine: Engine,
}

/// Pictures that the embedding cache held, missed, and coalesced.
pub type EmbeddingCounts = [u64; 3];

/// The bundles of a server.
pub struct Bundles {
    open: ArcSwap<OpenBundles>,
    loading: Mutex<Vec<BundleFolder>>,
    leaving: Mutex<Vec<Leaving>>,
    /// One load at a time: each may take most of the memory that is left.
    loads: AsyncMutex<()>,
    /// One change of what is open at a time.
    changes: AsyncMutex<()>,
    source: Box<dyn BundleSource>,
    /// Counts of bundles that have been unloaded.
    retired: Mutex<EmbeddingCounts>,
}

fn folder_of(model: &Model, folder: &str) -> BundleFolder {
    BundleFolder {
        folder: folder.to_owned(),
        name: model.name.clone(),
        fingerprint: model.fingerprint.clone(),
    }
}

impl Bundles {
    /// The bundles loaded at the start, the default first.
    ///
    /// # Errors
    /// [`CatalogError::OverLimit`] for more than [`MAX_BUNDLES`].
    pub async fn new(
        default: Arc<LoadedBundle>,
        others: Vec<Arc<LoadedBundle>>,
        source: Box<dyn BundleSource>,
    ) -> Result<Arc<Bundles>, CatalogError> {
        let open = OpenBundles { default, others };
        check_count(open.len())?;
        let bundles = Bundles {
            open: ArcSwap::from_pointee(open),
            loading: Mutex::default(),
            leaving: Mutex::default(),
            loads: AsyncMutex::default(),
            changes: AsyncMutex::default(),
            source,
            retired: Mutex::default(),
        };
        bundles.share_room().await;
        Ok(Arc::new(bundles))
    }

    /// A snapshot of the bundles that serve now.
    pub fn open(&self) -> Arc<OpenBundles> {
        self.open.load_full()
    }

    /// The bundle that serves requests that name none.
    pub fn default_bundle(&self) -> Arc<LoadedBundle> {
        Arc::clone(&self.open.load().default)
    }

    /// The bundle of a name or fingerprint, at least twelve digits of it; the
    /// default if the name is empty.
    ///
    /// # Errors
    /// [`CatalogError::UnknownBundle`], if none or several are called so.
    pub fn named(&self, given: &str) -> Result<Arc<LoadedBundle>, CatalogError> {
        if given.is_empty() {
            return Ok(self.default_bundle());
        }
        let open = self.open.load();
        let is_fingerprint = |bundle: &&Arc<LoadedBundle>| {
            given.len() >= SHORT && bundle.model.fingerprint.starts_with(given)
        };
        let is_name = |bundle: &&Arc<LoadedBundle>| bundle.model.name == given;
        let of_fingerprint: Vec<_> = open.iter().filter(is_fingerprint).collect();
        if let [bundle] = of_fingerprint.as_slice() {
            return Ok(Arc::clone(bundle));
        }
        let mut called = open.iter().filter(is_name);
        match (called.next(), called.next()) {
            (Some(bundle), None) => Ok(Arc::clone(bundle)),
            (first, _) => Err(CatalogError::UnknownBundle {
                given: given.to_owned(),
                problem: match first {
                    None => "is not loaded",
                    Some(_) => "is the name of several bundles: give the fingerprint",
                },
                known: known(&open),
            }),
        }
    }

    /// The bundle of this fingerprint, if it serves.
    pub fn of_fingerprint(&self, fingerprint: &str) -> Option<Arc<LoadedBundle>> {
        let open = self.open.load();
        let mut all = open.iter();
        let found = all.find(|bundle| bundle.model.fingerprint == fingerprint);
        found.cloned()
    }

    /// The bundle whose pictures can be compared with a version's features.
    ///
    /// # Errors
    /// [`CatalogError::WrongBundle`] if its bundle is not loaded;
    /// [`CatalogError::WrongDtype`].
    pub fn serving(&self, manifest: &Manifest) -> Result<Arc<LoadedBundle>, CatalogError> {
        let bundle = self.of_manifest(manifest)?;
        bundle.model.encoder().check(manifest)?;
        Ok(bundle)
    }

    /// The bundle that made a version's features.
    ///
    /// # Errors
    /// [`CatalogError::WrongBundle`] if it is not loaded.
    pub fn of_manifest(&self, manifest: &Manifest) -> Result<Arc<LoadedBundle>, CatalogError> {
        let fingerprint = &manifest.details.bundle_fingerprint;
        self.of_fingerprint(fingerprint)
            .ok_or_else(|| self.not_loaded(manifest.resource_name(), manifest))
    }

    /// The error that a version's bundle is not loaded.
    pub(super) fn not_loaded(&self, version: String, manifest: &Manifest) -> CatalogError {
        let details = &manifest.details;
        CatalogError::WrongBundle {
            version,
            made_with: details.bundle_fingerprint.clone(),
            made_with_name: details.bundle_name.clone(),
            served: known(&self.open.load()),
        }
    }

    /// Whether the devices of all can still run batches.
    pub fn are_healthy(&self) -> bool {
        self.open.load().iter().all(|b| b.engine.is_healthy())
    }

    /// Every engine that runs, with its bundle's name.
    pub fn engines(&self) -> Vec<(String, Engine)> {
        let open = self.open.load();
        let open = open
            .iter()
            .map(|b| (b.model.name.clone(), b.engine.clone()));
        let leaving = self.leaving.lock();
        let leaving = leaving
            .iter()
            .map(|l| (l.model.name.clone(), l.engine.clone()));
        open.chain(leaving).collect()
    }

    /// The embedding cache's counts for all bundles, unloaded ones included.
    pub fn embedding_counts(&self) -> EmbeddingCounts {
        let mut sum = *self.retired.lock();
        for (_, engine) in self.engines() {
            add(&mut sum, counts(&engine));
        }
        sum
    }

    /// Items that have been taken and not yet answered.
    pub fn items(&self) -> usize {
        let engines = self.engines();
        engines.iter().map(|(_, e)| e.admission().items()).sum()
    }

    /// All bundles, those that are loaded first. Reads the disk.
    pub fn statuses(&self) -> Vec<BundleStatus> {
        let open = self.open.load_full();
        let mut found: Vec<BundleStatus> = open
            .iter()
            .enumerate()
            .map(|(index, bundle)| BundleStatus {
                folder: folder_of(&bundle.model, &bundle.folder),
                state: BundleState::Ready,
                is_default: index == 0,
                loaded: Some(Arc::clone(bundle)),
                items: bundle.engine.admission().items(),
            })
            .collect();
        let without = |folder: BundleFolder, state, items| BundleStatus {
            folder,
            state,
            is_default: false,
            loaded: None,
            items,
        };
        found.extend(self.leaving.lock().iter().map(|leaving| {
            let folder = folder_of(&leaving.model, &leaving.folder);
            let items = leaving.engine.admission().items();
            without(folder, BundleState::Unloading, items)
        }));
        let loading = self.loading.lock().clone();
        found.extend(
            loading
                .into_iter()
                .map(|folder| without(folder, BundleState::Loading, 0)),
        );
        for folder in self.source.list() {
            if found.iter().all(|status| status.folder != folder) {
                found.push(without(folder, BundleState::Available, 0));
            }
        }
        found
    }

    /// Loads the bundle in the folder of this name, warms it, and lets it
    /// serve; one that serves already stays as it is. With `make_default` it
    /// then serves requests that name no bundle. Continues if the caller goes
    /// away.
    ///
    /// # Errors
    /// [`CatalogError::UnknownBundle`]; [`CatalogError::UnusableBundle`];
    /// [`CatalogError::BundleBusy`] while it is being unloaded;
    /// [`CatalogError::OverLimit`].
    pub async fn load(
        self: &Arc<Self>,
        folder: String,
        make_default: bool,
    ) -> Result<Arc<LoadedBundle>, CatalogError> {
        let bundles = Arc::clone(self);
        tokio::spawn(async move { bundles.load_now(folder, make_default).await })
            .await
            .map_err(CatalogError::internal)?
    }

    async fn load_now(
        self: Arc<Self>,
        folder: String,
        make_default: bool,
    ) -> Result<Arc<LoadedBundle>, CatalogError> {
        let _load = self.loads.lock().await;
        let found = {
            let (bundles, folder) = (Arc::clone(&self), folder.clone());
            blocking(move || bundles.source.find(&folder)).await?
        };
        let bundle = match self.of_fingerprint(&found.fingerprint) {
            Some(bundle) => bundle,
            None => {
                let change = self.changes.lock().await;
                self.check_room(&found)?;
                self.loading.lock().push(found.clone());
                drop(change);
                let bundles = Arc::clone(&self);
                let loaded = blocking(move || bundles.source.load(&folder)).await;
                self.loading.lock().retain(|loading| *loading != found);
                let bundle = loaded?;
                tracing::info!(
                    bundle = bundle.model.name,
                    fingerprint = bundle.model.fingerprint,
                    seconds = bundle.took.as_secs_f64(),
                    "a bundle serves"
                );
                bundle
            }
        };
        let _change = self.changes.lock().await;
        // It may have been unloaded while this waited.
        if bundle.is_unloading() {
            return Err(unloading(&bundle.model.name));
        }
        let next = self.open.load().with(&bundle, make_default);
        self.open.store(Arc::new(next));
        self.share_room().await;
        Ok(bundle)
    }

    fn check_room(&self, found: &BundleFolder) -> Result<(), CatalogError> {
        let leaving = self.leaving.lock();
        let same = |leaving: &Leaving| leaving.model.fingerprint == found.fingerprint;
        if leaving.iter().any(same) {
            return Err(unloading(&found.name));
        }
        check_count(self.open.load().len() + leaving.len() + 1)
    }

    /// Removes a bundle from those that serve. The returned token is cancelled
    /// once nothing holds it any more; then call [`Bundles::end`].
    ///
    /// # Errors
    /// [`CatalogError::UnknownBundle`]; [`CatalogError::BundleBusy`] for the
    /// default one.
    pub(super) async fn retire(&self, given: &str) -> Result<Retired, CatalogError> {
        let _change = self.changes.lock().await;
        let bundle = match given {
            "" => return Err(CatalogError::invalid("bundle", "it is missing")),
            given => self.named(given)?,
        };
        if Arc::ptr_eq(&bundle, &self.default_bundle()) {
            return Err(CatalogError::BundleBusy {
                name: bundle.model.name.clone(),
                problem: "is the default: make another one that first",
            });
        }
        self.leaving.lock().push(Leaving {
            model: bundle.model.clone(),
            folder: bundle.folder.clone(),
            engine: bundle.engine.clone(),
        });
        let released = bundle.retire();
        let next = self.open.load().without(&bundle);
        self.open.store(Arc::new(next));
        Ok(Retired { bundle, released })
    }

    /// Stops the engine of a bundle that nothing holds any more.
    pub(super) async fn end(&self, fingerprint: &str) -> Result<(), CatalogError> {
        let engine = {
            let leaving = self.leaving.lock();
            let mut leaving = leaving.iter();
            let left = leaving.find(|left| left.model.fingerprint == fingerprint);
            left.map(|left| left.engine.clone())
        };
        let Some(engine) = engine else {
            return Ok(());
        };
        let stopping = engine.clone();
        tokio::task::spawn_blocking(move || stopping.shut_down())
            .await
            .map_err(CatalogError::internal)?;
        engine.admission().release().await;
        let _change = self.changes.lock().await;
        add(&mut self.retired.lock(), counts(&engine));
        let gone = |left: &Leaving| left.model.fingerprint == fingerprint;
        self.leaving.lock().retain(|left| !gone(left));
        self.share_room().await;
        Ok(())
    }

    /// Reserves a part of the pool for each of several bundles; a single one
    /// has all of it.
    async fn share_room(&self) {
        let open = self.open.load_full();
        let several = open.len() + self.leaving.lock().len() > 1;
        for bundle in open.iter() {
            match several {
                true => bundle.engine.admission().reserve().await,
                false => bundle.engine.admission().release().await,
            }
        }
    }
}

/// A bundle that no longer serves.
pub(super) struct Retired {
    pub bundle: Arc<LoadedBundle>,
    pub released: CancellationToken,
}

/// Whether so many bundles may be loaded at once.
///
/// # Errors
/// [`CatalogError::OverLimit`].
fn check_count(count: usize) -> Result<(), CatalogError> {
    if count > MAX_BUNDLES {
        return Err(CatalogError::OverLimit {
            what: "the list of loaded bundles".to_owned(),
            limit: "max_bundles",
            maximum: MAX_BUNDLES as u64,
            value: count as u64,
        });
    }
    Ok(())
}

fn unloading(name: &str) -> CatalogError {
    CatalogError::BundleBusy {
        name: name.to_owned(),
        problem: "is still being unloaded",
    }
}

/// The loaded bundles as errors list them, by name and fingerprint.
fn known(open: &OpenBundles) -> Vec<String> {
    let named = |bundle: &Arc<LoadedBundle>| {
        let Model {
            name, fingerprint, ..
        } = &bundle.model;
        format!(
            "{name} ({})",
            fingerprint.get(..SHORT).unwrap_or(fingerprint)
        )
    };
    open.iter().map(named).collect()
}

fn counts(engine: &Engine) -> EmbeddingCounts {
    let counters = engine.counters();
    [
        &counters.embedding_hits,
        &counters.embedding_misses,
        &counters.embedding_coalesced,
    ]
    .map(|count| count.load(Ordering::Relaxed))
}

fn add(sum: &mut EmbeddingCounts, more: EmbeddingCounts) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(run)
        .await
        .map_err(CatalogError::internal)?
}
