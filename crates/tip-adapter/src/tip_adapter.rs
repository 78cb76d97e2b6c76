//! Tip-Adapter's cache logits for many β at once (Zhang et al., "Tip-Adapter:
//! Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022):
//! `exp(−β(1 − f·Kᵀ))·V`.

use tch::{Device, Kind, Tensor};

use super::{
    error::TipError, hold_out::HoldOut, material::Material, score::Numbers, spec::ClassBalance,
};

/// Elements of one tile of affinities [keys, Q].
const TILE: i64 = 1 << 23;

/// Elements of the cache logits of all β that are built side by side.
const SIDE_BY_SIDE: i64 = 1 << 26;

/// Below this many affinities in a whole search it runs in f64.
const DOUBLE_BELOW: i64 = 1 << 32;

/// What to do with the cache logits of one β; stops the sweep by an error.
pub(super) type Visit<'a> = dyn FnMut(usize, &Tensor) -> Result<(), TipError> + 'a;

/// The kind in which a search over this many β is computed: f64 while that
/// takes only seconds, so that it picks what an f64 reference picks.
pub(super) fn search_kind(material: &Material, held: &HoldOut, betas: usize) -> Kind {
    let work = held
        .count()
        .saturating_mul(material.key_count())
        .saturating_mul(i64::try_from(betas).unwrap_or(i64::MAX));
    if work < DOUBLE_BELOW {
        Kind::Double
    } else {
        Kind::Float
    }
}

/// Calls `visit` with the cache logits [Q, N] (α = 1) of each β in turn.
///
/// f·Kᵀ is computed once, and each β's cache logits once; where the logits of
/// all β do not fit side by side, once for each group of β that does. [Q, M] is
/// never held: keys go by in tiles.
pub(super) fn sweep(
    material: &Material,
    held: &HoldOut,
    betas: &[f64],
    balance: ClassBalance,
    kind: Kind,
    visit: &mut Visit<'_>,
) -> Result<(), TipError> {
    let per_beta = held.count().saturating_mul(material.n()).max(1);
    let group = usize::try_from((SIDE_BY_SIDE / per_beta).max(1)).unwrap_or(1);
    let mut first = 0;
    for betas in betas.chunks(group) {
        let sums = affinity_sums(material, held, betas, kind)?;
        let factor = match balance {
            ClassBalance::Sum => None,
            ClassBalance::Mean => Some(mean_factors(&seen_counts(material, held)?)?),
        };
        for (i, sum) in sums.into_iter().enumerate() {
            let mut logits = sum.f_tr()?.f_contiguous()?;
            if let Some(factor) = &factor {
                logits = logits.f_mul(factor)?;
            }
            visit(first + i, &logits)?;
        }
        first += betas.len();
    }
    Ok(())
}

/// α·exp(−β(1 − f·Kᵀ))·V without the keys that each example must not see.
pub(super) fn cache_logits(
    material: &Material,
    numbers: &Numbers,
    balance: ClassBalance,
    held: &HoldOut,
) -> Result<Tensor, TipError> {
    let mut found = None;
    let betas = [numbers.beta];
    sweep(
        material,
        held,
        &betas,
        balance,
        Kind::Double,
        &mut |_, sums| {
            found = Some(sums.f_mul_scalar(numbers.alpha)?);
            Ok(())
        },
    )?;
    match found {
        Some(logits) => Ok(logits),
        None => Ok(Tensor::f_zeros(
            [held.count(), material.n()],
            (Kind::Double, Device::Cpu),
        )?),
    }
}

/// The factor of each class: 1, or under [`ClassBalance::Mean`] the mean shots
/// of the classes that have any over the class's shots. f32 [N].
pub(super) fn class_factors(
    material: &Material,
    balance: ClassBalance,
) -> Result<Tensor, TipError> {
    let counts = material.counts()?.f_to_kind(Kind::Double)?;
    match balance {
        ClassBalance::Sum => Ok(counts.f_ones_like()?.f_to_kind(Kind::Float)?),
        ClassBalance::Mean => Ok(mean_factors(&counts.f_unsqueeze(0)?)?
            .f_squeeze_dim(0)?
            .f_to_kind(Kind::Float)?),
    }
}

/// Sums of the affinities of each class's keys, one [N, Q] for each β. A key
/// that an example may not see adds nothing.
fn affinity_sums(
    material: &Material,
    held: &HoldOut,
    betas: &[f64],
    kind: Kind,
) -> Result<Vec<Tensor>, TipError> {
    let queries = held.count();
    let mut sums = betas
        .iter()
        .map(|_| Tensor::f_zeros([material.n(), queries], (kind, Device::Cpu)))
        .collect::<Result<Vec<_>, _>>()?;
    let features = held.features.f_to_kind(kind)?.f_tr()?;
    let keys = material.key_count();
    let tile = (TILE / queries.max(1)).max(1);
    let mut start = 0;
    while start < keys {
        let length = tile.min(keys - start);
        let part = material.keys.f_narrow(0, start, length)?.f_to_kind(kind)?;
        let labels = material.labels.f_narrow(0, start, length)?;
        let distance = part.f_matmul(&features)?.f_sub_scalar_(1.0)?;
        // −∞ becomes an affinity of 0, whatever β is.
        let hidden = held
            .key_rounds
            .f_narrow(0, start, length)?
            .f_unsqueeze(1)?
            .f_eq_tensor(&held.rounds.f_unsqueeze(0)?)?;
        let distance = distance
            .shallow_clone()
            .f_masked_fill_(&hidden, f64::NEG_INFINITY)?;
        for (sum, &beta) in sums.iter_mut().zip(betas) {
            let affinity = distance.f_mul_scalar(beta)?.f_exp_()?;
            let _ = sum.f_index_add_(0, &labels, &affinity)?;
        }
        start += length;
    }
    Ok(sums)
}

/// Keys of each class that each example may see, f64 [Q, N].
pub(super) fn seen_counts(material: &Material, held: &HoldOut) -> Result<Tensor, TipError> {
    let counts = material.counts()?.f_to_kind(Kind::Double)?;
    let mut seen = Tensor::f_zeros([held.count(), material.n()], (Kind::Double, Device::Cpu))?
        .f_add(&counts)?;
    for round in held.split()? {
        let out = material
            .labels
            .f_index_select(0, &round.left_out)?
            .f_bincount(None::<Tensor>, material.n())?
            .f_to_kind(Kind::Double)?;
        let rows = counts
            .f_sub(&out)?
            .f_unsqueeze(0)?
            .f_expand([round.examples.numel() as i64, material.n()], false)?;
        let _ = seen.f_index_copy_(0, &round.examples, &rows)?;
    }
    Ok(seen)
}

/// From shots [Q, N] to factors: mean of the row's non-zero counts, over the
/// count; 0 if there is none.
fn mean_factors(counts: &Tensor) -> Result<Tensor, TipError> {
    let some = counts.f_gt(0.0)?.f_to_kind(Kind::Double)?;
    let over = Some([1i64].as_slice());
    let mean = counts.f_sum_dim_intlist(over, true, Kind::Double)?.f_div(
        &some
            .f_sum_dim_intlist(over, true, Kind::Double)?
            .f_clamp_min(1.0)?,
    )?;
    Ok(mean.f_div(&counts.f_clamp_min(1.0)?)?.f_mul(&some)?)
}
