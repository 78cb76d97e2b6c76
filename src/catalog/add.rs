//! A version as the base of the next: its examples' features as they are
//! stored, so that nothing is encoded twice.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use half::f16;

use super::{
    Catalog, CatalogError, ClassNames, ClassRef, ExampleFeature, LoadedBundle, MemoryPermit,
    Purpose,
    columns::{check_shapes, classes_of, floats, halves, rows},
    compute,
    notes::{self, NoteColumns},
    part_weights::Weighing,
    version_memory::manifest_bytes,
};
use tipserve_api::text::canonical;
use tipserve_store::{
    CacheId, ClassRecord, Details, EncoderRecord, Manifest, Reference, TensorFile, TextColumn,
    VersionNumber, tensors::names,
};

/// Most ids that an error names.
const NAMED: usize = 10;

/// The changes to a version's examples for the next version.
#[derive(Clone, Debug, Default)]
pub struct BaseChanges {
    /// Ids of examples to leave out.
    pub remove: Vec<String>,
    /// Ids of examples that get another class.
    pub relabel: Vec<(String, ClassRef)>,
    /// Whether all pictures without labels are left out.
    pub drop_unlabelled: bool,
    /// Display names of the classes that are appended to the base's.
    pub new_classes: Vec<String>,
}

/// A version to start from, without the examples that are to be left out.
#[derive(Debug)]
pub struct Base {
    manifest: Manifest,
    name: String,
    /// W f32 [N, D] by rows; none if the cache alone decides.
    text: Option<Vec<f32>>,
    examples: Vec<ExampleFeature>,
    removed: usize,
    next_id: u64,
    bundle: Arc<LoadedBundle>,
    _memory: MemoryPermit,
}

impl Base {
    /// The cache that the base is a version of.
    pub fn cache(&self) -> &CacheId {
        &self.manifest.cache
    }

    /// The number of the base version.
    pub fn number(&self) -> VersionNumber {
        self.manifest.version
    }

    /// The base's resource name, `caches/{cache}/versions/{version}`.
    pub fn version(&self) -> &str {
        &self.name
    }

    /// What is known of it.
    pub fn details(&self) -> &Details {
        &self.manifest.details
    }

    /// Its classes, with their prompts. The counts are the version's own.
    pub fn classes(&self) -> &[ClassRecord] {
        &self.manifest.details.classes
    }

    /// W f32 [N, D] by rows; none if the cache alone decides.
    pub fn text(&self) -> Option<&[f32]> {
        self.text.as_deref()
    }

    /// The examples that stay: training ones in the order of their keys, then
    /// those for validation, then those of no class, then those without labels.
    pub fn examples(&self) -> &[ExampleFeature] {
        &self.examples
    }

    /// Whether its examples carry any number of classes.
    pub fn is_multi_label(&self) -> bool {
        self.manifest.details.multi_label.is_some()
    }

    /// The bundle that made its features.
    pub fn bundle(&self) -> &Arc<LoadedBundle> {
        &self.bundle
    }

    /// The encoder of its pictures, as far as it is known.
    pub fn encoder(&self) -> Option<&EncoderRecord> {
        self.manifest.details.encoder.as_ref()
    }

    /// How many examples are left out.
    pub fn removed(&self) -> usize {
        self.removed
    }

    /// One more than the highest example id that is a plain number, from which
    /// examples without an id are numbered on.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    fn read(
        manifest: Manifest,
        file: &TensorFile,
        changes: &BaseChanges,
        bundle: Arc<LoadedBundle>,
        memory: MemoryPermit,
    ) -> Result<Base, CatalogError> {
        let name = manifest.resource_name();
        let details = &manifest.details;
        let unusable = |problem: String| CatalogError::Unsupported {
            version: name.clone(),
            problem: format!("cannot be added to: {problem}"),
        };
        check_shapes(details, file).map_err(unusable)?;
        let mut examples = stored_examples(details, file).map_err(unusable)?;
        examples.extend(unlabelled(&floats(file, names::UNLABELLED), details.width));
        if let Some(weighing) = Weighing::of(&details.part_weights) {
            // The next version's own weights are chosen anew.
            for example in &mut examples {
                weighing.undo(&mut example.key);
                weighing.undo_for_views(&mut example.views);
            }
        }
        let next_id = examples
            .iter()
            .filter_map(|example| plain_number(&example.id))
            .max()
            .map_or(0, |highest| highest.saturating_add(1));

        let removed = changes.apply(&name, details, &mut examples)?;
        if changes.drop_unlabelled {
            examples.retain(|example| example.purpose != Purpose::Unlabelled);
        }
        Ok(Base {
            removed,
            text: file.get(names::TEXT).map(|_| floats(file, names::TEXT)),
            examples,
            next_id,
            name,
            manifest,
            bundle,
            _memory: memory,
        })
    }
}

