//! What the parts that learn from examples say of held-out ones.

use tch::Tensor;

use super::{
    as_new,
    space::{Space, neutral},
};
use crate::{
    error::TipError, gda_left_out, hold_out::HoldOut, material::Material, spec::Method, told::Told,
    watch::Watch,
};

/// As what left-out examples are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum As {
    /// New pictures of classes of all shots, if there is a closed form: what a head
    /// will make of pictures to come. Rounds lack a shot of every class, with two
    /// shots half of what the head knows.
    New,
    /// Examples of classes that lack a shot each: what the examples say of one
    /// another, whatever their labels are.
    InRounds,
}

/// Logits of held-out examples, f64 [Q, classes that can be told].
pub(super) struct Logits {
    /// None if nothing varies within a class.
    pub gda: Option<Tensor>,
    /// None if there are too many keys.
    pub ridge: Option<Tensor>,
    /// Whether they are by heads that lack a shot of every class.
    pub lack_a_shot: bool,
}

/// The logits of both parts in a space.
pub(super) fn logits(
    space: &Space,
    material: &Material,
    held: &HoldOut,
    how: As,
    watch: &Watch<'_>,
) -> Result<Logits, TipError> {
    let seen = match &space.by {
        Some(by) => by.apply(&held.features)?,
        None => held.features.shallow_clone(),
    };
    watch.step(Method::Proker, 0, 1)?;
    let ridge = space
        .ridge
        .as_ref()
        .map(|ridge| ridge.held_predictions(&seen, held))
        .transpose()?;
    watch.step(Method::Gda, 0, 1)?;
    let new = match how {
        As::New => as_new::logits(space.scaled(), material, held, &seen, ridge.as_ref())?,
        As::InRounds => None,
    };
    let as_new = new.is_some();
    let (gda, ridge) = match new {
        Some(new) => (new.gda, new.ridge),
        None => {
            let share = space.ridges.gda;
            let gda = gda_left_out::held_logits(material, space.by.as_ref(), &seen, held, share)?;
            (gda, ridge)
        }
    };
    let told = Told::of(material)?;
    Ok(Logits {
        gda: gda.map(|gda| told.logits(&gda)).transpose()?,
        ridge: ridge
            .map(|ridge| told.logits(&neutral(material, &ridge)?))
            .transpose()?,
        lack_a_shot: held.leaves_out() && !as_new,
    })
}
