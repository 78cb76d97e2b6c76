//! Making a version from labelled features, those of a base version among
//! them if there is one.

use std::{collections::BTreeMap, sync::Arc};

use half::f16;
use tch::{Kind, Tensor};

use super::{
    Base, Catalog, CatalogError, CollectedFeatures, ExampleFeature, LoadedBundle, Purpose,
    TextRequest,
    finite::check_reach,
    ingredients::{HeadMaterial, Ingredients},
    part_weights::{self, Weighing},
    precision, tensors,
};
use tip_adapter::{
    contrast::sharpen,
    drift::{Nearest, Rounds, nearest_deciles},
    head::{HeadTensors, Values},
    make::{self, HeadRequest},
    multi_label,
    precision::PrecisionCurve,
};
use tip_spec::{ContrastSpec, HeadSpec, MultiLabelSpec};
use tipserve_store::{
    CacheId, ClassRecord, Details, Draft, ExifOrientation, NamedTensor, RequestKey, SourceCounts,
    tensors::names,
};

/// Where the text classifier's rows of new classes come from.
#[derive(Clone, Debug)]
pub enum TextSource {
    /// Nowhere: there are no such classes, or the cache alone decides.
    None,
    /// Prompts of each class, which the text encoder embeds.
    Prompts {
        /// For every class at least one.
        prompts: Vec<Vec<String>>,
        /// Truncate prompts that are too long instead of refusing them.
        truncate: bool,
    },
    /// Unit rows, one per class, N · D values.
    Weights(Vec<f32>),
}

/// What a new version is to be, checked, without its examples.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The cache that gets the version.
    pub id: CacheId,
    /// The bundle that encodes its pictures and texts: the base's, if there is
    /// one.
    pub bundle: Arc<LoadedBundle>,
    /// The version to start from, if there is one.
    pub base: Option<Arc<Base>>,
    /// Display names of the classes, or of those that come after the base's.
    pub new_classes: Vec<String>,
    /// The text classifier's rows of these.
    pub text: TextSource,
    /// How to make the head.
    pub head: HeadRequest,
    /// Whether examples carry any number of classes.
    pub multi_label: bool,
    /// Augmented views of each example, R, at least 1.
    pub views: usize,
    /// What is done with the EXIF orientation of its pictures.
    pub exif_orientation: ExifOrientation,
    /// What the caller says about it, free text.
    pub description: String,
    /// The caller's key-value pairs.
    pub labels: BTreeMap<String, String>,
    /// The caller's name; empty if nobody is named.
    pub created_by: String,
    /// The key of the request, if it may be repeated.
    pub request: Option<RequestKey>,
}

impl Recipe {
    /// The classes of the base version, by index; none without a base.
    pub fn base_classes(&self) -> &[ClassRecord] {
        self.base.as_ref().map_or(&[], |base| base.classes())
    }

    /// Examples taken over from the base.
    pub fn inherited(&self) -> &[ExampleFeature] {
        self.base.as_ref().map_or(&[], |base| base.examples())
    }

    /// Display names of all classes, by index.
    pub fn class_names(&self) -> impl Iterator<Item = &str> {
        self.base_classes()
            .iter()
            .map(|class| class.display_name.as_str())
            .chain(self.new_classes.iter().map(String::as_str))
    }

    /// N, the base's classes and the new ones.
    pub fn class_count(&self) -> usize {
        self.base_classes().len() + self.new_classes.len()
    }

    /// Bytes that the features of one example take.
    pub fn feature_bytes(&self, width: usize, purpose: Purpose) -> usize {
        let views = match purpose {
            Purpose::Training if self.views > 1 => self.views,
            _ => 0,
        };
        width * (size_of::<f32>() + size_of::<f16>() * views)
    }
}

/// Rows of a text classifier, f32 [·, D], unit ones.
#[derive(Debug)]
pub struct TextRows(Tensor);

/// The stages of making a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The text encoder embeds the classes' prompts.
    Text,
    /// Examples are received and encoded.
    Examples,
    /// Method and numbers are chosen on held-out examples.
    Selection,
    /// The version is written to the store.
    Storing,
}

