//! The end of the way: one head for each cache version in the batch.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tch::{Kind, TchError, Tensor};

use super::{
    EngineError, Feature, Outcome, Row, Work,
    device::{Encoded, Features, guarded},
};
use crate::{telemetry, tip::head::Head};

/// Answers every job of a batch whose features are known.
pub(super) fn answer(jobs: Vec<Encoded>, features: &Features) {
    let wants_features = jobs.iter().any(|encoded| match &encoded.job.work {
        Work::Embed => true,
        Work::Classify { embedding, .. } => *embedding,
    });
    let units = if wants_features {
        match guarded(|| to_shared(&features.unit)) {
            Ok(units) => units,
            Err(fault) => return fail(jobs, &fault.detail),
        }
    } else {
        Arc::from([])
    };
    let width = features.unit.size().get(1).map_or(0, |d| *d as usize);
    let feature = |row: usize| {
        Some(Feature {
            unit: Row::new(Arc::clone(&units), row, width),
            norm: features.norms.get(row).copied().unwrap_or(1.0),
        })
    };

    let mut groups: HashMap<*const Head, (Arc<Head>, Vec<Encoded>)> = HashMap::new();
    for encoded in jobs {
        match &encoded.job.work {
            Work::Embed => finish(encoded, Row::new(Arc::from([]), 0, 0), Vec::new(), &feature),
            Work::Classify { head, .. } => {
                let head = Arc::clone(head);
                groups
                    .entry(Arc::as_ptr(&head))
                    .or_insert_with(|| (head, Vec::new()))
                    .1
                    .push(encoded);
            }
        }
    }
    for (head, group) in groups.into_values() {
        run_group(&head, group, features, &feature);
    }
}

fn run_group(
    head: &Head,
    mut group: Vec<Encoded>,
    features: &Features,
    feature: &dyn Fn(usize) -> Option<Feature>,
) {
    let started = Instant::now();
    let most_neighbours = group.iter().map(neighbours_wanted).max().unwrap_or(0);
    let rows: Vec<i64> = group.iter().map(|encoded| encoded.row as i64).collect();
    let result = guarded(|| {
        let unit = if rows.len() as i64 == features.unit.size().first().copied().unwrap_or(0) {
            features.unit.shallow_clone()
        } else {
            let rows = Tensor::f_from_slice(&rows)?.f_to_device(features.unit.device())?;
            features.unit.f_index_select(0, &rows)?
        };
        let logits = head.logits(&unit).map_err(torch)?;
        let classes = logits.size().get(1).map_or(0, |n| *n as usize);
        let logits = to_shared(&logits)?;
        let neighbours = if most_neighbours > 0 {
            let (index, cosine) = head.neighbours(&unit, most_neighbours).map_err(torch)?;
            let k = index.size().get(1).map_or(0, |k| *k as usize);
            let index = Vec::<i64>::try_from(index.f_flatten(0, -1)?)?;
            let cosine = Vec::<f32>::try_from(cosine.f_flatten(0, -1)?)?;
            (k, index, cosine)
        } else {
            (0, Vec::new(), Vec::new())
        };
        Ok((logits, classes, neighbours))
    });
    let took = started.elapsed();
    telemetry::head(took);
    match result {
        Ok((logits, classes, (k, index, cosine))) => {
            for encoded in &mut group {
                encoded.job.times.head = took;
            }
            for (at, encoded) in group.into_iter().enumerate() {
                let wanted = neighbours_wanted(&encoded).min(k);
                let nearest = index
                    .iter()
                    .zip(&cosine)
                    .skip(at * k)
                    .take(wanted)
                    .map(|(index, cosine)| (*index as usize, *cosine))
                    .collect();
                finish(
                    encoded,
                    Row::new(Arc::clone(&logits), at, classes),
                    nearest,
                    feature,
                );
            }
        }
        Err(fault) => fail(group, &fault.detail),
    }
}

fn neighbours_wanted(encoded: &Encoded) -> usize {
    match &encoded.job.work {
        Work::Embed => 0,
        Work::Classify { neighbours, .. } => *neighbours,
    }
}

fn finish(
    encoded: Encoded,
    logits: Row,
    neighbours: Vec<(usize, f32)>,
    feature: &dyn Fn(usize) -> Option<Feature>,
) {
    let Encoded { job, row } = encoded;
    let wants_feature = match &job.work {
        Work::Embed => true,
        Work::Classify { embedding, .. } => *embedding,
    };
    let mut times = job.times;
    times.total = job.arrived.elapsed();
    telemetry::answered(&times);
    job.ticket.answer(Ok(Outcome {
        logits,
        feature: if wants_feature { feature(row) } else { None },
        neighbours,
        times,
    }));
}

fn fail(jobs: Vec<Encoded>, detail: &str) {
    for encoded in jobs {
        encoded.job.ticket.answer(Err(EngineError::Head {
            detail: detail.to_owned(),
        }));
    }
}

fn to_shared(matrix: &Tensor) -> Result<Arc<[f32]>, TchError> {
    let flat = matrix
        .f_to_kind(Kind::Float)?
        .f_to_device(tch::Device::Cpu)?
        .f_contiguous()?
        .f_flatten(0, -1)?;
    Ok(Vec::<f32>::try_from(flat)?.into())
}

fn torch(error: impl std::fmt::Display) -> TchError {
    TchError::Torch(error.to_string())
}
