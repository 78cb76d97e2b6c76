//! Analysing a version's own examples, and unlabelled pictures. Both take all
//! of torch's threads for seconds, so few run at once and few may wait.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::{
    Catalog, CatalogError, ExampleTraffic, MemoryPermit, Purpose,
    columns::{check_shapes, classes_of, floats},
    compute,
    part_weights::Weighing,
    precision,
    shares::Shares,
    tensors,
    version_memory::manifest_bytes,
};
use tip_adapter::{
    analysis::{Analysis, AnalysisOptions, analyse},
    precision::PrecisionCurve,
    suggest::{Pool, SuggestOptions, Suggestions, suggest},
};
use tipserve_store::{
    CacheId, Manifest, Reference, StoreError, TensorFile, TextColumn, VersionNumber,
    VersionSelector, tensors::names,
};

/// Analyses that run at once.
const RUNNING: usize = 2;
/// Analyses that run or wait.
const UNDER_WAY: usize = 16;

static QUEUE: Semaphore = Semaphore::const_new(UNDER_WAY);
static PLACES: Semaphore = Semaphore::const_new(RUNNING);
/// Of those that run or wait, one caller's.
static OF_ONE: Shares = Shares::new(4);

/// A place among the analyses in progress.
struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _waiting: SemaphorePermit<'static>,
    _running: SemaphorePermit<'static>,
}

/// Waits for a caller's place.
///
/// # Errors
/// [`CatalogError::Busy`] if too many wait already, of this caller or in all.
async fn place(caller: Option<&str>) -> Result<Place, CatalogError> {
    let own = OF_ONE.try_take(caller).map_err(|_| CatalogError::Busy {
        what: "analyses of one caller",
        count: OF_ONE.places(),
        limit: OF_ONE.places(),
    })?;
    let waiting = QUEUE.try_acquire().map_err(|_| CatalogError::Busy {
        what: "analyses",
        count: UNDER_WAY,
        limit: UNDER_WAY,
    })?;
    Ok(Place {
        _own: own,
        _waiting: waiting,
        _running: PLACES.acquire().await.map_err(CatalogError::internal)?,
    })
}

/// The names that go with a version's keys.
#[derive(Debug)]
pub struct ExampleNames {
    manifest: Manifest,
    classes: Vec<Vec<usize>>,
    curves: Option<Vec<PrecisionCurve>>,
    ids: Option<TextColumn>,
}

impl ExampleNames {
    fn read(manifest: Manifest, file: &TensorFile) -> Result<ExampleNames, CatalogError> {
        let ids = TextColumn::read(file, names::EXAMPLE_IDS)
            .map_err(|detail| StoreError::damaged(manifest.resource_name(), detail))?;
        Ok(ExampleNames {
            classes: classes_of(&manifest.details, file, Purpose::Training)
                .map_err(|detail| StoreError::damaged(manifest.resource_name(), detail))?,
            curves: precision::read(file, manifest.details.classes.len())
                .map_err(|detail| StoreError::damaged(manifest.resource_name(), detail))?,
            ids,
            manifest,
        })
    }

    /// What is known of the version.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The id of the example behind a key.
    pub fn example_id(&self, key: usize) -> String {
        match &self.ids {
            Some(ids) => ids.get(key).unwrap_or_default().to_owned(),
            None => key.to_string(),
        }
    }

    /// The class of a key, its first where it has several; none if it has none.
    pub fn class_of(&self, key: usize) -> Option<usize> {
        self.classes
            .get(key)
            .and_then(|classes| classes.first().copied())
    }

    /// How often a class's answers for unseen examples were right, by their
    /// probability; none if nothing could be left out.
    pub fn precision_curve(&self, class: usize) -> Option<&PrecisionCurve> {
        self.curves.as_ref().and_then(|curves| curves.get(class))
    }

    /// A class's display name; empty if there is no such class.
    pub fn class_name(&self, class: usize) -> &str {
        let classes = &self.manifest.details.classes;
        classes
            .get(class)
            .map_or("", |class| class.display_name.as_str())
    }
}

/// A version's labelled examples, by name and by feature.
#[derive(Debug)]
pub struct LabelledExamples {
    /// The examples' names, in the order of the features.
    pub names: ExampleNames,
    /// Unit rows of the model's width, one after the other.
    keys: Vec<f32>,
    _memory: MemoryPermit,
}

