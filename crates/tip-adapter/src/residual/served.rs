//! The head that serves, with a residual.

use tch::{Kind, Tensor};

use super::{Base, judge::Tally};
use crate::{
    energy::Level,
    error::TipError,
    head::{HeadTensors, StandardisedPart},
    make::make,
    material::Material,
    request::HeadRequest,
    spec::{HeadSpec, Method, SelectionSource},
    unseen::UnseenAnswers,
    watch::Watch,
};

/// What the head's temperature is multiplied by, and the answers for unseen examples
/// as the head that serves would give them.
///
/// Heads of folds have learnt from fewer shots: they are less sure, and find pictures
/// less familiar, with or without a residual. So of the temperature that their answers
/// have with one, what they have without it is left out; and the energies of a stack or of
/// GDA are moved as those of the head without a residual are, from the level of the
/// folds' heads to that of examples as new pictures ([`crate::energy`]).
pub(super) fn as_served(
    material: &Material,
    spec: &HeadSpec,
    before: &Tally,
    after: &Tally,
    source: SelectionSource,
    working: &Watch<'_>,
) -> Result<(f64, UnseenAnswers), TipError> {
    let fitted = after.temperature()?;
    let answers = after.answers(fitted)?;
    if source == SelectionSource::Validation {
        return Ok((fitted, answers));
    }
    let temperature = fitted / before.temperature()?;
    let known = after.answers(temperature)?.known;
    // Other methods' scores are in rounds, whose heads lack a shot as those of folds do.
    if !matches!(spec.method, Method::Stack | Method::Gda) {
        return Ok((temperature, UnseenAnswers { known, ..answers }));
    }
    let whole = make(material, &HeadRequest::like(spec), working.0)?;
    let known = match &whole.unseen {
        Some(unseen) => {
            Level::of(&before.answers(1.0)?.known)?.moved(&known, Level::of(&unseen.known)?)?
        }
        None => known,
    };
    Ok((temperature, UnseenAnswers { known, ..answers }))
}

/// L (or L′) and b of the head with the residual.
pub(super) fn with_residual(
    base: &Base<'_>,
    tensors: HeadTensors,
    delta: &Tensor,
) -> Result<HeadTensors, TipError> {
    let delta = delta.f_mul_scalar(base.spec.temperature)?;
    let shift = base.seen.mean.f_matmul(&delta.f_tr()?)?.f_squeeze_dim(0)?;
    let plus = |to: Option<Tensor>, added: &Tensor| -> Result<Option<Tensor>, TipError> {
        let sum = match to {
            Some(to) => to.f_to_kind(Kind::Double)?.f_add(added)?,
            None => added.shallow_clone(),
        };
        Ok(Some(sum.f_to_kind(Kind::Float)?.f_contiguous()?))
    };
    let bias = plus(tensors.bias, &shift.f_neg()?)?;
    Ok(match tensors.standardised {
        Some(part) => HeadTensors {
            bias,
            standardised: Some(StandardisedPart {
                linear: plus(part.linear, &delta)?,
                by: part.by,
            }),
            ..tensors
        },
        None => HeadTensors {
            bias,
            linear: plus(tensors.linear, &delta)?,
            standardised: None,
            ..tensors
        },
    })
}
