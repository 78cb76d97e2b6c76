//! The inputs of a head, as they are also stored: a recipe's examples as
//! tensors, those of its base first.

use std::iter;

use half::f16;
use tch::Tensor;

use super::{
    Catalog, CatalogError, CollectedFeatures, ExampleFeature, Model, Purpose, Recipe, TextSource,
    label_sets, notes, part_weights::Weighing, tensors,
};
use tip_adapter::{
    material::Material,
    multi_label::{MultiLabelMaterial, label_rows},
    standardise::Statistics,
};
use tipserve_store::{ClassRecord, NamedTensor, PartWeight, TextColumn, tensors::names};

/// The input of a head.
pub(super) enum HeadMaterial {
    /// Examples of one class each.
    OneLabel(Material),
    /// Examples with any number of classes.
    MultiLabel(MultiLabelMaterial),
}

/// A version's tensors and counts, before a head is made of them.
pub(super) struct Ingredients {
    pub material: HeadMaterial,
    /// Features of the examples of no class, f32 [U, D].
    pub unknown: Option<Tensor>,
    pub named: Vec<NamedTensor>,
    pub classes: Vec<ClassRecord>,
    pub key_count: usize,
    pub pictures: u64,
}

impl Catalog {
    /// The examples of a recipe, those of its base first, so that a version
    /// made in two steps equals one made in a single step. `weights` are those
    /// of a joined bundle's encoders.
    ///
    /// # Errors
    /// Torch's.
    pub(super) fn ingredients(
        &self,
        recipe: &Recipe,
        text: Option<Tensor>,
        gathered: &CollectedFeatures,
        weights: &[PartWeight],
    ) -> Result<Ingredients, CatalogError> {
        let model = &recipe.bundle.model;
        let weighing = Weighing::of(weights);
        let form = &RowForm {
            width: model.width,
            weighing: weighing.as_ref(),
        };
        let all = || recipe.inherited().iter().chain(&gathered.examples);
        let of = |purpose| all().filter(move |example| example.purpose == purpose);
        let training: Vec<_> = of(Purpose::Training).collect();
        let validation: Vec<_> = of(Purpose::Validation).collect();
        let unknown: Vec<_> = of(Purpose::Unknown).collect();

        let keys = feature_rows(&training, form)?;
        let mut named = vec![tensors::write(names::KEYS, &keys)?];
        named.extend(notes::write(notes::TRAINING, training.iter().copied()));
        named.extend(notes::write(notes::VALIDATION, validation.iter().copied()));
        named.extend(ids(names::EXAMPLE_IDS, &training));
        let views = if recipe.views > 1 && !training.is_empty() {
            let views = view_rows(&training, recipe.views, form)?;
            named.push(tensors::write(names::VIEWS, &views)?);
            Some(views)
        } else {
            None
        };
        if let Some(text) = &text {
            named.push(tensors::write(names::TEXT, text)?);
        }
        let held = beside(&validation, form, names::VALIDATION_FEATURES, &mut named)?;
        named.extend(ids(names::VALIDATION_IDS, &validation));
        let unknown_features = beside(&unknown, form, names::UNKNOWN_FEATURES, &mut named)?;
        named.extend(ids(names::UNKNOWN_IDS, &unknown));
        named.extend(notes::write(notes::UNKNOWN, unknown.iter().copied()));
        let unlabelled: Vec<_> = of(Purpose::Unlabelled).collect();
        let unlabelled = beside(&unlabelled, form, names::UNLABELLED, &mut named)?;
        let (statistics, logit_scale) = weighed(model, weights, text.as_ref())?;
        let inputs = Inputs {
            keys,
            views,
            text,
            validation: held,
            unlabelled,
            statistics,
            logit_scale,
        };
        let classes = recipe.class_count();
        let material = if recipe.multi_label {
            let material = inputs.multi_label(classes, &training, &validation, &mut named)?;
            HeadMaterial::MultiLabel(material)
        } else {
            let material = inputs.one_label(classes, &training, &validation, &mut named)?;
            HeadMaterial::OneLabel(material)
        };
        Ok(Ingredients {
            material,
            unknown: unknown_features,
            named,
            classes: class_records(recipe, all()),
            key_count: training.len(),
            pictures: all().filter(|example| example.has_picture()).count() as u64,
        })
    }
}