/// All examples of a version: training ones in the order of their keys, those for
/// validation, those of no class.
///
/// # Errors
/// The reason, in words, where they cannot be read.
fn stored_examples(details: &Details, file: &TensorFile) -> Result<Vec<ExampleFeature>, String> {
    let column = |name: &str| TextColumn::read(file, name);
    let width = details.width;
    let training_classes = classes_of(details, file, Purpose::Training)?;
    let validation_classes = classes_of(details, file, Purpose::Validation)?;
    let unknown_count = rows(file, names::UNKNOWN_FEATURES);
    let noted = |columns, rows| NoteColumns::read(file, columns, rows);
    let training = Rows {
        keys: floats(file, names::KEYS),
        notes: noted(notes::TRAINING, training_classes.len())?,
        classes: training_classes,
        ids: column(names::EXAMPLE_IDS)?,
        views: halves(file, names::VIEWS),
        kept_views: details.views.max(1) as usize,
        purpose: Purpose::Training,
    };
    let validation = Rows {
        keys: floats(file, names::VALIDATION_FEATURES),
        notes: noted(notes::VALIDATION, validation_classes.len())?,
        classes: validation_classes,
        ids: column(names::VALIDATION_IDS)?,
        views: Vec::new(),
        kept_views: 1,
        purpose: Purpose::Validation,
    };
    let unknown = Rows {
        keys: floats(file, names::UNKNOWN_FEATURES),
        notes: noted(notes::UNKNOWN, unknown_count)?,
        classes: vec![Vec::new(); unknown_count],
        ids: column(names::UNKNOWN_IDS)?,
        views: Vec::new(),
        kept_views: 1,
        purpose: Purpose::Unknown,
    };
    let mut examples = training.examples(width, file)?;
    examples.extend(validation.examples(width, file)?);
    examples.extend(unknown.examples(width, file)?);
    Ok(examples)
}

impl BaseChanges {
    /// Relabels and leaves out; returns how many were left out.
    ///
    /// # Errors
    /// An id that the version does not have or that is given twice; an unknown
    /// class; another class for an example of several or none.
    fn apply(
        &self,
        version: &str,
        details: &Details,
        examples: &mut Vec<ExampleFeature>,
    ) -> Result<usize, CatalogError> {
        const RELABEL: &str = "spec.relabel";
        const REMOVE: &str = "spec.remove_example_ids";
        if details.multi_label.is_some() && !self.relabel.is_empty() {
            let problem = format!(
                "{version} was made with multi_label: leave the example out and add it again"
            );
            return Err(CatalogError::invalid(RELABEL, problem));
        }
        let names = details.classes.iter();
        let names = names.map(|class| class.display_name.as_str());
        let names = ClassNames::new(names.chain(self.new_classes.iter().map(String::as_str)));
        let remove: HashSet<_> = self.remove.iter().map(|id| canonical(id)).collect();
        let mut relabel = HashMap::new();
        for (id, class) in &self.relabel {
            let wrong = |problem: &str| {
                CatalogError::invalid(RELABEL, format!("example {id:?}: {problem}"))
            };
            let class = names.find(class).map_err(|problem| wrong(&problem))?;
            let id = canonical(id);
            if remove.contains(&id) {
                return Err(wrong("it is to be left out, too"));
            }
            if relabel.insert(id, class).is_some() {
                return Err(wrong("it is there twice"));
            }
        }
        let mut not_removed: BTreeSet<&str> = remove.iter().map(AsRef::as_ref).collect();
        let mut not_relabelled: BTreeSet<&str> = relabel.keys().map(AsRef::as_ref).collect();
        for example in examples.iter_mut() {
            let id = canonical(&example.id);
            not_removed.remove(id.as_ref());
            if let Some(class) = relabel.get(&id) {
                not_relabelled.remove(id.as_ref());
                if example.purpose == Purpose::Unknown {
                    let problem = "is of none of the classes: leave it out and add it again";
                    let problem = format!("example {:?} {problem}", example.id);
                    return Err(CatalogError::invalid(RELABEL, problem));
                }
                example.classes = vec![*class];
            }
        }
        check_held(version, REMOVE, &not_removed)?;
        check_held(version, RELABEL, &not_relabelled)?;
        let before = examples.len();
        examples.retain(|example| !remove.contains(&canonical(&example.id)));
        Ok(before - examples.len())
    }
}

