//! Making a version from labelled features.

use std::collections::BTreeMap;

use half::f16;
use tch::{Kind, Tensor};

use super::{Catalog, CatalogError, TextRoom, tensors};
use crate::{
    store::{
        CacheId, ClassRecord, Details, Draft, Manifest, NamedTensor, TextColumn, tensors::names,
    },
    telemetry,
    tip::{
        head::{HeadTensors, Values},
        make::{self, HeadRequest, Made},
        material::Material,
    },
};

/// Where a cache's text classifier comes from.
#[derive(Clone, Debug)]
pub enum TextSource {
    /// Nowhere: the cache alone decides.
    None,
    /// Each class's prompts.
    Prompts {
        /// For every class at least one.
        prompts: Vec<Vec<String>>,
        /// Cut prompts that are too long instead of refusing them.
        truncate: bool,
    },
    /// Unit rows, one per class, N · D values.
    Weights(Vec<f32>),
}

/// What a new version is to be, checked, but for its examples.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The cache.
    pub id: CacheId,
    /// Display names, by index.
    pub classes: Vec<String>,
    /// The text classifier.
    pub text: TextSource,
    /// How to make the head.
    pub head: HeadRequest,
    /// Augmented views of each example, R, at least 1.
    pub views: usize,
    /// Free text.
    pub description: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Who asked for it.
    pub created_by: String,
}

/// The feature of one example.
#[derive(Clone, Debug)]
pub struct ExampleFeature {
    /// The example's id.
    pub id: String,
    /// Its class.
    pub class: usize,
    /// Whether it is for validation.
    pub validation: bool,
    /// Unit vector [D]: of the mean of the raw features of its views.
    pub key: Vec<f32>,
    /// Unit vectors [R · D] of its views; empty where there is one view only.
    pub views: Vec<f16>,
}

/// Features of all examples, in their order.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The examples.
    pub examples: Vec<ExampleFeature>,
    /// How many were received, those rejected included.
    pub received: usize,
    /// How many were rejected.
    pub rejected: usize,
    /// By class: how many were rejected, and why the first was.
    pub reasons: BTreeMap<usize, (usize, String)>,
}

/// A text classifier W f32 [N, D], unit rows.
#[derive(Debug)]
pub struct TextRows(Tensor);

/// What making a version is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Encoding prompts.
    Text,
    /// Receiving and encoding examples.
    Examples,
    /// Choosing method and numbers.
    Selection,
    /// Writing.
    Storing,
}

/// A matrix of rows of `width` on the CPU.
fn matrix(values: &[f32], width: usize) -> Result<Tensor, CatalogError> {
    let rows = values.len().checked_div(width).unwrap_or(0);
    Tensor::f_from_slice(values)
        .and_then(|tensor| tensor.f_reshape([rows as i64, width as i64]))
        .map_err(CatalogError::internal)
}

fn labels<'a>(examples: impl Iterator<Item = &'a ExampleFeature>) -> Tensor {
    let labels: Vec<i64> = examples.map(|example| example.class as i64).collect();
    Tensor::from_slice(&labels)
}

/// A version's tensors and counts, before a head is made of them.
struct Ingredients {
    material: Material,
    named: Vec<NamedTensor>,
    classes: Vec<ClassRecord>,
    key_count: usize,
}

