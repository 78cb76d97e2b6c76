//! How traffic differs from the examples that a version was made of.
//!
//! [`nearest_deciles`] says how similar examples are to their nearest neighbours
//! among the others; of pictures like them a tenth falls between any two of the
//! deciles. [`stability_index`] says how far counts are from expected shares.

use tch::{Device, Kind, Tensor};

use super::{error::TipError, unit::unit_rows};

/// Deciles, and so ten bins between and beyond them.
pub const EDGES: usize = 9;

/// Examples that are compared with the others, at most, evenly spread.
const QUERIES: i64 = 4096;

/// Examples that they are compared with, at most, evenly spread.
const KEYS: i64 = 16_384;

/// Fewest examples that deciles are taken of.
const LEAST: usize = 10;

/// Cosines over 1 less this are of copies: a picture is no neighbour of itself.
const COPY: f64 = 1e-5;

/// What a bin without counts counts as, so that its logarithm exists.
const HALF: f64 = 0.5;

/// Deciles of the cosine of each example, unit rows [M, D], and its nearest other
/// one that is no copy; none of fewer than ten examples.
///
/// # Errors
/// Torch's.
pub fn nearest_deciles(keys: &Tensor) -> Result<Option<[f64; EDGES]>, TipError> {
    let _no_grad = tch::no_grad_guard();
    let keys = unit_rows(&some(keys, KEYS)?.f_to_kind(Kind::Float)?)?;
    let queries = some(&keys, QUERIES)?;
    let count = queries.size().first().copied().unwrap_or(0);
    let mut nearest: Vec<f64> = Vec::new();
    for start in (0..count).step_by(1024) {
        let part = queries.f_narrow(0, start, (count - start).min(1024))?;
        let cosines = part.f_matmul(&keys.f_tr()?)?;
        let copies = cosines.f_gt(1.0 - COPY)?;
        let others = cosines.f_masked_fill(&copies, -2.0)?;
        let best = others.f_amax([1i64].as_slice(), false)?;
        nearest.extend(Vec::<f64>::try_from(best.f_to_kind(Kind::Double)?)?);
    }
    nearest.retain(|cosine| *cosine > -1.5);
    if nearest.len() < LEAST {
        return Ok(None);
    }
    nearest.sort_by(f64::total_cmp);
    let mut edges = [0.0; EDGES];
    for (at, edge) in edges.iter_mut().enumerate() {
        let rank = (at + 1) * nearest.len() / (EDGES + 1);
        *edge = nearest.get(rank).copied().unwrap_or(1.0);
    }
    Ok(Some(edges))
}

/// At most `limit` rows, evenly spread.
fn some(rows: &Tensor, limit: i64) -> Result<Tensor, TipError> {
    let count = rows.size().first().copied().unwrap_or(0);
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
/// expected shares; 0 of no counts. Usual reading: under 0.1 the same, over 0.25
/// a different population.
///
/// Of n counts that follow the shares it is (bins − 1)/n on average, which is
/// taken away.
pub fn stability_index(counts: &[u64], shares: &[f64]) -> f64 {
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
    (index - (bins - 1.0) / count).max(0.0)
}
