//! A version in memory, ready to classify.

use std::{ops::Deref, sync::Arc};

use tch::{Device, Tensor};

use super::{
    CatalogError, LoadedBundle, Purpose, Traffic, columns::classes_of, orientation,
    part_weights::Weighing, precision, tensors, traffic::Examples,
};
use tip_adapter::{
    best::Scored,
    contrast::Contrast,
    drift::Rounds,
    evaluate_labels::sigmoid,
    head::{Head, HeadTensors, StandardisedPart, Values},
    precision::{CurvePoint, PrecisionCurve, PrecisionThreshold},
    standardise::Standardise,
};
use tip_spec::{HeadForm, Method};
use tipserve_clip::ExifOrientation;
use tipserve_store::{Manifest, StoreError, TensorFile, TextColumn, tensors::names};

/// A version in memory: its head, and the names that go with it.
pub struct Classifier {
    /// The version's resource name, `caches/{cache}/versions/{version}`.
    pub name: String,
    /// What is known of it.
    pub manifest: Manifest,
    /// Its head, on the device.
    pub head: Arc<Head>,
    /// The text classifier alone; none without text. The same head if the
    /// method is zero-shot.
    pub zero_shot: Option<Arc<Head>>,
    /// The classes of each key: one, or any number.
    classes: Vec<Vec<usize>>,
    /// How often each class's answers for unseen examples were right.
    curves: Option<Vec<PrecisionCurve>>,
    examples: Option<TextColumn>,
    /// What it has been asked.
    pub traffic: Traffic,
    /// The densities of its examples of no class; `None` without any.
    contrast: Option<Contrast>,
    /// What turns a feature into one as the version stores them.
    weighing: Option<Weighing>,
}

/// A version in memory, with the bundle that encodes its pictures.
pub struct BoundClassifier {
    classifier: Classifier,
    /// The bundle with the fingerprint that the version records.
    pub bundle: Arc<LoadedBundle>,
}

impl BoundClassifier {
    /// A version and the bundle that made its features.
    pub fn new(classifier: Classifier, bundle: Arc<LoadedBundle>) -> BoundClassifier {
        BoundClassifier { classifier, bundle }
    }
}

impl Deref for BoundClassifier {
    type Target = Classifier;

    fn deref(&self) -> &Classifier {
        &self.classifier
    }
}

impl Classifier {
    /// Makes a version resident on a device.
    ///
    /// # Errors
    /// Tensors that do not fit together, or torch's.
    pub fn load(
        manifest: Manifest,
        file: &TensorFile,
        device: Device,
    ) -> Result<Classifier, CatalogError> {
        let spec = &manifest.details.head;
        let keys = tensors::read(file, names::KEYS)?;
        let damaged = |detail| StoreError::damaged(manifest.resource_name(), detail);
        let classes = classes_of(&manifest.details, file, Purpose::Training).map_err(damaged)?;
        let curves = precision::read(file, manifest.details.classes.len()).map_err(damaged)?;
        let head_tensors = Classifier::head_tensors(&manifest, file)?;
        let contrast = contrast(&manifest, file, keys.as_ref(), &head_tensors)?;
        let weighing = Weighing::of(&manifest.details.part_weights);
        let (head_tensors, keys) = match &weighing {
            None => (head_tensors, keys),
            Some(weighing) => (
                weighing.fold(head_tensors)?,
                keys.map(|keys| weighing.times(&keys)).transpose()?,
            ),
        };
        let mut head = Head::new(spec, &head_tensors, device).map_err(CatalogError::internal)?;
        if let Some(keys) = &keys {
            head = head.with_examples(keys).map_err(CatalogError::internal)?;
        }
        let head = Arc::new(head);
        let zero_shot = match tensors::read(file, names::TEXT)? {
            None => None,
            Some(_) if spec.method == Method::ZeroShot => Some(Arc::clone(&head)),
            Some(text) => {
                let text = match &weighing {
                    Some(weighing) => weighing.times(&text)?,
                    None => text,
                };
                Some(Arc::new(text_head(&manifest, &text, device)?))
            }
        };
        let examples =
            TextColumn::read(file, names::EXAMPLE_IDS).map_err(CatalogError::internal)?;
        let examples_of = similarity(&manifest, &classes);
        let traffic = Traffic::new(manifest.details.classes.len(), classes.len(), examples_of);
        Ok(Classifier {
            name: manifest.resource_name(),
            head,
            zero_shot,
            classes,
            curves,
            examples,
            contrast,
            weighing,
            traffic,
            manifest,
        })
    }