impl Catalog {
    /// The text classifier's rows of a recipe's new classes, if they have any.
    /// Blocks.
    ///
    /// # Errors
    /// A prompt that cannot be encoded; [`CatalogError::NoTextEncoder`].
    pub async fn text_classifier(
        &self,
        recipe: &Recipe,
        request: &TextRequest,
    ) -> Result<Option<TextRows>, CatalogError> {
        let rows = match &recipe.text {
            TextSource::None => return Ok(None),
            TextSource::Weights(rows) => tensors::matrix(rows, recipe.bundle.model.width)?,
            TextSource::Prompts { prompts, truncate } => {
                let request = TextRequest {
                    truncate: *truncate,
                    ..request.clone()
                };
                recipe.bundle.text()?.classifier(prompts, &request).await?
            }
        };
        Ok(Some(TextRows(rows)))
    }

    /// Makes the head and returns what is to be stored. Blocks, and computes.
    ///
    /// # Errors
    /// Material that no head can be made of; [`CatalogError::Cancelled`].
    pub fn prepare(
        &self,
        recipe: &Recipe,
        text: Option<TextRows>,
        gathered: &CollectedFeatures,
        stop: &dyn Fn() -> bool,
    ) -> Result<Draft, CatalogError> {
        let text = self.all_text(recipe, text)?;
        let base = recipe.base.as_ref().map(|base| base.encoder());
        let model = &recipe.bundle.model;
        let encoder = model.encoder();
        let clone = |text: &Option<Tensor>| text.as_ref().map(Tensor::shallow_clone);
        let bundle_weights = model.parts();
        let mut ingredients = self.ingredients(recipe, clone(&text), gathered, &bundle_weights)?;
        let part_weights = match &ingredients.material {
            HeadMaterial::OneLabel(material) => {
                part_weights::choose(material, &recipe.head, bundle_weights, stop)?
            }
            HeadMaterial::MultiLabel(_) => bundle_weights,
        };
        if Weighing::of(&part_weights).is_some() {
            ingredients = self.ingredients(recipe, text, gathered, &part_weights)?;
        }
        let Ingredients {
            material,
            unknown,
            mut named,
            classes,
            key_count,
            pictures,
        } = ingredients;
        let nearest = nearest(&material)?;
        let head = make_head(&material, unknown.as_ref(), recipe, stop)?;
        check_reach(&head.spec, &head.tensors)?;
        named.extend(head_tensors(&head.tensors)?);
        if !head.curves.is_empty() {
            named.extend(precision::write(&head.curves)?);
        }
        Ok(Draft {
            details: Details {
                created_by: recipe.created_by.clone(),
                parent: recipe.base.as_ref().map(|base| base.version().to_owned()),
                description: recipe.description.clone(),
                labels: recipe.labels.clone(),
                classes,
                width: model.width,
                key_count: key_count as u64,
                views: u32::try_from(recipe.views).unwrap_or(u32::MAX),
                exif_orientation: recipe.exif_orientation,
                bundle_fingerprint: model.fingerprint.clone(),
                bundle_name: model.name.clone(),
                encoder: match gathered.pictures {
                    true => Some(encoder.record(base.flatten())),
                    false => encoder.record_without_pictures(base),
                },
                head: head.spec,
                fine_tune: None,
                source: Some(SourceCounts {
                    received: gathered.received as u64,
                    rejected: gathered.rejected as u64,
                    inherited: recipe.inherited().len() as u64,
                    removed: recipe.base.as_ref().map_or(0, |base| base.removed()) as u64,
                    without_end_mark: gathered.without_end_mark as u64,
                }),
                pictures,
                contrast: head.contrast,
                multi_label: head.multi_label,
                nearest_deciles: nearest.map_or_else(Vec::new, |nearest| nearest.deciles.to_vec()),
                nearest_sample: nearest.map_or(0.0, |nearest| nearest.sample),
                part_weights,
            },
            tensors: named,
            request: recipe.request.clone(),
        })
    }

