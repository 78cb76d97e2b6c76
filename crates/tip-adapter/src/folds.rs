//! Folds of the shots: those of one are judged by what is made from the
//! others.

use tch::Tensor;

use super::{
    error::TipError,
    hold_out::{ALL_OUT_KEYS, HoldOut},
    material::Material,
};

/// Parts that the shots are divided into.
pub const FOLDS: i64 = 4;

/// A fold.
#[derive(Debug)]
pub(super) struct Fold {
    /// The keys of the others, i64: single shots of a class are always among
    /// them.
    pub rest: Tensor,
    /// Features of its own, f32 [Q, D].
    pub features: Tensor,
    /// i64 [Q].
    pub labels: Tensor,
}

/// How many heads are made to judge a material's shots: [`FOLDS`], or one
/// where there are so many keys that one shot of each class says enough.
pub(super) fn fold_count(material: &Material) -> i64 {
    if material.key_count() > ALL_OUT_KEYS {
        1
    } else {
        FOLDS
    }
}

/// The folds that have examples; none where too few classes have a second
/// shot. Copies of a picture are in one fold.
pub(super) fn folds(material: &Material) -> Result<Vec<Fold>, TipError> {
    let Some(held) = HoldOut::one_of_each_out(material)? else {
        return Ok(Vec::new());
    };
    let count = fold_count(material);
    // Single shots are in no round, and in no fold.
    let alone = held.key_rounds.f_lt(0)?;
    let fold = |rounds: &Tensor| match count {
        1 => rounds.f_clamp_max(1),
        _ => rounds.f_remainder(count),
    };
    let fold_of = fold(&held.key_rounds)?.f_masked_fill(&alone, -1)?;
    let example_folds = fold(&held.rounds)?;
    let mut folds = Vec::new();
    for at in 0..count {
        let own = example_folds.f_eq(at)?.f_nonzero()?.f_squeeze_dim(1)?;
        if own.numel() == 0 {
            continue;
        }
        folds.push(Fold {
            rest: fold_of.f_ne(at)?.f_nonzero()?.f_squeeze_dim(1)?,
            features: held.features.f_index_select(0, &own)?,
            labels: held.labels.f_index_select(0, &own)?,
        });
    }
    Ok(folds)
}