    /// The head's tensors, as they are stored.
    ///
    /// # Errors
    /// A tensor that the method needs is missing; torch's.
    pub(super) fn head_tensors(
        manifest: &Manifest,
        file: &TensorFile,
    ) -> Result<HeadTensors, CatalogError> {
        let spec = &manifest.details.head;
        let keys = tensors::read(file, names::KEYS)?;
        let labels = tensors::read(file, names::LABELS)?;
        let missing = |what: &str| {
            CatalogError::internal(format!("{} has no tensor {what}", manifest.resource_name()))
        };
        let standardised = match spec.standardised {
            None => None,
            Some(_) => Some(standardised(file, &missing)?),
        };
        let cache = match spec.method.form() {
            HeadForm::OneHot | HeadForm::TrainedOneHot => {
                let keys = match tensors::read(file, names::HEAD_KEYS)? {
                    Some(trained) => trained,
                    None => keys
                        .as_ref()
                        .ok_or_else(|| missing(names::KEYS))?
                        .shallow_clone(),
                };
                let labels = labels.as_ref().ok_or_else(|| missing(names::LABELS))?;
                let weight = tensors::read(file, names::HEAD_WEIGHT)?
                    .ok_or_else(|| missing(names::HEAD_WEIGHT))?;
                let labels = labels.shallow_clone();
                Some((keys, Values::OneHot { labels, weight }))
            }
            HeadForm::Dense => {
                let keys = keys.as_ref().ok_or_else(|| missing(names::KEYS))?;
                let values = tensors::read(file, names::HEAD_VALUES)?
                    .ok_or_else(|| missing(names::HEAD_VALUES))?;
                Some((keys.shallow_clone(), Values::Dense(values)))
            }
            HeadForm::Combined => match (&keys, tensors::read(file, names::HEAD_VALUES)?) {
                (Some(keys), Some(values)) => {
                    let keys = match &standardised {
                        Some(part) => part.by.apply(keys).map_err(CatalogError::internal)?,
                        None => keys.shallow_clone(),
                    };
                    Some((keys, Values::Dense(values)))
                }
                _ => None,
            },
            HeadForm::Linear => None,
        };
        Ok(HeadTensors {
            classes: manifest.details.classes.len(),
            linear: tensors::read(file, names::HEAD_LINEAR)?,
            bias: tensors::read(file, names::HEAD_BIAS)?,
            cache,
            standardised,
        })
    }

    /// Width of the embeddings that it takes, D.
    pub fn width(&self) -> usize {
        self.manifest.details.width
    }

    /// N, the number of classes.
    pub fn classes(&self) -> usize {
        self.manifest.details.classes.len()
    }

    /// What is done with the EXIF orientation of the pictures that it
    /// classifies: what was done with its examples'.
    pub fn exif_orientation(&self) -> ExifOrientation {
        orientation::decoded(self.manifest.details.exif_orientation)
    }

    /// Probabilities are softmax(logits / temperature).
    pub fn temperature(&self) -> f64 {
        self.manifest.details.head.temperature
    }

    /// A class's display name; empty if there is no such class.
    pub fn class_name(&self, index: usize) -> &str {
        self.manifest
            .details
            .classes
            .get(index)
            .map_or("", |class| class.display_name.as_str())
    }

    /// The classes of a key: one, or any number; none if there is no such key.
    pub fn classes_of(&self, key: usize) -> Option<&[usize]> {
        self.classes.get(key).map(Vec::as_slice)
    }

    /// From which probability each class belongs to an answer; none if answers
    /// are of one class.
    pub fn label_thresholds(&self) -> Option<&[f64]> {
        let multi_label = self.manifest.details.multi_label.as_ref();
        multi_label.map(|spec| spec.thresholds.as_slice())
    }

    /// Refuses features that versions with several labels per example do not
    /// have.
    ///
    /// # Errors
    /// [`CatalogError::Unsupported`], for the reason given.
    pub fn needs_one_label(&self, reason: &str) -> Result<(), CatalogError> {
        refuse_multi_label(&self.manifest, reason)
    }

    /// A class's probability, independent of the others' if answers may be of
    /// several classes.
    pub fn probability(&self, scored: &Scored) -> f64 {
        match self.label_thresholds() {
            Some(_) => sigmoid(scored.logit),
            None => scored.probability,
        }
    }

    /// The probability from which answers of a class have this precision.
    ///
    /// # Errors
    /// A version without answers for unseen examples.
    pub fn precision_threshold(
        &self,
        class: usize,
        precision: f64,
    ) -> Result<PrecisionThreshold, CatalogError> {
        let curve = self.curves.as_ref().and_then(|curves| curves.get(class));
        let curve = curve.ok_or_else(|| CatalogError::Unsupported {
            version: self.name.clone(),
            problem: "has no answers for examples that it had not seen, which say how often they \
                      are right: it was made from one example a class (copies of a picture are \
                      one), of one class alone, by fine-tuning, or by an earlier release; add \
                      examples"
                .to_owned(),
        })?;
        Ok(curve.threshold(precision))
    }

    /// The id of the example behind a key.
    pub fn example_id(&self, key: usize) -> &str {
        self.examples
            .as_ref()
            .and_then(|examples| examples.get(key))
            .unwrap_or("")
    }

    /// Whether the score of a picture needs its feature as well as its logits.
    pub fn scores_by_feature(&self) -> bool {
        self.contrast.is_some()
    }