impl Catalog {
    /// The text classifier of a recipe [N, D], if it has one. Blocks.
    ///
    /// # Errors
    /// A prompt that cannot be encoded; [`CatalogError::NoTextEncoder`].
    pub fn text_classifier(
        &self,
        recipe: &Recipe,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<TextRows>, CatalogError> {
        let rows = match &recipe.text {
            TextSource::None => return Ok(None),
            TextSource::Weights(rows) => matrix(rows, self.model.width)?,
            TextSource::Prompts { prompts, truncate } => {
                self.text()?.classifier(prompts, *truncate, stop)?
            }
        };
        Ok(Some(TextRows(rows)))
    }

    /// Makes the head and gives what is to be stored. Blocks, and computes.
    ///
    /// # Errors
    /// Material that no head can be made of; [`CatalogError::Cancelled`].
    pub fn prepare(
        &self,
        recipe: &Recipe,
        text: Option<TextRows>,
        gathered: &Gathered,
        stop: &dyn Fn() -> bool,
    ) -> Result<Draft, CatalogError> {
        let ingredients = self.ingredients(recipe, text.map(|rows| rows.0), gathered)?;
        let made = make::make(&ingredients.material, &recipe.head, &|_| !stop())?;
        let Ingredients {
            mut named,
            classes,
            key_count,
            ..
        } = ingredients;
        named.extend(head_tensors(&made)?);
        Ok(Draft {
            details: Details {
                created_by: recipe.created_by.clone(),
                parent: None,
                description: recipe.description.clone(),
                labels: recipe.labels.clone(),
                classes,
                width: self.model.width,
                key_count: key_count as u64,
                views: u32::try_from(recipe.views).unwrap_or(u32::MAX),
                bundle_fingerprint: self.model.fingerprint.clone(),
                bundle_name: self.model.name.clone(),
                head: made.spec,
                fine_tune: None,
            },
            tensors: named,
        })
    }

    /// Stores a draft as the cache's next version, and loads it, so that what
    /// is reported as made is known to serve.
    ///
    /// # Errors
    /// The store's.
    pub async fn store_version(
        &self,
        id: &CacheId,
        draft: Draft,
    ) -> Result<Manifest, CatalogError> {
        let manifest = self.store.create_version(id, draft).await?;
        telemetry::version_created();
        tracing::info!(version = manifest.resource_name(), "made a version");
        if let Err(error) = self.classifier_at(id.clone(), manifest.version).await {
            tracing::warn!(version = manifest.resource_name(), %error, "it does not load");
        }
        Ok(manifest)
    }

    fn ingredients(
        &self,
        recipe: &Recipe,
        text: Option<Tensor>,
        gathered: &Gathered,
    ) -> Result<Ingredients, CatalogError> {
        let width = self.model.width;
        let training = || {
            gathered
                .examples
                .iter()
                .filter(|example| !example.validation)
        };
        let validation = || {
            gathered
                .examples
                .iter()
                .filter(|example| example.validation)
        };
        let keys: Vec<f32> = training().flat_map(|e| e.key.iter().copied()).collect();
        let keys = matrix(&keys, width)?;
        let key_labels = labels(training());
        let key_count = training().count();

        let mut named = vec![
            tensors::write(names::KEYS, &keys)?,
            tensors::write(names::LABELS, &key_labels)?,
        ];
        named.extend(TextColumn::encode(
            names::EXAMPLE_IDS,
            training().map(|example| example.id.as_str()),
        ));
        let views = if recipe.views > 1 && key_count > 0 {
            let values: Vec<f16> = training()
                .flat_map(|example| {
                    // An embedding among pictures is every one of its views.
                    let own = example.views.iter().copied();
                    let same = example.key.iter().map(|value| f16::from_f32(*value));
                    let copies = if example.views.is_empty() {
                        recipe.views
                    } else {
                        0
                    };
                    own.chain(same.cycle().take(width * copies))
                })
                .collect();
            let views = Tensor::f_from_slice(&values)
                .and_then(|t| t.f_reshape([key_count as i64, -1, width as i64]))
                .map_err(CatalogError::internal)?;
            named.push(tensors::write(names::VIEWS, &views)?);
            Some(views)
        } else {
            None
        };
        if let Some(text) = &text {
            named.push(tensors::write(names::TEXT, text)?);
        }
        let validation_set = if validation().next().is_some() {
            let values: Vec<f32> = validation().flat_map(|e| e.key.iter().copied()).collect();
            let features = matrix(&values, width)?;
            let validation_labels = labels(validation());
            named.push(tensors::write(names::VALIDATION_FEATURES, &features)?);
            named.push(tensors::write(
                names::VALIDATION_LABELS,
                &validation_labels,
            )?);
            named.extend(TextColumn::encode(
                names::VALIDATION_IDS,
                validation().map(|example| example.id.as_str()),
            ));
            Some((features, validation_labels))
        } else {
            None
        };

        let mut classes: Vec<ClassRecord> = recipe
            .classes
            .iter()
            .enumerate()
            .map(|(index, name)| ClassRecord {
                display_name: name.clone(),
                prompts: match &recipe.text {
                    TextSource::Prompts { prompts, .. } => {
                        prompts.get(index).cloned().unwrap_or_default()
                    }
                    TextSource::None | TextSource::Weights(_) => Vec::new(),
                },
                ..ClassRecord::default()
            })
            .collect();
        for example in &gathered.examples {
            if let Some(class) = classes.get_mut(example.class) {
                if example.validation {
                    class.validation_count += 1;
                } else {
                    class.example_count += 1;
                }
            }
        }
        Ok(Ingredients {
            material: Material {
                keys,
                labels: key_labels,
                classes: recipe.classes.len(),
                views,
                text,
                validation: validation_set,
                logit_scale: self.model.logit_scale,
            },
            named,
            classes,
            key_count,
        })
    }
}

/// A made head as named arrays. Keys that are the examples' own are not
/// stored twice.
pub(super) fn head_tensors(made: &Made) -> Result<Vec<NamedTensor>, CatalogError> {
    let HeadTensors {
        linear,
        bias,
        cache,
        ..
    } = &made.tensors;
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
    Ok(named)
}

/// The prompts of every class: its own, or by templates.
///
/// # Errors
/// A template without "{}".
pub fn class_prompts(
    own: Vec<String>,
    name: &str,
    templates: &[String],
) -> Result<Vec<String>, CatalogError> {
    if own.is_empty() {
        TextRoom::prompts(templates, name)
    } else {
        Ok(own)
    }
}
