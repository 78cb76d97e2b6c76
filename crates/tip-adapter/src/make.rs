//! From a cache's contents to a head.

use tch::{Kind, Tensor};

use super::{
    class_mean,
    error::TipError,
    gda,
    head::{HeadTensors, Values},
    material::Material,
    proker,
    score::Numbers,
    select::{self, Choice, Chosen},
    spec::{ClassBalance, HeadSpec, KeyDtype, Method, SearchGrid},
    stack::Stacked,
    tip_adapter::class_factors,
};
use crate::grid::GridValues as _;

/// How the caller wants the head made.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadRequest {
    /// The method; none: the stack of them (AUTO). A given λ then asks for
    /// ProKeR, and a given α or β for Tip-Adapter: they are numbers of these.
    pub method: Option<Method>,
    /// Weight of the cache, over 0; chosen where none.
    pub alpha: Option<f64>,
    /// Sharpness, over 0; chosen where none.
    pub beta: Option<f64>,
    /// ProKeR's λ, over 0; chosen where none.
    pub lambda: Option<f64>,
    /// Sum or mean over a class's shots (Tip-Adapter).
    pub class_balance: ClassBalance,
    /// Which numbers are tried.
    pub grid: SearchGrid,
    /// Number format of the resident keys; recorded, the tensors stay f32.
    pub key_dtype: KeyDtype,
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
        }
    }
}

/// A head: its numbers and its tensors.
#[derive(Debug)]
pub struct Made {
    /// For the manifest.
    pub spec: HeadSpec,
    /// f32, on the CPU; keys and labels share the material's memory.
    pub tensors: HeadTensors,
}

/// How far [`make`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The method that is tried or made.
    pub method: Method,
    /// Numbers tried.
    pub done: usize,
    /// Of so many.
    pub total: usize,
}

/// Tells the caller how far it is, and hears whether to go on.
pub(super) struct Watch<'a>(pub &'a dyn Fn(Progress) -> bool);

impl Watch<'_> {
    pub fn step(&self, method: Method, done: usize, total: usize) -> Result<(), TipError> {
        if (self.0)(Progress {
            method,
            done,
            total,
        }) {
            Ok(())
        } else {
            Err(TipError::Cancelled)
        }
    }
}

/// Makes a head: chooses what the request leaves open, then computes L, b, K
/// and V. `watch` is called often, at the latest between two large products or
/// solves; the work ends with [`TipError::Cancelled`] once it answers `false`.
///
/// What is chosen is chosen on the validation examples where there are any,
/// else by leave-one-out over the keys, else (one shot a class) it keeps
/// documented defaults. [`HeadSpec::selection`] says which.
///
/// # Errors
/// Material or a request that cannot be, see [`TipError`].
pub fn make(
    material: &Material,
    request: &HeadRequest,
    watch: &dyn Fn(Progress) -> bool,
) -> Result<Made, TipError> {
    material.check()?;
    request.check()?;
    let watch = Watch(watch);
    let _no_grad = tch::no_grad_guard();
    let chosen = match select::choose(material, request, &watch)? {
        Choice::Stack(stacked) => return Ok(of_stack(material, request, *stacked)),
        Choice::Method(chosen) => chosen,
    };
    let Chosen {
        numbers,
        temperature,
        selection,
    } = chosen;
    watch.step(numbers.method, 0, 1)?;
    let tensors = tensors(material, request, &numbers)?;
    Ok(Made {
        spec: HeadSpec {
            method: numbers.method,
            alpha: numbers.alpha,
            beta: numbers.beta,
            lambda: numbers.lambda,
            logit_scale: material.logit_scale,
            class_balance: request.class_balance,
            temperature,
            key_dtype: request.key_dtype,
            standardised: None,
            selection,
        },
        tensors,
    })
}

/// A stack's logits are at temperature 1 already.
fn of_stack(material: &Material, request: &HeadRequest, stacked: Stacked) -> Made {
    Made {
        spec: HeadSpec {
            method: Method::Stack,
            alpha: 0.0,
            beta: stacked.beta,
            lambda: stacked.lambda,
            logit_scale: material.logit_scale,
            class_balance: request.class_balance,
            temperature: 1.0,
            key_dtype: request.key_dtype,
            standardised: stacked.standardised,
            selection: stacked.selection,
        },
        tensors: stacked.tensors,
    }
}

impl HeadRequest {
    fn check(&self) -> Result<(), TipError> {
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

/// L, b, K and V of a method with its numbers (tip-adapter.md, "one head").
fn tensors(
    material: &Material,
    request: &HeadRequest,
    numbers: &Numbers,
) -> Result<HeadTensors, TipError> {
    let scale = material.logit_scale;
    let text = material
        .text
        .as_ref()
        .map(|w| w.f_mul_scalar(scale))
        .transpose()?;
    let mut head = HeadTensors {
        classes: material.classes,
        linear: text,
        bias: None,
        cache: None,
        standardised: None,
    };
    match numbers.method {
        Method::ZeroShot => {
            if head.linear.is_none() {
                return Err(TipError::NeedsText(Method::ZeroShot));
            }
        }
        Method::TipAdapter => {
            let weight = class_factors(material, request.class_balance)?;
            let values = Values::OneHot {
                labels: material.labels.f_contiguous()?,
                weight: weight.f_mul_scalar(numbers.alpha)?,
            };
            head.cache = Some((material.keys.f_contiguous()?, values));
        }
        Method::Gda => {
            let gaussian = gda::fit(material, None)?;
            let weight = gaussian.weight.f_mul_scalar(numbers.alpha)?;
            head.linear = Some(plus(head.linear, &weight)?);
            head.bias = Some(
                gaussian
                    .bias
                    .f_mul_scalar(numbers.alpha)?
                    .f_to_kind(Kind::Float)?,
            );
        }
        Method::Proker => {
            let system = proker::system(material)?;
            let values = system
                .factorise(numbers.beta, numbers.lambda)?
                .coefficients()?
                .f_mul_scalar(scale * numbers.alpha * numbers.lambda)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()?;
            head.cache = Some((material.keys.f_contiguous()?, Values::Dense(values)));
        }
        Method::ClassMean => {
            let means = class_mean::class_means(material)?
                .f_to_kind(Kind::Double)?
                .f_mul_scalar(scale * numbers.alpha)?;
            head.linear = Some(plus(head.linear, &means)?);
        }
        Method::TipAdapterF => return Err(TipError::NotTrainingFree(Method::TipAdapterF)),
        Method::Stack => return Err(TipError::NotByName(Method::Stack)),
    }
    Ok(head)
}

/// text + added, summed in f64, as f32.
fn plus(text: Option<Tensor>, added: &Tensor) -> Result<Tensor, TipError> {
    let sum = match text {
        Some(text) => text.f_to_kind(Kind::Double)?.f_add(added)?,
        None => added.shallow_clone(),
    };
    Ok(sum.f_to_kind(Kind::Float)?.f_contiguous()?)
}
