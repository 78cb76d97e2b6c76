//! How traffic differs from the examples that a version was made of.
//!
//! [`nearest_deciles`] says how similar examples are to their nearest neighbours
//! among the others; of pictures like them a tenth falls between any two of the
//! deciles. [`stability_index`] says how far counts are from expected shares,
//! beyond what chance explains.
//!
//! A new picture has all K shots of its class to be similar to, an example only
//! the K − 1 others: of two shots, or three, that alone looks like another
//! population. So both are compared with the same number: [`Rounds`] leaves out
//! one shot of every class, for an example those of its own round, for a new
//! picture those of each round in turn.

use tch::{Device, Kind, Tensor};

use super::{dimensions::row_count, error::TipError, unit::unit_rows};

mod rounds;

pub use rounds::Rounds;

/// Deciles, and so ten bins between and beyond them.
pub const EDGES: usize = 9;

/// Examples that are compared with the others, at most, evenly spread.
const QUERIES: i64 = 1024;

/// Cosines that are computed in all, at most, from [`FEWEST_QUERIES`] examples on.
const COSINES: i64 = 1 << 26;

/// Examples that are compared with the others however many these are.
const FEWEST_QUERIES: i64 = 128;

/// Cosines that are in memory at once.
const TILE: i64 = 1 << 22;

/// Fewest examples that deciles are taken of.
const LEAST: usize = 10;

/// Cosines over 1 less this are of copies: a picture is no neighbour of itself.
const COPY: f64 = 1e-5;

/// What a bin without counts counts as, so that its logarithm exists.
const HALF: f64 = 0.5;

/// 99 % quantile of the standard normal distribution.
const QUANTILE: f64 = 2.326_347_874;

/// How similar the examples are to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// Deciles of the cosine of an example and its nearest one of other rounds.
    pub deciles: [f64; EDGES],
    /// As many independent examples would estimate them as well: two that are
    /// each other's nearest have one cosine.
    pub sample: f64,
}