/// Refuses ids of examples that a version does not have.
fn check_held(version: &str, field: &str, ids: &BTreeSet<&str>) -> Result<(), CatalogError> {
    if ids.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = ids.iter().take(NAMED).map(|id| format!("{id:?}")).collect();
    let more = match ids.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let problem = format!("{version} holds no example {}{more}", shown.join(", "));
    Err(CatalogError::invalid(field, problem))
}

impl Catalog {
    /// A version as a caller's base, with the requested changes to its examples.
    ///
    /// # Errors
    /// The store's; those of [`Bundles::serving`](super::Bundles::serving); an id that the version does
    /// not hold.
    pub async fn base(
        &self,
        reference: &Reference,
        changes: BaseChanges,
        caller: Option<&str>,
    ) -> Result<Base, CatalogError> {
        let (id, number) = self.store.resolve(reference).await?;
        // Checked before the tensors are read, which may be large.
        let manifest = self.store.manifest(&id, number).await?;
        let bundle = self.bundles.serving(&manifest)?;
        // As it is read, and example by example.
        let bytes = manifest
            .tensors
            .size
            .saturating_add(manifest_bytes(&manifest))
            .saturating_mul(2);
        let memory = self.version_memory.take(caller, bytes).await;
        let (manifest, file) = self.store.load(&id, number).await?;
        compute(move || Base::read(manifest, &file, &changes, bundle, memory)).await?
    }
}

/// Unlabelled pictures, of which only the features are stored.
fn unlabelled(features: &[f32], width: usize) -> impl Iterator<Item = ExampleFeature> {
    features
        .chunks_exact(width.max(1))
        .map(|key| ExampleFeature {
            id: String::new(),
            classes: Vec::new(),
            purpose: Purpose::Unlabelled,
            key: key.to_vec(),
            views: Vec::new(),
            notes: None,
        })
}

/// Examples as a version stores them, column by column.
struct Rows {
    keys: Vec<f32>,
    classes: Vec<Vec<usize>>,
    ids: Option<TextColumn>,
    notes: NoteColumns,
    views: Vec<f16>,
    kept_views: usize,
    purpose: Purpose,
}

impl Rows {
    fn examples(self, width: usize, file: &TensorFile) -> Result<Vec<ExampleFeature>, String> {
        let width = width.max(1);
        let mut views = self.views.chunks_exact(width * self.kept_views);
        let rows = self.keys.chunks_exact(width).zip(self.classes).enumerate();
        rows.map(|(row, (key, classes))| {
            Ok(ExampleFeature {
                id: match &self.ids {
                    Some(ids) => ids.get(row).unwrap_or_default().to_owned(),
                    None => row.to_string(),
                },
                classes,
                purpose: self.purpose,
                key: key.to_vec(),
                views: match (self.kept_views, views.next()) {
                    (2.., Some(views)) => views.to_vec(),
                    _ => Vec::new(),
                },
                notes: self.notes.notes(file, row)?,
            })
        })
        .collect()
    }
}

fn plain_number(id: &str) -> Option<u64> {
    let number: u64 = id.parse().ok()?;
    (number.to_string() == id).then_some(number)
}
