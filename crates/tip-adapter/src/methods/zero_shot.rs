//! Zero-shot: the text classifier alone.

use tch::{Device, Kind, Tensor};

use super::{
    TrainingFree, numbers,
    search::{Outcome, Search},
};
use crate::{
    error::TipError,
    head::HeadTensors,
    hold_out::HoldOut,
    material::Material,
    request::HeadRequest,
    score::{Numbers, Scored},
    spec::{ClassBalance, Method},
};

/// Zero-shot: the text alone, without a term.
pub(super) struct ZeroShot;

impl TrainingFree for ZeroShot {
    fn method(&self) -> Method {
        Method::ZeroShot
    }

    fn name(&self) -> &'static str {
        "Zero-shot"
    }

    fn check(&self, material: &Material) -> Result<(), TipError> {
        match material.text {
            Some(_) => Ok(()),
            None => Err(TipError::NeedsText(Method::ZeroShot)),
        }
    }

    fn all_given(&self, _request: &HeadRequest) -> bool {
        false
    }

    fn search(&self, search: &Search<'_>) -> Result<Outcome, TipError> {
        let Some(logits) = search.text_logits(Kind::Double)? else {
            return Ok(Outcome::Skipped("no text weights".to_owned()));
        };
        let scored = Scored::new(numbers(Method::ZeroShot), &logits, &search.held.labels)?;
        Ok(Outcome::Scored(scored))
    }

    fn defaults(&self, _: &Material, _: &HeadRequest) -> Result<Numbers, TipError> {
        Ok(numbers(Method::ZeroShot))
    }

    fn sees_examples(&self) -> bool {
        false
    }

    fn spread_factor(&self, _shots: f64) -> f64 {
        1.0
    }

    fn held_term(
        &self,
        material: &Material,
        _: &Numbers,
        _: ClassBalance,
        held: &HoldOut,
    ) -> Result<Option<Tensor>, TipError> {
        let size = [held.count(), material.n()];
        Ok(Some(Tensor::f_zeros(size, (Kind::Double, Device::Cpu))?))
    }

    fn key_term(
        &self,
        material: &Material,
        _: &Numbers,
        _: ClassBalance,
        keys: &HoldOut,
    ) -> Result<Tensor, TipError> {
        let size = [keys.count(), material.n()];
        Ok(Tensor::f_zeros(size, (Kind::Double, Device::Cpu))?)
    }

    fn add_to(
        &self,
        _: &mut HeadTensors,
        material: &Material,
        _: &Numbers,
        _: ClassBalance,
    ) -> Result<(), TipError> {
        self.check(material)
    }
}
