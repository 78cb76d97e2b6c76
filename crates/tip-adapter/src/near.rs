//! Pictures that are the same, or nearly.
//!
//! How near is nearly depends on the encoder: cosines of different pictures
//! reach 0.98 in one and 0.9 in another. So it is taken from the pictures
//! themselves: two are near-duplicates if they are nearer each other than a
//! fifth of the usual (median) distance 1 − cos to a nearest neighbour.

use tch::{Device, Kind, Tensor};

use super::{error::TipError, hold_out::COPY, watch::GoOn};
use crate::dimensions::{as_count, row_count};

/// Share of the median nearest distance.
const SHARE: f64 = 0.2;

/// Rows whose nearest neighbours are looked for to find the median.
const SAMPLE: i64 = 2048;

/// Rows of a tile of cosines.
const TILE: i64 = 1024;

/// Two rows and their cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The row of the pair that comes earlier.
    pub first: usize,
    /// The row of the pair that comes later.
    pub second: usize,
    /// Their cosine similarity, at most 1.
    pub similarity: f64,
}

impl Pair {
    /// Whether they are the same up to rounding.
    pub fn is_exact(&self) -> bool {
        self.similarity > 1.0 - COPY
    }
}

/// The similarity from which rows (f32 [M, D], unit) are near-duplicates.
pub(super) fn threshold(rows: &Tensor, go_on: &GoOn<'_>) -> Result<f64, TipError> {
    let count = row_count(rows)?;
    let step = (count / SAMPLE).max(1);
    let sample = Tensor::f_arange_start_step(0, count, step, (Kind::Int64, Device::Cpu))?;
    let mut distances: Vec<f64> = Vec::new();
    for part in sample.f_split(TILE, 0)? {
        go_on.check()?;
        let mut cosines = rows.f_index_select(0, &part)?.f_matmul(&rows.f_tr()?)?;
        let own = Tensor::f_full([part.numel() as i64, 1], -2.0, (Kind::Float, Device::Cpu))?;
        let _ = cosines.f_scatter_(1, &part.f_unsqueeze(1)?, &own)?;
        let nearest = cosines.f_amax([1i64].as_slice(), false)?;
        let nearest = Vec::<f64>::try_from(nearest.f_to_kind(Kind::Double)?)?;
        distances.extend(nearest.iter().map(|cosine| 1.0 - cosine));
    }
    // Copies say nothing about usual distances; a single row has no neighbour.
    distances.retain(|&distance| distance > COPY && distance <= 2.0);
    distances.sort_by(f64::total_cmp);
    let median = distances.get(distances.len() / 2).copied();
    Ok(1.0 - (SHARE * median.unwrap_or(0.0)).max(COPY))
}

/// Pairs of rows that are near-duplicates.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The most similar of them, most similar first.
    pub listed: Vec<Pair>,
    /// How many there are, listed or not.
    pub count: usize,
    /// How many of these are copies.
    pub copies: usize,
}

/// The pairs of rows (f32 [M, D], unit) from `similarity` on, of which at most
/// `limit` are listed.
pub(super) fn pairs(
    rows: &Tensor,
    similarity: f64,
    limit: usize,
    go_on: &GoOn<'_>,
) -> Result<Pairs, TipError> {
    let count = row_count(rows)?;
    let mut all = Pairs::default();
    let mut start = 0;
    while start < count {
        go_on.check()?;
        let height = TILE.min(count - start);
        let tile = rows.f_narrow(0, start, height)?;
        let after = rows.f_narrow(0, start, count - start)?;
        let cosines = tile.f_matmul(&after.f_tr()?)?.f_triu(1)?;
        let at = cosines.f_ge(similarity)?.f_nonzero()?;
        let values = Vec::<f64>::try_from(
            cosines
                .f_index(&[Some(at.f_select(1, 0)?), Some(at.f_select(1, 1)?)])?
                .f_to_kind(Kind::Double)?,
        )?;
        let at = Vec::<i64>::try_from(at.f_flatten(0, -1)?)?;
        let found = at
            .chunks_exact(2)
            .zip(values)
            .filter_map(|(at, similarity)| {
                let row = |offset: i64| usize::try_from(start + offset).ok();
                Some(Pair {
                    first: row(*at.first()?)?,
                    second: row(*at.last()?)?,
                    similarity: similarity.min(1.0),
                })
            });
        for pair in found {
            all.count += 1;
            all.copies += usize::from(pair.is_exact());
            all.listed.push(pair);
        }
        all.listed.sort_by(|a, b| {
            b.similarity
                .total_cmp(&a.similarity)
                .then((a.first, a.second).cmp(&(b.first, b.second)))
        });
        all.listed.truncate(limit);
        start += height;
    }
    Ok(all)
}

