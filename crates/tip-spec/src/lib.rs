//! What a head is, in numbers and names: the part of a version that goes into
//! its manifest. A crate of its own, so that the store can write it without
//! linking libtorch.
//!
//! - [`HeadSpec`]: a head's method and numbers.
//! - [`Method`]: the ways to make a head.
//! - [`Selection`]: what the numbers were chosen on, with which scores, and why.
//!
//! ```
//! use tip_spec::{Method, SearchGrid, Selection, SelectionSource};
//!
//! // The authors' grid for ImageNet, and numbers that a caller gave.
//! assert!(matches!(SearchGrid::OFFICIAL, SearchGrid::Official { beta_scale: 7.0, .. }));
//! let selection = Selection::unsearched(SelectionSource::Given);
//! assert!(selection.candidates.is_empty());
//! assert_ne!(Method::TipAdapter, Method::TipAdapterF);
//! ```

use serde::{Deserialize, Serialize};

mod methods;
mod unseen;

pub use methods::{HeadForm, MadeBy, Method};
pub use unseen::UnseenScores;

/// What a class's affinities do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassBalance {
    /// Add up, as the paper has it.
    #[default]
    Sum,
    /// Are averaged within the class, then multiplied by the mean number of
    /// shots of the classes that have any: equal to the sum at equal shots.
    Mean,
}

/// Number format of resident keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyDtype {
    /// 32-bit float.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

/// Whose statistics put the features on one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standardised {
    /// Mean and variance of the cache's own keys.
    Own,
    /// Mean and variance of the bundle's pictures.
    Bundle,
}

/// Where the scores that chose something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectionSource {
    /// The caller gave the numbers; nothing was chosen.
    Given,
    /// Examples that the caller marked as validation.
    Validation,
    /// Leave-one-out over the cache, each example's own key masked.
    LeaveOneOut,
    /// Too little to choose on: documented defaults.
    Default,
    /// Views of the examples that training did not see.
    HeldBackViews,
}

/// Which α and β are searched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SearchGrid {
    /// The authors' grid, exactly: β outer, α inner, strict `>` on accuracy.
    Official {
        /// s_β: the grid's β run from 0.1 to just below it.
        beta_scale: f64,
        /// s_α: the grid's α run from 0.1 to just below it.
        alpha_scale: f64,
    },
    /// Logarithmic and wider; ties in accuracy go to the lower cross-entropy.
    Wide,
}

impl SearchGrid {
    /// The official grid at s_β = 7, s_α = 3 (ImageNet's).
    pub const OFFICIAL: Self = Self::Official {
        beta_scale: 7.0,
        alpha_scale: 3.0,
    };
}

/// One method with its best numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The method that the numbers are for.
    pub method: Method,
    /// Its best α; 0 if it has none.
    pub alpha: f64,
    /// Its best β; 0 if it has none.
    pub beta: f64,
    /// Its best λ; 0 if it has none.
    pub lambda: f64,
    /// Share classified rightly, 0 to 1.
    pub accuracy: f64,
    /// Mean cross-entropy on the same examples, in nats.
    pub cross_entropy: f64,
    /// Its weight in the sum that was chosen; none if it is no part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The temperature at which its own logits are probabilities; none if
    /// none was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The features that it was scored on, where not the plain ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardised: Option<Standardised>,
    /// Why it was left out, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Candidate {
    /// One that was not scored, and why.
    pub fn left_out(method: Method, reason: String) -> Self {
        Self {
            method,
            alpha: 0.0,
            beta: 0.0,
            lambda: 0.0,
            accuracy: 0.0,
            cross_entropy: 0.0,
            weight: None,
            temperature: None,
            standardised: None,
            skipped: Some(reason),
        }
    }
}

/// On what, and how, a head's numbers were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// What the candidates were scored on.
    pub source: SelectionSource,
    /// How many examples that were.
    pub example_count: usize,
    /// The score that decided, in words.
    pub score: String,
    /// The grid searched, in words.
    pub grid: String,
    /// Every candidate, the chosen one first.
    pub candidates: Vec<Candidate>,
    /// Why, in one sentence for people.
    pub reason: String,
}

impl Selection {
    /// Of numbers that nothing was searched for, and nothing is said about.
    pub fn unsearched(source: SelectionSource) -> Self {
        Self {
            source,
            example_count: 0,
            score: String::new(),
            grid: String::new(),
            candidates: Vec::new(),
            reason: String::new(),
        }
    }
}

/// A head's numbers; its tensors are kept beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadSpec {
    /// The method that made it.
    pub method: Method,
    /// Weight of the cache; 0 if the method has none.
    pub alpha: f64,
    /// Sharpness; 0 if the method has none.
    pub beta: f64,
    /// Regularisation of ProKeR; 0 elsewhere.
    pub lambda: f64,
    /// The bundle's logit scale s.
    pub logit_scale: f64,
    /// Sum or mean over a class's shots.
    pub class_balance: ClassBalance,
    /// Probabilities are softmax(logits / temperature).
    pub temperature: f64,
    /// Number format of the resident keys.
    pub key_dtype: KeyDtype,
    /// Whether all but the text sees standardised features, and by whose
    /// statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardised: Option<Standardised>,
    /// How the numbers were chosen.
    pub selection: Selection,
    /// How it scores examples that it has not seen; none if it could leave
    /// none out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<UnseenScores>,
    /// What came of unlabelled pictures; none if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<UnlabelledUse>,
}

/// The effect of unlabelled pictures on a head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnlabelledUse {
    /// The number of unlabelled pictures.
    pub count: usize,
    /// Whether the head learnt from them.
    pub used: bool,
    /// Labelled examples, which neither head had seen, that this was decided
    /// on; 0 if there were none.
    pub example_count: usize,
    /// Mean cross-entropy on these without the pictures, nats.
    pub cross_entropy_before: f64,
    /// The same after learning from the pictures.
    pub cross_entropy_after: f64,
    /// Accuracy on these without the pictures, 0 to 1.
    pub accuracy_before: f64,
    /// The same after learning from the pictures.
    pub accuracy_after: f64,
    /// The decision in one sentence, for people.
    pub reason: String,
}

/// The part of a picture's score that comes from examples of no class ("none of
/// these"): `score = log Σ exp(logits/T) − weight·(c − centre)`, c the
/// logarithm of the ratio of their kernel density to that of the examples of
/// the classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContrastSpec {
    /// The number of examples of no class.
    pub count: usize,
    /// Sharpness of the densities' kernel `exp(−β(1 − cos))`.
    pub beta: f64,
    /// The weight of the ratio.
    pub weight: f64,
    /// The ratio's mean over the examples of the classes.
    pub centre: f64,
    /// Whether its features are standardised by the keys' own statistics
    /// although the head's are not.
    #[serde(default)]
    pub own_scale: bool,
}

/// What a head of independent probabilities, `p_c = σ(logit_c)`, has in
/// addition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelSpec {
    /// The probability from which each class is in an answer, [N].
    pub thresholds: Vec<f64>,
}