/// The width of features, and what they are weighed by, if not as the bundle
/// does.
struct RowForm<'a> {
    width: usize,
    weighing: Option<&'a Weighing>,
}

/// The bundle's statistics and logit scale for features with these weights of
/// its encoders.
fn weighed(
    model: &Model,
    weights: &[PartWeight],
    text: Option<&Tensor>,
) -> Result<(Option<Statistics>, f64), CatalogError> {
    let statistics = statistics(model)?;
    let Some(weighing) = Weighing::of(weights) else {
        return Ok((statistics, model.logit_scale));
    };
    let statistics = statistics.map(|it| weighing.statistics(&it));
    let of_text = weighing.of_text(weights, text)?;
    Ok((statistics.transpose()?, model.logit_scale / of_text))
}

/// What a head is made of, before its labels.
struct Inputs {
    /// Features of the training examples, f32 [M, D].
    keys: Tensor,
    /// Features of their views, f32 [V, M, D].
    views: Option<Tensor>,
    /// The text classifier, f32 [N, D].
    text: Option<Tensor>,
    /// Features of the validation examples, f32 [H, D].
    validation: Option<Tensor>,
    /// Features of unlabelled pictures, f32 [U, D].
    unlabelled: Option<Tensor>,
    statistics: Option<Statistics>,
    logit_scale: f64,
}

impl Inputs {
    /// With one class an example; the labels are added to what is stored.
    fn one_label(
        self,
        classes: usize,
        training: &[&ExampleFeature],
        validation: &[&ExampleFeature],
        named: &mut Vec<NamedTensor>,
    ) -> Result<Material, CatalogError> {
        let key_labels = labels(training);
        named.push(tensors::write(names::LABELS, &key_labels)?);
        let held = self
            .validation
            .map(|features| (features, labels(validation)));
        if let Some((_, labels)) = &held {
            named.push(tensors::write(names::VALIDATION_LABELS, labels)?);
        }
        Ok(Material {
            keys: self.keys,
            labels: key_labels,
            classes,
            views: self.views,
            text: self.text,
            validation: held,
            logit_scale: self.logit_scale,
            statistics: self.statistics,
            unlabelled: self.unlabelled,
        })
    }

    /// With any number of classes an example; the sets of labels are added to
    /// what is stored.
    fn multi_label(
        self,
        classes: usize,
        training: &[&ExampleFeature],
        validation: &[&ExampleFeature],
        named: &mut Vec<NamedTensor>,
    ) -> Result<MultiLabelMaterial, CatalogError> {
        named.extend(label_sets::write(label_sets::TRAINING, sets(training))?);
        let held = match self.validation {
            Some(features) => {
                named.extend(label_sets::write(label_sets::VALIDATION, sets(validation))?);
                Some((features, label_matrix(classes, validation)?))
            }
            None => None,
        };
        Ok(MultiLabelMaterial {
            keys: self.keys,
            labels: label_matrix(classes, training)?,
            validation: held,
            logit_scale: self.logit_scale,
            statistics: self.statistics,
        })
    }
}

/// Features of examples that are no keys, f32 [·, D], named; none of no examples.
fn beside(
    examples: &[&ExampleFeature],
    form: &RowForm<'_>,
    name: &str,
    named: &mut Vec<NamedTensor>,
) -> Result<Option<Tensor>, CatalogError> {
    if examples.is_empty() {
        return Ok(None);
    }
    let features = feature_rows(examples, form)?;
    named.push(tensors::write(name, &features)?);
    Ok(Some(features))
}

