//! The most typical pictures of the clusters that hold the fewest labels.

use std::cmp::Reverse;

use tch::{Kind, Tensor};

use super::clusters::{Clusters, Picked};
use crate::{error::TipError, near, watch::GoOn};

/// Nearest neighbours that typicality is the inverse mean distance to.
const NEIGHBOURS: usize = 20;

/// Clusters of fewer pictures come after the others of as many labels: they
/// may be outliers.
const SMALL: usize = 5;

/// Members of a cluster whose distances are computed at once.
const TILE: i64 = 1024;

/// Added to distances, so that copies do not divide by zero.
const LEAST_DISTANCE: f64 = 1e-6;

/// Picks pictures of rows f32 [P, D], at most `count`.
pub(super) fn order(
    rows: &Tensor,
    clusters: &Clusters,
    count: usize,
    go_on: &GoOn<'_>,
) -> Result<Vec<Picked>, TipError> {
    let members = clusters.members();
    let mut queues: Vec<Vec<(f64, usize)>> = Vec::with_capacity(members.len());
    for cluster in &members {
        go_on.check()?;
        let mut queue: Vec<(f64, usize)> = typicality(rows, cluster)?
            .into_iter()
            .zip(cluster.iter().copied())
            .collect();
        // The most typical last, so that it is taken first.
        queue.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        queues.push(queue);
    }
    let most = (queues.iter().filter_map(|queue| queue.last()))
        .map(|(typicality, _)| *typicality)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut labels = clusters.labelled().to_vec();
    let mut picked = Vec::new();
    while picked.len() < count {
        let open = (0..queues.len()).filter(|&at| queues.get(at).is_some_and(|q| !q.is_empty()));
        let next = open.min_by_key(|&at| {
            let size = members.get(at).map_or(0, Vec::len);
            (labels.get(at).copied(), size < SMALL, Reverse(size), at)
        });
        let Some(cluster) = next else { break };
        if let (Some((typicality, at)), Some(labels)) = (
            queues.get_mut(cluster).and_then(Vec::pop),
            labels.get_mut(cluster),
        ) {
            *labels += 1;
            picked.push(Picked {
                at,
                score: typicality / most,
                cluster_size: members.get(cluster).map_or(0, Vec::len),
            });
        }
    }
    Ok(picked)
}

/// 1 / (mean distance to the nearest neighbours within the cluster), for each
/// member; 0 for one that is alone.
fn typicality(rows: &Tensor, cluster: &[usize]) -> Result<Vec<f64>, TipError> {
    let neighbours = NEIGHBOURS.min(cluster.len().saturating_sub(1));
    if neighbours == 0 {
        return Ok(vec![0.0; cluster.len()]);
    }
    let own = near::select(rows, cluster)?;
    let across = own.f_tr()?;
    let mut found = Vec::with_capacity(cluster.len());
    for part in own.f_split(TILE, 0)? {
        // The nearest of all is the picture itself.
        let (cosines, _) = part
            .f_matmul(&across)?
            .f_topk(neighbours as i64 + 1, 1, true, true)?;
        let distances = cosines
            .f_narrow(1, 1, neighbours as i64)?
            .f_to_kind(Kind::Double)?
            .f_mul_scalar(-2.0)?
            .f_add_scalar(2.0)?
            .f_clamp_min(0.0)?
            .f_sqrt()?
            .f_mean_dim(Some([1i64].as_slice()), false, Kind::Double)?
            .f_add_scalar(LEAST_DISTANCE)?;
        found.extend(Vec::<f64>::try_from(distances.f_reciprocal()?)?);
    }
    Ok(found)
}
