//! How a head scores examples that it has not seen: what it can say of a
//! picture that is of none of its classes, and how sure its answers are.

use tch::{Kind, Tensor};

use super::{error::TipError, spec::UnseenScores};

/// Of logits over the temperature, [Q, N], and the classes of the rows.
pub(super) fn of_logits(
    logits: &Tensor,
    labels: &Tensor,
) -> Result<Option<UnseenScores>, TipError> {
    let known = logits.f_logsumexp([1i64].as_slice(), false)?;
    let own = logits
        .f_gather(1, &labels.f_unsqueeze(1)?, false)?
        .f_squeeze_dim(1)?
        .f_sub(&known)?
        .f_exp()?;
    of_scores(&known, &own)
}

/// Of scores and own probabilities, [Q] each.
pub(super) fn of_scores(known: &Tensor, own: &Tensor) -> Result<Option<UnseenScores>, TipError> {
    let values = |t: &Tensor| Vec::<f64>::try_from(t.f_to_kind(Kind::Double)?);
    Ok(UnseenScores::of(&values(known)?, &values(own)?))
}
