//! A version in memory, ready to classify.

use std::{ops::Deref, sync::Arc};

use tch::{Device, Kind};

use super::{CatalogError, LoadedBundle, orientation, tensors};
use tip_adapter::{
    head::{Head, HeadTensors, StandardisedPart, Values},
    standardise::Standardise,
};
use tip_spec::Method;
use tipserve_clip::ExifOrientation;
use tipserve_store::{Manifest, TensorFile, TextColumn, tensors::names};

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
    labels: Vec<usize>,
    examples: Option<TextColumn>,
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
        let labels = tensors::read(file, names::LABELS)?;
        let head_tensors = Classifier::head_tensors(&manifest, file)?;
        let mut head = Head::new(spec, &head_tensors, device).map_err(CatalogError::internal)?;
        if let Some(keys) = &keys {
            head = head.with_examples(keys).map_err(CatalogError::internal)?;
        }
        let head = Arc::new(head);
        let zero_shot = match tensors::read(file, names::TEXT)? {
            None => None,
            Some(_) if spec.method == Method::ZeroShot => Some(Arc::clone(&head)),
            Some(text) => Some(Arc::new(text_head(&manifest, &text, device)?)),
        };
        let labels = match labels {
            Some(labels) => {
                let labels = Vec::<i64>::try_from(labels.to_kind(Kind::Int64));
                let labels = labels.map_err(CatalogError::internal)?.into_iter();
                labels
                    .map(usize::try_from)
                    .collect::<Result<_, _>>()
                    .map_err(CatalogError::internal)?
            }
            None => Vec::new(),
        };
        let examples =
            TextColumn::read(file, names::EXAMPLE_IDS).map_err(CatalogError::internal)?;
        Ok(Classifier {
            name: manifest.resource_name(),
            head,
            zero_shot,
            labels,
            examples,
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
        let cache = match spec.method {
            Method::TipAdapter | Method::TipAdapterF => {
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
            Method::Proker => {
                let keys = keys.as_ref().ok_or_else(|| missing(names::KEYS))?;
                let values = tensors::read(file, names::HEAD_VALUES)?
                    .ok_or_else(|| missing(names::HEAD_VALUES))?;
                Some((keys.shallow_clone(), Values::Dense(values)))
            }
            Method::Stack => match (&keys, tensors::read(file, names::HEAD_VALUES)?) {
                (Some(keys), Some(values)) => {
                    let keys = match &standardised {
                        Some(part) => part.by.apply(keys).map_err(CatalogError::internal)?,
                        None => keys.shallow_clone(),
                    };
                    Some((keys, Values::Dense(values)))
                }
                _ => None,
            },
            Method::ZeroShot | Method::Gda | Method::ClassMean => None,
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

    /// The class of a key; none if there is no such key.
    pub fn class_of(&self, key: usize) -> Option<usize> {
        self.labels.get(key).copied()
    }

    /// The id of the example behind a key.
    pub fn example_id(&self, key: usize) -> &str {
        self.examples
            .as_ref()
            .and_then(|examples| examples.get(key))
            .unwrap_or("")
    }

    /// Bytes that its heads and labels hold in memory.
    pub fn size_bytes(&self) -> usize {
        let zero_shot = match &self.zero_shot {
            Some(head) if !Arc::ptr_eq(head, &self.head) => head.size_bytes(),
            _ => 0,
        };
        self.head.size_bytes() + zero_shot + self.labels.len() * size_of::<usize>()
    }
}

/// The part of a head that works on standardised features.
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

/// A head of the text classifier alone: s·W.
fn text_head(
    manifest: &Manifest,
    text: &tch::Tensor,
    device: Device,
) -> Result<Head, CatalogError> {
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
