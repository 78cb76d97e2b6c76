//! Which of many unlabelled pictures to label first.
//!
//! With few labels, typical pictures teach most: TypiClust (Hacohen, Dekel and
//! Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and
//! Low Budgets", ICML 2022) clusters the pictures and takes the one in the
//! densest place of each of the largest clusters that hold no label. Once a
//! classifier knows its classes, those teach most between whose two best
//! classes it is least decided. Pictures that are nearly the same count once.

use tch::{Kind, Tensor};

use super::{
    dimensions::{as_count, row_count},
    error::TipError,
    near::{self, Groups},
    watch::GoOn,
};

mod clusters;
mod typical;

use clusters::{Clusters, Picked};

/// Most pictures of a pool.
pub const POOL_LIMIT: usize = 16_384;

/// Most labelled examples that are clustered, evenly spread.
const LABELLED_LIMIT: usize = 16_384;

/// Clusters, at most, as in the paper.
const CLUSTER_LIMIT: usize = 500;

/// How the pictures to label are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The typical pictures of clusters without a label.
    Typical,
    /// The pictures that a classifier is least decided on.
    Margin,
}

/// A pool of unlabelled pictures, and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// f32 [P, D], unit rows.
    pub features: &'a Tensor,
    /// Labelled examples, f32 [M, D], unit rows.
    pub labelled: Option<&'a Tensor>,
    /// Difference of the probabilities of a classifier's two best classes, one
    /// for each picture; needed by [`Strategy::Margin`].
    pub margins: Option<&'a [f64]>,
}

/// How many pictures to suggest, and by which strategy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuggestOptions {
    /// Pictures to suggest, if the pool has as many.
    pub count: usize,
    /// How they are picked: see [`Strategy`].
    pub strategy: Strategy,
    /// Cosine from which pictures are near-duplicates; none: taken from the
    /// pool itself.
    pub duplicate_similarity: Option<f64>,
    /// Seed of the clustering: the same seed suggests the same pictures.
    pub seed: u64,
}

/// A picture worth a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggested {
    /// Its row in the pool.
    pub row: usize,
    /// 0 to 1. Typical: its typicality over the largest in the pool. Margin:
    /// 1 − the margin.
    pub score: f64,
    /// Distinct pictures of the pool in its cluster, itself included.
    pub cluster_size: usize,
    /// Rows of the pool that are nearly the same.
    pub duplicates: Vec<usize>,
}

/// A picture of the pool that nearly repeats a labelled example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// Its row in the pool.
    pub row: usize,
    /// The labelled example's row among the keys.
    pub key: usize,
    /// Cosine similarity of the two, at most 1.
    pub similarity: f64,
}

/// Which pictures of the pool to label, and which are not worth it.
#[derive(Debug)]
pub struct Suggestions {
    /// Pictures to label, the most useful first.
    pub suggested: Vec<Suggested>,
    /// Pictures so near to a labelled example that a label would add nothing.
    pub labelled: Vec<Labelled>,
    /// Pictures left, near-duplicates counted once.
    pub distinct: usize,
    /// The cosine from which pictures counted as near-duplicates.
    pub duplicate_similarity: f64,
}

/// Puts pictures in the order in which to label them. Asks `go_on` often.
///
/// # Errors
/// Shapes that do not fit together, more than [`POOL_LIMIT`] pictures, a margin
/// strategy without margins; torch's; [`TipError::Cancelled`].
pub fn suggest(
    pool: &Pool<'_>,
    options: &SuggestOptions,
    go_on: &dyn Fn() -> bool,
) -> Result<Suggestions, TipError> {
    let _no_grad = tch::no_grad_guard();
    let go_on = GoOn(go_on);
    let count = check(pool, options)?;
    let features = pool.features;
    let similarity = match options.duplicate_similarity {
        Some(similarity) => similarity,
        None if count > 0 => near::threshold(features, &go_on)?,
        None => 1.0,
    };
    let labelled = match pool.labelled {
        Some(keys) if keys.size().first() != Some(&0) && count > 0 => {
            near::nearest(features, keys, similarity, &go_on)?
        }
        _ => vec![None; count],
    };
    let open: Vec<usize> = (labelled.iter().enumerate())
        .filter_map(|(row, known)| known.is_none().then_some(row))
        .collect();
    let Groups {
        representatives,
        duplicates,
    } = near::groups(features, &open, similarity, &go_on)?;
    let chosen = if representatives.is_empty() {
        Vec::new()
    } else {
        let distinct = near::select(features, &representatives)?;
        let clusters = cluster(&distinct, pool.labelled, options, &go_on)?;
        match (options.strategy, pool.margins) {
            (Strategy::Margin, Some(margins)) => {
                let of = |at: usize| representatives.get(at).and_then(|&row| margins.get(row));
                let scores: Vec<f64> = (0..representatives.len())
                    .map(|at| 1.0 - of(at).copied().unwrap_or(1.0))
                    .collect();
                undecided(&scores, &clusters, options.count)
            }
            _ => typical::order(&distinct, &clusters, options.count, &go_on)?,
        }
    };
    let suggested = chosen
        .into_iter()
        .filter_map(|picked| {
            Some(Suggested {
                row: *representatives.get(picked.at)?,
                score: picked.score,
                cluster_size: picked.cluster_size,
                duplicates: duplicates.get(picked.at)?.clone(),
            })
        })
        .collect();
    Ok(Suggestions {
        suggested,
        labelled: (labelled.into_iter().enumerate())
            .filter_map(|(row, known)| {
                known.map(|(key, similarity)| Labelled {
                    row,
                    key,
                    similarity,
                })
            })
            .collect(),
        distinct: representatives.len(),
        duplicate_similarity: similarity,
    })
}