/// Deciles of the cosine of each example, rows [M, D], and its nearest one of other
/// rounds that is no copy. None if fewer than ten have one: the only shot of a
/// class says nothing of how similar two pictures of it are.
///
/// # Errors
/// Torch's.
pub fn nearest_deciles(keys: &Tensor, rounds: &Rounds) -> Result<Option<Nearest>, TipError> {
    let _no_grad = tch::no_grad_guard();
    let total = row_count(keys)?;
    let (ranks, shots) = rounds.tensors()?;
    let repeated = shots.f_ge(2)?.f_nonzero()?.f_squeeze_dim(1)?;
    let limit = (COSINES / total.max(1)).clamp(FEWEST_QUERIES, QUERIES);
    let queries = Vec::<i64>::try_from(some(&repeated, limit)?)?;
    let keys = unit_rows(&keys.f_to_kind(Kind::Float)?)?;
    let across = keys.f_tr()?;
    // A class's only shot is left out of nothing.
    let divisors = shots.f_masked_fill(&shots.f_lt(2)?, total + 1)?;
    let mut found: Vec<(f64, [i64; 2])> = Vec::new();
    let tile = usize::try_from((TILE / total.max(1)).max(1)).unwrap_or(1);
    for part in queries.chunks(tile) {
        let at = Tensor::f_from_slice(part)?;
        let rank = ranks.f_index_select(0, &at)?.f_unsqueeze(1)?;
        let out = rank
            .f_remainder_tensor(&divisors)?
            .f_eq_tensor(&ranks)?
            .f_logical_and(&shots.f_ge(2)?)?;
        let cosines = keys.f_index_select(0, &at)?.f_matmul(&across)?;
        let out = out.f_logical_or(&cosines.f_gt(1.0 - COPY)?)?;
        let (best, key) = cosines.f_masked_fill(&out, -2.0)?.f_max_dim(1, false)?;
        let best = Vec::<f64>::try_from(best.f_to_kind(Kind::Double)?)?;
        let key = Vec::<i64>::try_from(key)?;
        let pairs = part.iter().zip(key);
        let ends = pairs.map(|(&at, key)| [at.min(key), at.max(key)]);
        found.extend(best.into_iter().zip(ends));
    }
    found.retain(|(cosine, ends)| *cosine > -1.5 && ends.iter().all(|at| rounds.repeats(*at)));
    if found.len() < LEAST {
        return Ok(None);
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut deciles = [0.0; EDGES];
    for (at, decile) in deciles.iter_mut().enumerate() {
        *decile = quantile(&found, (at + 1) as f64 / (EDGES + 1) as f64);
    }
    Ok(Some(Nearest {
        deciles,
        sample: sample(found.iter().map(|(_, ends)| *ends).collect()),
    }))
}

/// The quantile of sorted values below which a new one lies with the probability
/// `share`: order statistic share·(n + 1), interpolated (Hyndman and Fan, 1996,
/// definition 6).
fn quantile(sorted: &[(f64, [i64; 2])], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (share * (sorted.len() + 1) as f64 - 1.0).clamp(0.0, last as f64);
    let value = |at: usize| sorted.get(at.min(last)).map_or(1.0, |found| found.0);
    let below = place.floor() as usize;
    let (low, high) = (value(below), value(below + 1));
    low + (place - place.floor()) * (high - low)
}

/// How many independent values these are worth, of which the same two ends share
/// one: n² / Σ (values of a pair)².
fn sample(mut ends: Vec<[i64; 2]>) -> f64 {
    let count = ends.len() as f64;
    ends.sort_unstable();
    let squares: f64 = (ends.chunk_by(|a, b| a == b))
        .map(|same| (same.len() as f64).powi(2))
        .sum();
    count * count / squares
}

/// At most `limit` rows, evenly spread.
fn some(rows: &Tensor, limit: i64) -> Result<Tensor, TipError> {
    let count = row_count(rows)?;
    if count <= limit {
        return Ok(rows.shallow_clone());
    }
    let picked = Tensor::f_arange(limit, (Kind::Int64, Device::Cpu))?;
    let picked = picked
        .f_mul_scalar(count)?
        .f_divide_scalar_mode(limit, "floor")?;
    Ok(rows.f_index_select(0, &picked.f_to_kind(Kind::Int64)?)?)
}

/// The bin of a value: how many edges it is over.
pub fn bin(edges: &[f64], value: f64) -> usize {
    edges.partition_point(|edge| *edge <= value)
}

/// The population stability index, Σ (o − e)·ln(o/e) over bins, of counts and
/// expected shares, less what chance explains; 0 of no counts. Usual reading:
/// under 0.1 the same, over 0.25 a different population.
///
/// If N counts follow the shares, and these are known from `sample` examples
/// ([`f64::INFINITY`]: exactly), the index is (1/N + 1/M) times a χ² of bins − 1
/// degrees of freedom (Yurdakul and Naranjo, "Statistical properties of the
/// population stability index", Journal of Risk Model Validation 14(4), 2020).
/// Its 99 % quantile is taken away, so that one version in a hundred has an index
/// over 0 by chance. M is `sample` + 1: of bins between order statistics, whose
/// true shares have a Dirichlet distribution, the index of these shares is exactly
/// (bins − 1)/(`sample` + 1) on average.
pub fn stability_index(counts: &[u64], shares: &[f64], sample: f64) -> f64 {
    let count = counts.iter().sum::<u64>() as f64;
    let bins = shares.iter().filter(|share| **share > 0.0).count() as f64;
    if count == 0.0 || bins < 2.0 {
        return 0.0;
    }
    let total = count + HALF * counts.len() as f64;
    let floor = HALF / total;
    let index: f64 = (counts.iter().zip(shares))
        .map(|(seen, expected)| {
            let seen = (*seen as f64 + HALF) / total;
            let expected = expected.max(floor);
            (seen - expected) * (seen / expected).ln()
        })
        .sum();
    let chance = chi_square(bins - 1.0) * (1.0 / count + 1.0 / (sample + 1.0));
    (index - chance).max(0.0)
}

/// The 99 % quantile of a χ² distribution (Wilson and Hilferty, 1931).
fn chi_square(freedom: f64) -> f64 {
    let variance = 2.0 / (9.0 * freedom);
    freedom * (1.0 - variance + QUANTILE * variance.sqrt()).powi(3)
}
