//! From class names to prompts, and from the prompts' embeddings to the text
//! classifier W.

use tch::{Kind, Tensor};
use thiserror::Error;

/// Why prompts or a text classifier cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PromptError {
    /// `{}` must occur exactly once.
    #[error("the template {template:?} has {{}} {found} times; exactly once is needed")]
    Placeholder {
        /// The template as it was given.
        template: String,
        /// How often it has `{}`.
        found: usize,
    },
    /// There is nothing to fill.
    #[error("no prompt template was given, and the bundle has none")]
    NoTemplates,
    /// A class without a prompt has no row in W.
    #[error("class {class} has no prompt")]
    NoPrompts {
        /// The class's index, from 0.
        class: usize,
    },
    /// Embeddings that do not fit the prompts.
    #[error("{found} prompt embeddings, {expected} prompts")]
    Count {
        /// Prompts of all classes together.
        expected: usize,
        /// Rows of embeddings that were given.
        found: usize,
    },
}

/// Checks that a template has `{}` exactly once.
///
/// # Errors
/// [`PromptError::Placeholder`].
pub fn check_template(template: &str) -> Result<(), PromptError> {
    match template.matches("{}").count() {
        1 => Ok(()),
        found => Err(PromptError::Placeholder {
            template: template.into(),
            found,
        }),
    }
}

/// Every template filled with the class's name. The name is taken as it is:
/// braces in it mean nothing.
///
/// # Errors
/// [`PromptError::NoTemplates`], [`PromptError::Placeholder`].
pub fn fill(templates: &[String], class: &str) -> Result<Vec<String>, PromptError> {
    if templates.is_empty() {
        return Err(PromptError::NoTemplates);
    }
    templates
        .iter()
        .map(|template| {
            check_template(template)?;
            Ok(template.replacen("{}", class, 1))
        })
        .collect()
}

/// CLIP's text classifier W, f32 [N, D] with unit rows: per class, every
/// prompt's embedding is L2-normalised, they are averaged, and the mean is
/// L2-normalised again (Radford et al., 2021, section 3.1.4).
///
/// `features` [P, D] are the raw embeddings of all prompts, class after
/// class; `prompts_per_class` [N] says how many each class has, P in all.
/// A zero embedding stays zero.
///
/// # Errors
/// [`PromptError::NoPrompts`], [`PromptError::Count`].
pub fn classifier(features: &Tensor, prompts_per_class: &[usize]) -> Result<Tensor, PromptError> {
    if let Some(class) = prompts_per_class.iter().position(|&count| count == 0) {
        return Err(PromptError::NoPrompts { class });
    }
    let expected = prompts_per_class.iter().sum();
    let found = usize::try_from(features.size().first().copied().unwrap_or(0)).unwrap_or(0);
    if found != expected || features.dim() != 2 {
        return Err(PromptError::Count { expected, found });
    }
    let unit = normalise(&features.to_kind(Kind::Float));
    let counts: Vec<i64> = prompts_per_class
        .iter()
        .map(|&count| count as i64)
        .collect();
    let means: Vec<Tensor> = unit
        .split_with_sizes(counts.as_slice(), 0)
        .iter()
        .map(|rows| rows.mean_dim(0_i64, false, Kind::Float))
        .collect();
    if means.is_empty() {
        return Ok(unit);
    }
    Ok(normalise(&Tensor::stack(&means, 0)))
}

/// Rows divided by their L2 norm.
fn normalise(rows: &Tensor) -> Tensor {
    rows / rows
        .norm_scalaropt_dim(2, -1_i64, true)
        .clamp_min(f64::from(f32::MIN_POSITIVE))
}
