//! How the caller wants a head made.

use super::{
    error::TipError,
    spec::{ClassBalance, HeadSpec, KeyDtype, Method, SearchGrid},
};
use crate::grid::GridValues as _;

/// How the caller wants the head made.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadRequest {
    /// The method; none: the stack of them (AUTO). A given λ then means ProKeR,
    /// and a given α or β Tip-Adapter, whose numbers they are.
    pub method: Option<Method>,
    /// Weight of the cache, over 0; chosen if none.
    pub alpha: Option<f64>,
    /// Sharpness, over 0; chosen if none.
    pub beta: Option<f64>,
    /// ProKeR's λ, over 0; chosen if none.
    pub lambda: Option<f64>,
    /// Sum or mean over a class's shots (Tip-Adapter).
    pub class_balance: ClassBalance,
    /// The values that a search tries for what is left open.
    pub grid: SearchGrid,
    /// Number format of the resident keys; recorded, the tensors stay f32.
    pub key_dtype: KeyDtype,
    /// How to use the material's unlabelled pictures.
    pub pool: Pool,
}

/// How AUTO uses unlabelled pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// Learn from them if that helps on unseen examples.
    #[default]
    Decide,
    /// Learn from them, as decided before.
    Use,
    /// Ignore them; the head is made without.
    Ignore,
}

impl Default for HeadRequest {
    fn default() -> Self {
        Self {
            method: None,
            alpha: None,
            beta: None,
            lambda: None,
            class_balance: ClassBalance::default(),
            grid: SearchGrid::Wide,
            key_dtype: KeyDtype::default(),
            pool: Pool::default(),
        }
    }
}

impl HeadRequest {
    /// The method of an existing head with its hyperparameters and its decision
    /// on unlabelled pictures; those of AUTO, and those that fine-tuning starts
    /// from, are chosen again.
    pub fn like(spec: &HeadSpec) -> Self {
        let over_zero = |number: f64| (number > 0.0).then_some(number);
        let base = Self {
            class_balance: spec.class_balance,
            key_dtype: spec.key_dtype,
            pool: match &spec.unlabelled {
                Some(pool) if pool.used => Pool::Use,
                _ => Pool::Ignore,
            },
            ..Self::default()
        };
        match spec.method {
            Method::Stack | Method::TipAdapterF => base,
            method => Self {
                method: Some(method),
                alpha: over_zero(spec.alpha),
                beta: over_zero(spec.beta),
                lambda: over_zero(spec.lambda),
                ..base
            },
        }
    }

    pub(super) fn check(&self) -> Result<(), TipError> {
        self.grid.check()?;
        for (thing, value) in [
            ("alpha", self.alpha),
            ("beta", self.beta),
            ("lambda", self.lambda),
        ] {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(TipError::Number {
                    thing,
                    value,
                    expected: "a finite number over 0",
                });
            }
        }
        Ok(())
    }
}
