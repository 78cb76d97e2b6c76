//! The parts of a stack.

use tch::Tensor;

use crate::{
    error::TipError,
    score::right,
    spec::{Candidate, Method, Standardised},
    spread::{RIDGE, RIDGE_FACTOR, gda_factor, wrong_class_spread},
    temperature::{Near, fit_held_near},
};

/// How many examples the spread's temperature counts as. Many: pictures to come
/// are often less like the examples than these are like one another, which no left-out
/// example tells, and a set of few classes has few of them (`docs/accuracy.md`).
const STRENGTH: f64 = 20.0;

/// Why a part that learns from the examples has no scores of its own.
pub(super) const ONE_SHOT: &str = "not scored: without a second example of most classes there is \
                                   none to leave out; its temperature is that of the spread of \
                                   its logits";

/// One classifier of a stack.
#[derive(Debug)]
pub(super) struct Part {
    /// ZeroShot (text), Gda or Proker (kernel ridge regression without text).
    pub method: Method,
    /// T, which the part's logits are divided by before they are weighted.
    pub temperature: f64,
    /// w; 1 until weights are fitted, if nothing else says it.
    pub weight: f64,
    /// Accuracy of the part by itself on the held-out examples; 0 if nothing
    /// was held out.
    pub accuracy: f64,
    /// Mean cross-entropy of the part by itself, at T, in nats.
    pub cross_entropy: f64,
    /// Why it has no scores, if it has none.
    unscored: Option<&'static str>,
}

impl Part {
    /// A part that learnt from `shots` a class, with T fitted on held-out logits
    /// [Q, N]; none if they say nothing.
    pub fn fitted(
        method: Method,
        logits: &Tensor,
        labels: &Tensor,
        shots: f64,
    ) -> Result<Option<Self>, TipError> {
        let Some(near) = Self::spread(method, logits, labels, shots)? else {
            return Ok(None);
        };
        let fit = fit_held_near(
            logits,
            labels,
            Near {
                temperature: near,
                strength: STRENGTH,
            },
        )?;
        Self::scored(method, logits, labels, fit.temperature, fit.cross_entropy).map(Some)
    }

    /// A part with a T that was found elsewhere.
    pub fn scored(
        method: Method,
        logits: &Tensor,
        labels: &Tensor,
        temperature: f64,
        cross_entropy: f64,
    ) -> Result<Self, TipError> {
        let count = labels.numel().max(1) as f64;
        Ok(Self {
            method,
            temperature,
            weight: 1.0,
            accuracy: right(logits, labels)? as f64 / count,
            cross_entropy,
            unscored: None,
        })
    }

    /// T if nothing is held out.
    pub fn unscored(method: Method, temperature: f64) -> Self {
        Self {
            method,
            temperature,
            weight: 1.0,
            accuracy: 0.0,
            cross_entropy: 0.0,
            unscored: Some(ONE_SHOT),
        }
    }

    /// The temperature that left-out logits have by their spread, of a part that learnt
    /// from `shots` a class.
    pub fn spread(
        method: Method,
        logits: &Tensor,
        labels: &Tensor,
        shots: f64,
    ) -> Result<Option<f64>, TipError> {
        let (expected, factor) = match method {
            Method::Proker => (Some(RIDGE), RIDGE_FACTOR),
            _ => (None, gda_factor(shots)),
        };
        let spread = wrong_class_spread(logits, labels, expected)?;
        Ok(spread.map(|spread| spread * factor))
    }

    /// w/T, the factor of the part's own numbers.
    pub fn factor(&self) -> f64 {
        self.weight / self.temperature
    }

    pub fn name(&self) -> &'static str {
        match self.method {
            Method::ZeroShot => "text",
            Method::Gda => "GDA",
            _ => "kernel ridge",
        }
    }

    pub fn candidate(&self, on: &Scale) -> Candidate {
        let ridge = self.method == Method::Proker;
        Candidate {
            method: self.method,
            alpha: 0.0,
            beta: if ridge { on.beta } else { 0.0 },
            lambda: if ridge { on.lambda } else { 0.0 },
            accuracy: self.accuracy,
            cross_entropy: self.cross_entropy,
            weight: Some(self.weight),
            temperature: Some(self.temperature),
            standardised: on.whose.filter(|_| self.method != Method::ZeroShot),
            skipped: self.unscored.map(str::to_owned),
        }
    }
}

/// The features that the parts see, in a candidate's terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// β of kernel ridge regression.
    pub beta: f64,
    /// λ of kernel ridge regression.
    pub lambda: f64,
    /// Whose statistics standardise the features; none for plain ones.
    pub whose: Option<Standardised>,
}
