//! The training-free methods, each in its own file: a new one needs a file here
//! and a line in [`METHODS`].

use tch::{Device, Kind, Tensor};

use super::{
    error::TipError,
    gda::NEVER,
    head::HeadTensors,
    hold_out::HoldOut,
    material::Material,
    request::HeadRequest,
    score::Numbers,
    spec::{ClassBalance, Method},
};
use crate::grid::GridValues as _;

pub(super) mod calibrate;
mod class_mean;
mod gda;
mod proker;
pub(super) mod search;
mod tip_adapter;
mod zero_shot;

use calibrate::Calibration;
use search::{Outcome, Search};

/// All training-free methods that can be requested by name.
static METHODS: &[&dyn TrainingFree] = &[
    &zero_shot::ZeroShot,
    &tip_adapter::TipAdapter,
    &gda::Gda,
    &proker::Proker,
    &class_mean::ClassMean,
];

/// A method of making a head from examples and text weights without training:
/// the text's logits plus a term of the method.
pub(super) trait TrainingFree: Sync {
    /// Its name in the specification.
    fn method(&self) -> Method;

    /// Its name as shown to people.
    fn name(&self) -> &'static str;

    /// Refuses material that lacks something the method needs.
    fn check(&self, material: &Material) -> Result<(), TipError> {
        if material.key_count() == 0 {
            return Err(TipError::NeedsExamples(self.method()));
        }
        Ok(())
    }

    /// Whether the caller gave all of its hyperparameters.
    fn all_given(&self, request: &HeadRequest) -> bool;

    /// The examples that its numbers are chosen on if there are no
    /// validation examples; there is at least one key.
    fn hold_out(
        &self,
        material: &Material,
        _request: &HeadRequest,
    ) -> Result<Option<HoldOut>, TipError> {
        HoldOut::one_of_each_out(material)
    }

    /// Its best numbers on the held-out examples, and how they score.
    fn search(&self, search: &Search<'_>) -> Result<Outcome, TipError>;

    /// The criterion of the search, in words; for the official grid it is
    /// always the first best accuracy.
    fn score(&self) -> &'static str {
        "accuracy, ties by cross-entropy"
    }

    /// The searched grid in words, for the version's record.
    fn grid(&self, _material: &Material, request: &HeadRequest) -> String {
        request.grid.describe()
    }

    /// Its numbers if nothing can be chosen: those given, else documented
    /// ones.
    fn defaults(&self, material: &Material, request: &HeadRequest) -> Result<Numbers, TipError>;

    /// Whether its logits depend on the examples.
    fn sees_examples(&self) -> bool {
        true
    }

    /// The term's temperature over its spread over wrong classes, with two shots a
    /// class and more: the middle of the best values over draws of CLIP features and
    /// of pictures (`docs/accuracy.md`).
    fn spread_factor(&self, shots: f64) -> f64;

    /// The same with one shot, which nothing can be fitted to.
    fn one_shot_factor(&self) -> f64 {
        self.spread_factor(1.0)
    }

    /// The variance of the term over wrong classes with all shots, over that of
    /// the left-out term ([Q, classes that can be told]): what one more shot
    /// takes off its noise, see [`calibrate`].
    fn all_shots_variance(
        &self,
        _calibration: &Calibration<'_>,
        _left_out: &Tensor,
        _labels: &Tensor,
        _held: &HoldOut,
    ) -> Result<f64, TipError> {
        Ok(1.0)
    }

    /// The term at held-out examples as of new pictures, [Q, N], if there is a closed
    /// form: nothing is left to correct for the shot that they lack.
    fn as_new_term(
        &self,
        _material: &Material,
        _numbers: &Numbers,
        _held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        Ok(None)
    }

    /// The term at held-out examples, each by the keys that it may see, f64 [Q, N],
    /// on the scale that it has with all shots; none if it cannot be had.
    fn held_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        balance: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError>;

    /// The term of a head of all shots for keys, f64 [Q, N], of which only the
    /// wrong classes count; each key without itself if the method can do without.
    fn key_term(
        &self,
        material: &Material,
        numbers: &Numbers,
        balance: ClassBalance,
        keys: &HoldOut,
    ) -> Result<Tensor, TipError>;

    /// Adds the term to a head that has the text's part.
    fn add_to(
        &self,
        head: &mut HeadTensors,
        material: &Material,
        numbers: &Numbers,
        balance: ClassBalance,
    ) -> Result<(), TipError>;
}

/// The method of this name.
///
/// # Errors
/// AUTO's stack, and methods that need training.
pub(super) fn by_name(method: Method) -> Result<&'static dyn TrainingFree, TipError> {
    let found = METHODS.iter().find(|it| it.method() == method);
    found.copied().ok_or(match method {
        Method::Stack => TipError::NotByName(method),
        _ => TipError::NotTrainingFree(method),
    })
}

/// The hyperparameters of a method that has only those set.
const fn numbers(method: Method) -> Numbers {
    Numbers {
        method,
        alpha: 0.0,
        beta: 0.0,
        lambda: 0.0,
    }
}

/// Without text, a class without examples comes last, not above classes that a
/// picture is unlike.
fn absent_last(head: &mut HeadTensors, material: &Material) -> Result<(), TipError> {
    let absent = material.counts()?.f_eq(0)?;
    if material.text.is_some() || absent.f_any()?.f_int64_value(&[])? == 0 {
        return Ok(());
    }
    let bias = match head.bias.take() {
        Some(bias) => bias,
        None => Tensor::f_zeros([material.n()], (Kind::Float, Device::Cpu))?,
    };
    head.bias = Some(bias.f_masked_fill(&absent, NEVER)?);
    Ok(())
}

/// text + added, summed in f64, as f32.
fn plus(text: Option<Tensor>, added: &Tensor) -> Result<Tensor, TipError> {
    let sum = match text {
        Some(text) => text.f_to_kind(Kind::Double)?.f_add(added)?,
        None => added.shallow_clone(),
    };
    Ok(sum.f_to_kind(Kind::Float)?.f_contiguous()?)
}