    /// W of all classes f32 [N, D]: the base's rows as they are stored, then the
    /// new ones.
    fn all_text(
        &self,
        recipe: &Recipe,
        new: Option<TextRows>,
    ) -> Result<Option<Tensor>, CatalogError> {
        let base = recipe.base.as_ref().and_then(|base| base.text());
        let base = base
            .map(|rows| tensors::matrix(rows, recipe.bundle.model.width))
            .transpose()?;
        Ok(match (base, new.map(|rows| rows.0)) {
            (Some(base), Some(new)) => {
                Some(Tensor::f_cat(&[base, new], 0).map_err(CatalogError::internal)?)
            }
            (base, new) => base.or(new),
        })
    }
}

/// How similar the examples are to each other; those with several classes each are
/// left out one at a time.
fn nearest(material: &HeadMaterial) -> Result<Option<Nearest>, CatalogError> {
    let (keys, classes) = match material {
        HeadMaterial::OneLabel(material) => {
            let classes = Vec::<i64>::try_from(&material.labels).map_err(CatalogError::internal)?;
            (&material.keys, classes)
        }
        HeadMaterial::MultiLabel(material) => {
            let count = usize::try_from(material.key_count()).map_err(CatalogError::internal)?;
            (&material.keys, vec![0; count])
        }
    };
    Ok(nearest_deciles(keys, &Rounds::of(&classes))?)
}

/// A head that was made, and what goes with it.
struct MadeHead {
    spec: HeadSpec,
    tensors: HeadTensors,
    contrast: Option<ContrastSpec>,
    multi_label: Option<MultiLabelSpec>,
    curves: Vec<PrecisionCurve>,
}

fn make_head(
    material: &HeadMaterial,
    unknown: Option<&Tensor>,
    recipe: &Recipe,
    stop: &dyn Fn() -> bool,
) -> Result<MadeHead, CatalogError> {
    match material {
        HeadMaterial::OneLabel(material) => {
            let mut made = make::make(material, &recipe.head, &|_| !stop())?;
            let contrast = match unknown {
                Some(unknown) => sharpen(material, &mut made, unknown)?,
                None => None,
            };
            let curves = match &made.unseen {
                Some(answers) => answers.curves(material.classes)?,
                None => Vec::new(),
            };
            Ok(MadeHead {
                spec: made.spec,
                tensors: made.tensors,
                contrast,
                multi_label: None,
                curves,
            })
        }
        HeadMaterial::MultiLabel(material) => {
            let made = multi_label::make(material, &recipe.head, &|_| !stop())?;
            Ok(MadeHead {
                spec: made.spec,
                tensors: made.tensors,
                contrast: None,
                multi_label: Some(MultiLabelSpec {
                    thresholds: made.thresholds,
                }),
                curves: made.curves,
            })
        }
    }
}

/// A head as named arrays. Keys that are the examples' own, plain or
/// standardised, are not stored twice.
pub(super) fn head_tensors(head: &HeadTensors) -> Result<Vec<NamedTensor>, CatalogError> {
    let HeadTensors {
        linear,
        bias,
        cache,
        standardised,
        ..
    } = head;
    let mut named = Vec::new();
    if let Some(linear) = linear {
        named.push(tensors::write(
            names::HEAD_LINEAR,
            &linear.to_kind(Kind::Float),
        )?);
    }
    if let Some(bias) = bias {
        named.push(tensors::write(
            names::HEAD_BIAS,
            &bias.to_kind(Kind::Float),
        )?);
    }
    match cache {
        Some((_, Values::OneHot { weight, .. })) => {
            named.push(tensors::write(
                names::HEAD_WEIGHT,
                &weight.to_kind(Kind::Float),
            )?);
        }
        Some((_, Values::Dense(values))) => {
            named.push(tensors::write(
                names::HEAD_VALUES,
                &values.to_kind(Kind::Float),
            )?);
        }
        None => {}
    }
    if let Some(part) = standardised {
        named.push(tensors::write(names::HEAD_SHIFT, &part.by.shift)?);
        named.push(tensors::write(names::HEAD_SCALE, &part.by.scale)?);
        if let Some(linear) = &part.linear {
            named.push(tensors::write(names::HEAD_STANDARDISED_LINEAR, linear)?);
        }
    }
    Ok(named)
}