    /// The picture's score of belonging to any known class: `energy` is `log Σ
    /// exp(logits/T)`, `feature` its unit feature.
    ///
    /// # Errors
    /// A feature is needed but missing.
    pub fn score(&self, energy: f64, feature: Option<&[f32]>) -> Result<f64, CatalogError> {
        let (Some(contrast), Some(spec)) = (&self.contrast, &self.manifest.details.contrast) else {
            return Ok(energy);
        };
        let feature = feature.ok_or_else(|| {
            CatalogError::internal(format!("{} was given no feature to score by", self.name))
        })?;
        let ratio = match &self.weighing {
            Some(weighing) => contrast.of(&weighing.seen(feature)),
            None => contrast.of(feature),
        };
        Ok(energy - spec.weight * (ratio - spec.centre))
    }

    /// Bytes of memory it holds.
    pub fn size_bytes(&self) -> usize {
        let zero_shot = match &self.zero_shot {
            Some(head) if !Arc::ptr_eq(head, &self.head) => head.size_bytes(),
            _ => 0,
        };
        let contrast = self.contrast.as_ref().map_or(0, Contrast::size_bytes);
        let labels: usize = self.classes.iter().map(Vec::len).sum();
        let points = self.curves.iter().flatten().map(|curve| curve.points.len());
        let curves = points.sum::<usize>() * size_of::<CurvePoint>();
        let classes = self.classes.len() * size_of::<Vec<usize>>() + labels * size_of::<usize>();
        let traffic = self.traffic.size_bytes();
        self.head.size_bytes() + zero_shot + contrast + classes + curves + traffic
    }
}

/// Refuses features that only versions with one class per example have.
///
/// # Errors
/// [`CatalogError::Unsupported`], for the reason given.
pub(super) fn refuse_multi_label(manifest: &Manifest, reason: &str) -> Result<(), CatalogError> {
    match manifest.details.multi_label {
        None => Ok(()),
        Some(_) => Err(CatalogError::Unsupported {
            version: manifest.resource_name(),
            problem: format!("was made with multi_label: {reason}"),
        }),
    }
}

/// How similar a version's examples are to each other, and the rounds in which items
/// are compared with them. Older versions' deciles were of examples that leave out
/// nothing but themselves: items cannot be compared with these.
fn similarity(manifest: &Manifest, classes: &[Vec<usize>]) -> Examples {
    let details = &manifest.details;
    if details.nearest_deciles.is_empty() || details.nearest_sample == 0.0 {
        return Examples::default();
    }
    let class = |classes: &Vec<usize>| match (&details.multi_label, classes.as_slice()) {
        (None, [class]) => i64::try_from(*class).unwrap_or(i64::MAX),
        _ => 0,
    };
    let classes: Vec<i64> = classes.iter().map(class).collect();
    Examples {
        deciles: details.nearest_deciles.clone(),
        sample: details.nearest_sample,
        rounds: Rounds::of(&classes),
    }
}

/// The densities of a version with examples of no class.
fn contrast(
    manifest: &Manifest,
    file: &TensorFile,
    keys: Option<&Tensor>,
    head: &HeadTensors,
) -> Result<Option<Contrast>, CatalogError> {
    let Some(spec) = &manifest.details.contrast else {
        return Ok(None);
    };
    let missing = |what: &str| {
        CatalogError::internal(format!("{} has no tensor {what}", manifest.resource_name()))
    };
    let negatives = tensors::read(file, names::UNKNOWN_FEATURES)?
        .ok_or_else(|| missing(names::UNKNOWN_FEATURES))?;
    let keys = keys.ok_or_else(|| missing(names::KEYS))?;
    let by = head.standardised.as_ref().map(|part| &part.by);
    Ok(Some(Contrast::new(keys, &negatives, by, spec)?))
}

/// The head's part on standardised features.
fn standardised(
    file: &TensorFile,
    missing: &dyn Fn(&str) -> CatalogError,
) -> Result<StandardisedPart, CatalogError> {
    let needed = |name: &str| tensors::read(file, name)?.ok_or_else(|| missing(name));
    Ok(StandardisedPart {
        by: Standardise {
            shift: needed(names::HEAD_SHIFT)?,
            scale: needed(names::HEAD_SCALE)?,
        },
        linear: tensors::read(file, names::HEAD_STANDARDISED_LINEAR)?,
    })
}

/// The head of the text alone: s·W.
fn text_head(manifest: &Manifest, text: &Tensor, device: Device) -> Result<Head, CatalogError> {
    let spec = tip_spec::HeadSpec {
        method: Method::ZeroShot,
        standardised: None,
        ..manifest.details.head.clone()
    };
    let linear = text
        .f_mul_scalar(spec.logit_scale)
        .map_err(CatalogError::internal)?;
    let tensors = HeadTensors {
        classes: manifest.details.classes.len(),
        linear: Some(linear),
        bias: None,
        cache: None,
        standardised: None,
    };
    Head::new(&spec, &tensors, device).map_err(CatalogError::internal)
}