fn sets<'a>(examples: &'a [&'a ExampleFeature]) -> impl Iterator<Item = &'a [usize]> {
    examples.iter().map(|example| example.classes.as_slice())
}

fn label_matrix(classes: usize, examples: &[&ExampleFeature]) -> Result<Tensor, CatalogError> {
    let of: Vec<&[usize]> = sets(examples).collect();
    Ok(label_rows(classes, &of)?)
}

/// The keys of examples, f32 [M, D].
fn feature_rows(examples: &[&ExampleFeature], form: &RowForm<'_>) -> Result<Tensor, CatalogError> {
    let mut values: Vec<f32> = examples
        .iter()
        .flat_map(|e| e.key.iter().copied())
        .collect();
    if let Some(weighing) = form.weighing {
        weighing.apply(&mut values);
    }
    tensors::matrix(&values, form.width)
}

/// The class of each example, i64 [M].
fn labels(examples: &[&ExampleFeature]) -> Tensor {
    let labels: Vec<i64> = examples
        .iter()
        .filter_map(|example| example.classes.first())
        .map(|class| *class as i64)
        .collect();
    Tensor::from_slice(&labels)
}

/// The views of each example, f16 [M, R, D].
fn view_rows(
    examples: &[&ExampleFeature],
    count: usize,
    form: &RowForm<'_>,
) -> Result<Tensor, CatalogError> {
    let width = form.width;
    let mut values: Vec<f16> = examples
        .iter()
        .flat_map(|example| {
            // An embedding among pictures stands for all of its views.
            let own = example.views.iter().copied();
            let same = example.key.iter().map(|value| f16::from_f32(*value));
            let copies = if example.views.is_empty() { count } else { 0 };
            own.chain(same.cycle().take(width * copies))
        })
        .collect();
    if let Some(weighing) = form.weighing {
        weighing.apply_to_views(&mut values);
    }
    Tensor::f_from_slice(&values)
        .and_then(|t| t.f_reshape([examples.len() as i64, -1, width as i64]))
        .map_err(CatalogError::internal)
}

/// The examples' ids, as the tensors of a text column.
fn ids(name: &'static str, examples: &[&ExampleFeature]) -> impl Iterator<Item = NamedTensor> {
    TextColumn::encode(name, examples.iter().map(|example| example.id.as_str())).into_iter()
}

/// Each class for the manifest: its prompts, and the number of its examples.
fn class_records<'a>(
    recipe: &Recipe,
    examples: impl Iterator<Item = &'a ExampleFeature>,
) -> Vec<ClassRecord> {
    let new_prompts: &[Vec<String>] = match &recipe.text {
        TextSource::Prompts { prompts, .. } => prompts,
        TextSource::None | TextSource::Weights(_) => &[],
    };
    let all_prompts = recipe
        .base_classes()
        .iter()
        .map(|class| class.prompts.clone())
        .chain(new_prompts.iter().cloned())
        .chain(iter::repeat(Vec::new()));
    let mut classes: Vec<ClassRecord> = recipe
        .class_names()
        .zip(all_prompts)
        .map(|(name, prompts)| ClassRecord {
            display_name: name.to_owned(),
            prompts,
            ..ClassRecord::default()
        })
        .collect();
    for example in examples {
        for class in &example.classes {
            match (classes.get_mut(*class), example.purpose) {
                (Some(class), Purpose::Training) => class.example_count += 1,
                (Some(class), Purpose::Validation) => class.validation_count += 1,
                (_, Purpose::Unknown | Purpose::Unlabelled) | (None, _) => {}
            }
        }
    }
    classes
}

/// The bundle's statistics as tensors.
pub(super) fn statistics(model: &Model) -> Result<Option<Statistics>, CatalogError> {
    let Some(statistics) = &model.statistics else {
        return Ok(None);
    };
    let tensor = |numbers: &[f32]| Tensor::f_from_slice(numbers).map_err(CatalogError::internal);
    Ok(Some(Statistics {
        mean: tensor(&statistics.mean)?,
        variance: tensor(&statistics.variance)?,
    }))
}
