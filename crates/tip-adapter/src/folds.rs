//! Folds of the shots: a head made from the others is judged on each fold.

use tch::Tensor;

use super::{
    error::TipError,
    hold_out::{ALL_OUT_KEYS, HoldOut},
    material::Material,
};

/// How many folds the shots are divided into.
pub const FOLDS: i64 = 4;

/// One fold of the shots.
#[derive(Debug)]
pub(super) struct Fold {
    /// The keys of the other folds, i64; a class's only shot is always among
    /// them.
    pub rest: Tensor,
    /// The features of this fold, f32 [Q, D].
    pub features: Tensor,
    /// The true classes of these features, i64 [Q].
    pub labels: Tensor,
}

/// How many heads are made to judge a material's shots: [`FOLDS`], or one if
/// there are enough keys that one shot of each class suffices.
pub(super) fn fold_count(material: &Material) -> i64 {
    if material.key_count() > ALL_OUT_KEYS {
        1
    } else {
        FOLDS
    }
}

/// The folds that have examples; none if too few classes have a second
/// shot. Copies of a picture are in one fold.
pub(super) fn folds(material: &Material) -> Result<Vec<Fold>, TipError> {
    let Some(held) = HoldOut::one_of_each_out(material)? else {
        return Ok(Vec::new());
    };
    let count = fold_count(material);
    // Single shots are in no round, so in no fold.
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