/// How many pictures, if everything fits together.
fn check(pool: &Pool<'_>, options: &SuggestOptions) -> Result<usize, TipError> {
    let size = pool.features.size();
    let &[rows, width] = size.as_slice() else {
        return Err(shape("pool", size, "[P, D]"));
    };
    let count = as_count(rows)?;
    if count > POOL_LIMIT {
        return Err(shape("pool", size, &format!("at most {POOL_LIMIT} rows")));
    }
    if let Some(keys) = pool.labelled
        && !matches!(keys.size().as_slice(), &[_, d] if d == width)
    {
        return Err(shape(
            "labelled examples",
            keys.size(),
            &format!("[M, {width}]"),
        ));
    }
    match (options.strategy, pool.margins) {
        (Strategy::Margin, None) => Err(shape("margins", vec![0], &format!("[{count}]"))),
        (_, Some(margins)) if margins.len() != count => {
            let got = vec![i64::try_from(margins.len()).unwrap_or(i64::MAX)];
            Err(shape("margins", got, &format!("[{count}]")))
        }
        _ => Ok(count),
    }
}

fn shape(thing: &'static str, got: Vec<i64>, expected: &str) -> TipError {
    TipError::Shape {
        thing,
        got,
        expected: expected.to_owned(),
    }
}

/// Clusters of the distinct pictures and the labelled ones: as many as there
/// will be labels.
fn cluster(
    distinct: &Tensor,
    labelled: Option<&Tensor>,
    options: &SuggestOptions,
    go_on: &GoOn<'_>,
) -> Result<Clusters, TipError> {
    let pictures = row_count(distinct)?;
    let all = match labelled {
        None => distinct.shallow_clone(),
        Some(keys) => {
            let count = row_count(keys)?;
            let limit = LABELLED_LIMIT as i64;
            let step = ((count + limit - 1) / limit).max(1);
            let some = keys.f_slice(0, 0, count, step)?.f_to_kind(Kind::Float)?;
            Tensor::f_cat(&[distinct, &some], 0)?
        }
    };
    let rows = as_count(row_count(&all)?)?;
    let pictures = as_count(pictures)?;
    let wanted = (rows - pictures) + options.count;
    let count = wanted.min(CLUSTER_LIMIT).min(rows / 2).max(1);
    Clusters::of(&all, pictures, count, options.seed, go_on)
}

/// The least decided first, one of each cluster at a time.
fn undecided(scores: &[f64], clusters: &Clusters, count: usize) -> Vec<Picked> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |at: usize| scores.get(at).copied().unwrap_or(0.0);
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    let mut taken = vec![0usize; clusters.count()];
    let mut turns: Vec<(usize, usize)> = (order.iter())
        .map(|&at| {
            let turn = clusters.of_picture(at).and_then(|of| taken.get_mut(of));
            let turn = turn.map_or(0, |turn| {
                *turn += 1;
                *turn
            });
            (turn, at)
        })
        .collect();
    // Stable: within a turn the scores' order stays.
    turns.sort_by_key(|&(turn, _)| turn);
    (turns.into_iter().take(count))
        .map(|(_, at)| Picked {
            at,
            score: score(at),
            cluster_size: clusters.size_of(at),
        })
        .collect()
}
