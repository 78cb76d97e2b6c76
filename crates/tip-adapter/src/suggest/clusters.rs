//! k-means over unit rows, started by greedy k-means++ (Arthur and Vassilvitskii,
//! 2007): of several rows drawn for a centre the best is kept, so that a small
//! group far from the others does not depend on one draw.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};

use crate::dimensions::row_count;
use crate::{error::TipError, watch::GoOn};

/// Rounds of assigning and averaging, at most.
const ROUNDS: usize = 20;

/// Rows assigned to centres at once, which bounds the matrix of cosines.
const TILE: i64 = 4096;

/// Which cluster each row is in.
#[derive(Debug)]
pub(super) struct Clusters {
    /// The pictures' come first, then the labelled examples'.
    of: Vec<usize>,
    pictures: usize,
    /// How many pictures each cluster has.
    sizes: Vec<usize>,
    /// Labelled examples of each cluster.
    labelled: Vec<usize>,
}

/// A picture that was picked.
#[derive(Debug)]
pub(super) struct Picked {
    /// Its place among the distinct ones.
    pub at: usize,
    pub score: f64,
    /// How many pictures its cluster has.
    pub cluster_size: usize,
}

impl Clusters {
    /// `count` clusters of rows f32 [R, D], the first `pictures` of them
    /// pictures, the others labelled examples.
    pub fn of(
        rows: &Tensor,
        pictures: usize,
        count: usize,
        seed: u64,
        go_on: &GoOn<'_>,
    ) -> Result<Self, TipError> {
        let mut centres = start(rows, count, seed, go_on)?;
        let mut of = assign(rows, &centres)?;
        for _ in 0..ROUNDS {
            go_on.check()?;
            centres = average(rows, &of, &centres)?;
            let next = assign(rows, &centres)?;
            if next.f_equal(&of)? {
                break;
            }
            of = next;
        }
        let of: Vec<usize> = Vec::<i64>::try_from(&of)?
            .into_iter()
            .filter_map(|cluster| usize::try_from(cluster).ok())
            .collect();
        let (mut sizes, mut labelled) = (vec![0; count], vec![0; count]);
        for (row, &cluster) in of.iter().enumerate() {
            let counts = if row < pictures {
                &mut sizes
            } else {
                &mut labelled
            };
            if let Some(slot) = counts.get_mut(cluster) {
                *slot += 1;
            }
        }
        Ok(Self {
            of,
            pictures,
            sizes,
            labelled,
        })
    }

    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// The cluster of a picture.
    pub fn of_picture(&self, at: usize) -> Option<usize> {
        self.of.get(at).copied().filter(|_| at < self.pictures)
    }

    /// Pictures in a picture's cluster.
    pub fn size_of(&self, at: usize) -> usize {
        let cluster = self.of_picture(at);
        cluster.and_then(|of| self.sizes.get(of)).map_or(0, |&n| n)
    }

    /// Labelled examples of each cluster.
    pub fn labelled(&self) -> &[usize] {
        &self.labelled
    }

    /// The pictures of each cluster.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count()];
        for (at, &cluster) in self.of.iter().take(self.pictures).enumerate() {
            if let Some(list) = members.get_mut(cluster) {
                list.push(at);
            }
        }
        members
    }
}

/// Centres [K, D]: rows drawn by their squared distance from those drawn before,
/// each the one of 2 + ln K that leaves the least distance.
fn start(rows: &Tensor, count: usize, seed: u64, go_on: &GoOn<'_>) -> Result<Tensor, TipError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let total = row_count(rows)?;
    let draws = 2 + (count as f64).ln() as usize;
    let mut picked: Vec<i64> = vec![rng.random_range(0..total.max(1))];
    let mut distances = squared_distances(rows, &picked)?.f_squeeze_dim(0)?;
    while picked.len() < count {
        go_on.check()?;
        let each = Vec::<f64>::try_from(&distances)?;
        let sum: f64 = each.iter().sum();
        let drawn: Vec<i64> = (0..draws)
            .map(|_| {
                let mut left = rng.random::<f64>() * sum;
                let next = each.iter().position(|distance| {
                    left -= distance;
                    left < 0.0
                });
                // All rows are alike: any will do.
                next.map_or_else(|| rng.random_range(0..total.max(1)), |at| at as i64)
            })
            .collect();
        let left = squared_distances(rows, &drawn)?.f_minimum(&distances)?;
        let sums = left.f_sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double)?;
        let best = sums.f_argmin(0, false)?.f_int64_value(&[])?;
        distances = left.f_get(best)?;
        let best = usize::try_from(best).ok().and_then(|at| drawn.get(at));
        let Some(&best) = best else { break };
        picked.push(best);
    }
    Ok(rows.f_index_select(0, &Tensor::f_from_slice(&picked)?)?)
}

/// Squared distances of all rows from those picked, f64 [picked, R].
fn squared_distances(rows: &Tensor, picked: &[i64]) -> Result<Tensor, TipError> {
    let centres = rows.f_index_select(0, &Tensor::f_from_slice(picked)?)?;
    Ok(centres
        .f_matmul(&rows.f_tr()?)?
        .f_to_kind(Kind::Double)?
        .f_mul_scalar(-2.0)?
        .f_add_scalar(2.0)?
        .f_clamp_min(0.0)?)
}

/// The nearest centre of each row, i64 [R].
fn assign(rows: &Tensor, centres: &Tensor) -> Result<Tensor, TipError> {
    let lengths = centres
        .f_square()?
        .f_sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Float)?
        .f_mul_scalar(0.5)?;
    let across = centres.f_tr()?;
    let parts = (rows.f_split(TILE, 0)?.iter())
        .map(|part| {
            Ok(part
                .f_matmul(&across)?
                .f_sub(&lengths)?
                .f_argmax(1, false)?)
        })
        .collect::<Result<Vec<_>, TipError>>()?;
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// The means of the clusters; one without rows stays where it is.
fn average(rows: &Tensor, of: &Tensor, centres: &Tensor) -> Result<Tensor, TipError> {
    let count = row_count(centres)?;
    let sums = Tensor::f_zeros_like(centres)?.f_index_add_(0, of, rows)?;
    let counts = of.f_bincount(None::<Tensor>, count)?.f_unsqueeze(1)?;
    let means = sums.f_div(&counts.f_clamp_min(1)?.f_to_kind(Kind::Float)?)?;
    let empty = counts.f_eq(0)?.f_to_device(Device::Cpu)?;
    Ok(centres.f_where_self(&empty, &means)?)
}
