//! The last stage: one head for each cache version in the batch.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tch::{TchError, Tensor};

use crate::{
    encoder::{EncodeFault, guarded},
    error::EngineError,
    job::{Feature, JobOutput, Work},
    shared::Shared,
    work_item::{Encoded, Features},
};
pub(super) use tip_adapter::answer::to_host as to_shared;
use tip_adapter::{
    answer::{HeadQuery, Row, Scores, ScoresRequest, answers},
    head::Head,
};

/// Answers every job of a batch whose features are known.
pub(super) fn answer(jobs: Vec<Encoded>, features: &Features, shared: &Shared) {
    let wants_features = jobs.iter().any(|encoded| match &encoded.job.item.work {
        Work::Embed => true,
        Work::Classify { embedding, .. } => *embedding,
    });
    let units = if wants_features {
        match guarded(|| to_shared(&features.unit)) {
            Ok(units) => units,
            Err(fault) => return fail(jobs, &fault, shared),
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

    let mut groups: HashMap<*const Head, Group> = HashMap::new();
    for encoded in jobs {
        match &encoded.job.item.work {
            Work::Embed => finish(encoded, Scores::none(), Vec::new(), &feature, shared),
            Work::Classify { head, wanted, .. } => {
                let (head, wanted) = (Arc::clone(head), *wanted);
                groups
                    .entry(Arc::as_ptr(&head))
                    .or_insert_with(|| Group {
                        head,
                        rows: Vec::new(),
                        wanted: Vec::new(),
                        jobs: Vec::new(),
                    })
                    .push(encoded, wanted);
            }
        }
    }
    let groups: Vec<Group> = groups.into_values().collect();
    if !groups.is_empty() {
        run_groups(groups, features, &feature, shared);
    }
}

/// The part of a batch that one head answers.
struct Group {
    head: Arc<Head>,
    rows: Vec<i64>,
    wanted: Vec<ScoresRequest>,
    jobs: Vec<Encoded>,
}

impl Group {
    fn push(&mut self, encoded: Encoded, wanted: ScoresRequest) {
        self.rows.push(encoded.row as i64);
        self.wanted.push(wanted);
        self.jobs.push(encoded);
    }
}

/// Runs every head of a batch together: many small caches are one piece of
/// work.
fn run_groups(
    groups: Vec<Group>,
    features: &Features,
    feature: &dyn Fn(usize) -> Option<Feature>,
    shared: &Shared,
) {
    let started = Instant::now();
    let work: Vec<HeadQuery> = groups
        .iter()
        .map(|group| HeadQuery {
            head: &group.head,
            rows: &group.rows,
            wanted: &group.wanted,
        })
        .collect();
    let backend = shared.settings.top_k_backend;
    match guarded(|| answers(&features.unit, &work, backend).map_err(torch)) {
        Ok(scores) => {
            let took = started.elapsed();
            shared.settings.observer.heads_ran(took);
            for (mut group, scores) in groups.into_iter().zip(scores) {
                for encoded in &mut group.jobs {
                    encoded.job.times.head = took;
                }
                answer_group(group, scores, features, feature, shared);
            }
        }
        // One head's failure must not fail the others: each runs alone.
        Err(fault) if groups.len() > 1 && !fault.fatal => {
            tracing::warn!(
                heads = groups.len(),
                detail = fault.detail,
                "heads failed together"
            );
            for group in groups {
                run_groups(vec![group], features, feature, shared);
            }
        }
        Err(fault) => {
            for group in groups {
                fail(group.jobs, &fault, shared);
            }
        }
    }
}

/// Indices of the nearest examples and their cosines, `k` a row.
struct Nearest {
    k: usize,
    index: Vec<i64>,
    cosine: Vec<f32>,
}

fn nearest(group: &Group, features: &Features) -> Result<Nearest, TchError> {
    let wanted = group.jobs.iter().map(neighbours_wanted).max().unwrap_or(0);
    if wanted == 0 {
        return Ok(Nearest {
            k: 0,
            index: Vec::new(),
            cosine: Vec::new(),
        });
    }
    let rows = Tensor::f_from_slice(&group.rows)?.f_to_device(features.unit.device())?;
    let unit = features.unit.f_index_select(0, &rows)?;
    let (index, cosine) = group.head.neighbours(&unit, wanted).map_err(torch)?;
    Ok(Nearest {
        k: index.size().get(1).map_or(0, |k| *k as usize),
        index: Vec::<i64>::try_from(index.f_flatten(0, -1)?)?,
        cosine: Vec::<f32>::try_from(cosine.f_flatten(0, -1)?)?,
    })
}

fn answer_group(
    group: Group,
    scores: Vec<Scores>,
    features: &Features,
    feature: &dyn Fn(usize) -> Option<Feature>,
    shared: &Shared,
) {
    let nearest = match guarded(|| nearest(&group, features)) {
        Ok(nearest) => nearest,
        Err(fault) => return fail(group.jobs, &fault, shared),
    };
    for (at, (encoded, scores)) in group.jobs.into_iter().zip(scores).enumerate() {
        let neighbours = nearest
            .index
            .iter()
            .zip(&nearest.cosine)
            .skip(at * nearest.k)
            .take(neighbours_wanted(&encoded).min(nearest.k))
            .map(|(index, cosine)| (*index as usize, *cosine))
            .collect();
        finish(encoded, scores, neighbours, feature, shared);
    }
}

fn neighbours_wanted(encoded: &Encoded) -> usize {
    match &encoded.job.item.work {
        Work::Embed => 0,
        Work::Classify { neighbours, .. } => *neighbours,
    }
}

fn finish(
    encoded: Encoded,
    scores: Scores,
    neighbours: Vec<(usize, f32)>,
    feature: &dyn Fn(usize) -> Option<Feature>,
    shared: &Shared,
) {
    let Encoded { job, row } = encoded;
    let wants_feature = match &job.item.work {
        Work::Embed => true,
        Work::Classify { embedding, .. } => *embedding,
    };
    let mut times = job.times;
    times.total = job.item.arrived.elapsed();
    shared.settings.observer.answered(&times);
    job.item.ticket.answer(Ok(JobOutput {
        scores,
        feature: if wants_feature { feature(row) } else { None },
        neighbours,
        lacks_end_mark: job.lacks_end_mark,
        times,
    }));
}

fn fail(jobs: Vec<Encoded>, fault: &EncodeFault, shared: &Shared) {
    let error = if fault.fatal {
        shared.break_device(fault);
        EngineError::DeviceBroken
    } else {
        EngineError::Head {
            detail: fault.detail.clone(),
        }
    };
    for encoded in jobs {
        encoded.job.item.ticket.answer(Err(error.clone()));
    }
}

fn torch(error: impl std::fmt::Display) -> TchError {
    TchError::Torch(error.to_string())
}