/// Rows gathered under the first earlier row that they nearly repeat.
#[derive(Debug)]
pub(super) struct Groups {
    /// The first row of each group, ascending.
    pub representatives: Vec<usize>,
    /// The later rows of each group.
    pub duplicates: Vec<Vec<usize>>,
}

/// Each of the rows joins the first earlier representative that it is near, or
/// becomes one.
pub(super) fn groups(
    rows: &Tensor,
    at: &[usize],
    similarity: f64,
    go_on: &GoOn<'_>,
) -> Result<Groups, TipError> {
    let mut groups = Groups {
        representatives: Vec::new(),
        duplicates: Vec::new(),
    };
    for block in at.chunks(TILE as usize) {
        go_on.check()?;
        let own = select(rows, block)?;
        let known = groups.representatives.len();
        let earlier = first_near(&own, &select(rows, &groups.representatives)?, similarity)?;
        // Among rows of the same block, the first that is near and is a
        // representative.
        let within = own.f_matmul(&own.f_tr()?)?.f_tril(-1)?.f_ge(similarity)?;
        let pairs = Vec::<i64>::try_from(within.f_nonzero()?.f_flatten(0, -1)?)?;
        let mut near: Vec<Vec<usize>> = vec![Vec::new(); block.len()];
        for pair in pairs.chunks_exact(2) {
            if let (Some(&later), Some(&first)) = (pair.first(), pair.last())
                && let Some(list) = usize::try_from(later).ok().and_then(|i| near.get_mut(i))
            {
                list.extend(usize::try_from(first));
            }
        }
        let mut group_of: Vec<Option<usize>> = vec![None; block.len()];
        for (i, (&row, earlier)) in block.iter().zip(earlier).enumerate() {
            let group = earlier.or_else(|| {
                let candidates = near.get(i).into_iter().flatten();
                candidates
                    .filter_map(|&j| group_of.get(j).copied().flatten())
                    .find(|&group| group >= known)
            });
            match group.and_then(|group| groups.duplicates.get_mut(group)) {
                Some(list) => list.push(row),
                None => {
                    if let Some(slot) = group_of.get_mut(i) {
                        *slot = Some(groups.representatives.len());
                    }
                    groups.representatives.push(row);
                    groups.duplicates.push(Vec::new());
                }
            }
        }
    }
    Ok(groups)
}

/// The first row of `others` that each of `rows` is near.
fn first_near(
    rows: &Tensor,
    others: &Tensor,
    similarity: f64,
) -> Result<Vec<Option<usize>>, TipError> {
    let count = row_count(rows)?;
    if others.size().first() == Some(&0) {
        return Ok(vec![None; as_count(count)?]);
    }
    let near = rows.f_matmul(&others.f_tr()?)?.f_ge(similarity)?;
    let some = Vec::<bool>::try_from(near.f_any_dim(1, false)?)?;
    let first = Vec::<i64>::try_from(near.f_to_kind(Kind::Int8)?.f_argmax(1, false)?)?;
    Ok(some
        .into_iter()
        .zip(first)
        .map(|(some, first)| usize::try_from(first).ok().filter(|_| some))
        .collect())
}

/// The most similar of `others` to each row, with the cosine, where that is
/// `similarity` or more.
pub(super) fn nearest(
    rows: &Tensor,
    others: &Tensor,
    similarity: f64,
    go_on: &GoOn<'_>,
) -> Result<Vec<Option<(usize, f64)>>, TipError> {
    let mut found = Vec::new();
    for part in rows.f_split(TILE, 0)? {
        go_on.check()?;
        let (cosine, at) = part.f_matmul(&others.f_tr()?)?.f_max_dim(1, false)?;
        let cosine = Vec::<f64>::try_from(cosine.f_to_kind(Kind::Double)?)?;
        found.extend(
            cosine
                .into_iter()
                .zip(Vec::<i64>::try_from(at)?)
                .map(|(cosine, at)| {
                    let at = usize::try_from(at).ok().filter(|_| cosine >= similarity)?;
                    Some((at, cosine.min(1.0)))
                }),
        );
    }
    Ok(found)
}

/// The rows at the given places.
pub(super) fn select(rows: &Tensor, at: &[usize]) -> Result<Tensor, TipError> {
    let at: Vec<i64> = at.iter().map(|&row| row as i64).collect();
    Ok(rows.f_index_select(0, &Tensor::f_from_slice(&at)?)?)
}