/// Pictures without labels, of which a call suggests some.
pub struct UnlabelledPool {
    /// Unit rows of the model's width, one after the other.
    pub features: Vec<f32>,
    /// The difference of a classifier's two best probabilities, a picture each;
    /// none without a classifier.
    pub margins: Option<Vec<f64>>,
    /// The examples that are labelled already; none if no version was named.
    pub labelled: Option<Arc<LabelledExamples>>,
}

impl Catalog {
    /// Analyses a version by its own examples, for a caller.
    /// `cancelled` is checked often.
    ///
    /// # Errors
    /// The store's; [`CatalogError::WrongBundle`]; [`CatalogError::Busy`];
    /// [`CatalogError::Cancelled`].
    pub async fn analyse(
        self: &Arc<Self>,
        reference: &Reference,
        options: AnalysisOptions,
        caller: Option<&str>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<(ExampleNames, Analysis), CatalogError> {
        let (id, number) = self.store.resolve(reference).await?;
        let bundle = self
            .bundles
            .of_manifest(&self.store.manifest(&id, number).await?)?;
        let place = place(caller).await?;
        let (manifest, file) = self.store.load(&id, number).await?;
        let catalog = Arc::clone(self);
        compute(move || {
            let (_place, _bundle) = (place, bundle);
            let material = catalog.material(&manifest, &file)?;
            let go_on = || !cancelled.load(Ordering::Relaxed);
            let analysis = analyse(&material, &manifest.details.head, &options, &go_on)?;
            Ok((ExampleNames::read(manifest, &file)?, analysis))
        })
        .await?
    }

    /// Which of a version's examples its items came near. `None` if that is not
    /// followed, and for a version that is not in memory: it is not loaded for this,
    /// as nothing would have been counted.
    pub async fn example_traffic(&self, version: &Manifest) -> Option<ExampleTraffic> {
        let reference = Reference {
            cache: version.cache.clone(),
            version: VersionSelector::Number(version.version),
        };
        // A store that does not answer now is no reason to refuse an analysis.
        let key = self.store.identify(&reference).await.ok()?;
        self.resident.peek(&key)?.traffic.of_examples()
    }

    /// The labelled examples of a version, for a caller.
    ///
    /// # Errors
    /// The store's; [`CatalogError::WrongBundle`].
    pub async fn labelled_examples(
        &self,
        id: &CacheId,
        number: VersionNumber,
        caller: Option<&str>,
    ) -> Result<LabelledExamples, CatalogError> {
        let manifest = self.store.manifest(id, number).await?;
        let bytes = manifest.tensors.size + manifest_bytes(&manifest);
        let memory = self.version_memory.take(caller, bytes).await;
        let (manifest, file) = self.store.load(id, number).await?;
        self.bundles.of_manifest(&manifest)?;
        compute(move || {
            check_shapes(&manifest.details, &file)
                .map_err(|detail| StoreError::damaged(manifest.resource_name(), detail))?;
            let mut keys = floats(&file, names::KEYS);
            if let Some(weighing) = Weighing::of(&manifest.details.part_weights) {
                weighing.undo(&mut keys);
            }
            Ok(LabelledExamples {
                keys,
                names: ExampleNames::read(manifest, &file)?,
                _memory: memory,
            })
        })
        .await?
    }

    /// Which pictures of a pool, whose features have this width, to label.
    /// `cancelled` is checked often.
    ///
    /// # Errors
    /// [`CatalogError::Busy`]; [`CatalogError::Cancelled`].
    pub async fn suggest(
        &self,
        pool: UnlabelledPool,
        width: usize,
        options: SuggestOptions,
        caller: Option<&str>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Suggestions, CatalogError> {
        let place = place(caller).await?;
        compute(move || {
            let _place = place;
            let features = tensors::matrix(&pool.features, width)?;
            let labelled = pool.labelled.as_ref();
            let labelled = labelled
                .map(|labelled| tensors::matrix(&labelled.keys, width))
                .transpose()?;
            let pool = Pool {
                features: &features,
                labelled: labelled.as_ref(),
                margins: pool.margins.as_deref(),
            };
            let go_on = || !cancelled.load(Ordering::Relaxed);
            Ok(suggest(&pool, &options, &go_on)?)
        })
        .await?
    }
}
