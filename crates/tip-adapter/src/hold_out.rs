//! The examples that numbers are chosen on, and the keys that each of them may
//! not see.

use tch::{Device, Kind, Tensor};

use super::{
    error::TipError, finetune::SearchSet, material::Material, spec::SelectionSource, told::Told,
    unit::unit_rows,
};

/// Most keys for which every one is left out once; beyond, one shot of each
/// class is.
pub(super) const ALL_OUT_KEYS: i64 = 4096;

/// Most examples that are scored when methods are compared.
const SCORED_LIMIT: usize = 4096;

/// Most pairs of an example and a key, so that choosing takes seconds even with
/// hundreds of thousands of keys.
const PAIRS_LIMIT: usize = 1 << 30;

/// Most scores of an example for a class, so that with a hundred thousand
/// classes they are in memory, too.
const SCORES_LIMIT: usize = 1 << 27;

/// Fewest examples that are scored in any case.
const SCORED_LEAST: usize = 256;

/// How many examples are scored against this many keys, for this many classes.
fn scored_limit(keys: usize, classes: usize) -> usize {
    let most = (PAIRS_LIMIT / keys.max(1)).min(SCORES_LIMIT / classes.max(1));
    most.clamp(SCORED_LEAST, SCORED_LIMIT)
}

/// Most keys of which plain leave-one-out scores every one; beyond, only as
/// many as when methods are compared, evenly spread.
const ONE_OUT_LIMIT: usize = 16_384;

/// Most rounds: a class with more shots leaves several out in each.
pub(super) const ROUND_LIMIT: i64 = 16;

/// Keys of a class whose cosine is within this of 1 are copies of one picture.
pub(super) const COPY: f64 = 1e-5;

/// Most pairs of keys of one class that are compared to find copies.
const COPY_PAIRS: i64 = 1 << 26;

/// An example or key outside every round.
const NO_ROUND: i64 = -1;

/// The round of validation examples: no key is in it.
const VALIDATION_ROUND: i64 = -2;

/// Examples to score on. An example does not see the keys of its own round.
#[derive(Debug)]
pub(super) struct HoldOut {
    /// Unit features, f32 [Q, D].
    pub features: Tensor,
    /// The true class of each, i64 [Q].
    pub labels: Tensor,
    /// The key that each example is, i64 [Q]; -1 for a validation example.
    pub key_index: Tensor,
    /// The round in which each is scored, i64 [Q].
    pub rounds: Tensor,
    /// The round in which each key is left out, i64 [M].
    pub key_rounds: Tensor,
    /// Whether they are validation examples, left-out shots or none.
    pub source: SelectionSource,
    /// The same in words, for the manifest.
    pub describe: String,
}

/// The examples of one round.
#[derive(Debug)]
pub(super) struct Round {
    /// Where the round's examples are in [`HoldOut::features`], i64.
    pub examples: Tensor,
    /// The keys left out, i64, ascending; none of them for validation examples.
    pub left_out: Tensor,
}

impl HoldOut {
    /// The number of examples in the round.
    pub fn count(&self) -> i64 {
        self.labels.numel() as i64
    }

    /// Whether the examples are keys that were left out.
    pub fn leaves_out(&self) -> bool {
        self.source == SelectionSource::LeaveOneOut
    }

    /// Whether every key that is left out is scored: none is a copy of another, and
    /// there are no more than all of them.
    pub fn scores_every_left_out(&self) -> Result<bool, TipError> {
        let left_out = self.key_rounds.f_ge(0)?.f_sum(Kind::Int64)?;
        Ok(self.leaves_out() && left_out.f_int64_value(&[])? == self.count())
    }

    /// Validation examples of the classes that can be told; every key is seen.
    pub fn validation(material: &Material) -> Result<Option<Self>, TipError> {
        let Some((features, labels)) = material.validation() else {
            return Ok(None);
        };
        let can_be_told = Told::of(material)?.is_among(labels)?;
        let rows = can_be_told.f_nonzero()?.f_squeeze_dim(1)?;
        if rows.numel() == 0 {
            return Ok(None);
        }
        let features = features.f_index_select(0, &rows)?;
        let labels = labels.f_index_select(0, &rows)?;
        Ok(Some(Self {
            key_index: labels.f_full_like(-1)?,
            rounds: labels.f_full_like(VALIDATION_ROUND)?,
            features,
            labels,
            key_rounds: material.labels.f_full_like(NO_ROUND)?,
            source: SelectionSource::Validation,
            describe: "validation examples".to_owned(),
        }))
    }

    /// Examples brought by fine-tuning: validation, or a view of each key, which
    /// then does not see its own key.
    pub fn given(
        material: &Material,
        set: &SearchSet,
        source: SelectionSource,
    ) -> Result<Self, TipError> {
        let queries = set.labels.numel() as i64;
        let keys = material.key_count();
        let (key_index, rounds, key_rounds) = match &set.own_key {
            None => (
                set.labels.f_full_like(-1)?,
                set.labels.f_full_like(VALIDATION_ROUND)?,
                material.labels.f_full_like(NO_ROUND)?,
            ),
            Some(own) => (
                own.shallow_clone(),
                own.shallow_clone(),
                Tensor::f_arange(keys, (Kind::Int64, Device::Cpu))?,
            ),
        };
        Ok(Self {
            features: set.features.shallow_clone(),
            labels: set.labels.shallow_clone(),
            key_index,
            rounds,
            key_rounds,
            source,
            describe: format!("{queries} examples of the fine-tuning"),
        })
    }

    /// Plain leave-one-out: each example against all keys but its own.
    pub fn one_out(material: &Material) -> Result<Option<Self>, TipError> {
        let labels = labels_of(material)?;
        if too_little(&labels, material.classes) {
            return Ok(None);
        }
        let keys = labels.len();
        let limit = if keys > ONE_OUT_LIMIT {
            scored_limit(keys, material.classes)
        } else {
            keys
        };
        let picked = evenly(keys, limit);
        let own: Vec<i64> = (0..keys as i64).collect();
        Self::over_keys(
            material,
            &picked,
            &own,
            format!(
                "leave-one-out: {} of {keys} keys, each masked in turn",
                picked.len()
            ),
        )
        .map(Some)
    }

    /// Each key without itself, however few there are.
    pub fn each_out(material: &Material) -> Result<Self, TipError> {
        let keys = material.labels.numel();
        let picked = evenly(keys, scored_limit(keys, material.classes));
        let own: Vec<i64> = (0..keys as i64).collect();
        Self::over_keys(
            material,
            &picked,
            &own,
            "each key without itself".to_owned(),
        )
    }

    /// The same keys, each of which sees all keys but itself.
    pub fn each_alone(&self, material: &Material) -> Result<Self, TipError> {
        let own: Vec<i64> = (0..material.key_count()).collect();
        let picked: Vec<usize> = Vec::<i64>::try_from(&self.key_index)?
            .into_iter()
            .filter_map(|key| usize::try_from(key).ok())
            .collect();
        Self::over_keys(
            material,
            &picked,
            &own,
            "each key without itself".to_owned(),
        )
    }

    /// Leave-one-out of every class at once: in round j the j-th shot of every
    /// class is left out and scored. With few shots, leaving out a single key
    /// makes its own class the only one that lacks a shot, and so favours
    /// methods that do not look at how many there are; leaving out one of each
    /// keeps the classes as balanced as they are. Classes of a single shot keep
    /// it and are not scored.
    ///
    /// Copies of a picture within a class are one shot: left out together, so
    /// that none is told by its copy, and scored once.
    pub fn one_of_each_out(material: &Material) -> Result<Option<Self>, TipError> {
        let labels = labels_of(material)?;
        if too_little(&labels, material.classes) {
            return Ok(None);
        }
        let copies = copies(material, &labels)?;
        let firsts: Vec<i64> = firsts(&labels, &copies);
        if too_little(&firsts, material.classes) {
            return Ok(None);
        }
        let counts = count(&firsts, material.classes);
        let most = counts.iter().copied().max().unwrap_or(1);
        let round_count = most.min(ROUND_LIMIT);
        let mut seen = vec![0i64; material.classes];
        let mut rounds: Vec<i64> = Vec::with_capacity(labels.len());
        for (&label, &first) in labels.iter().zip(&copies) {
            let class = usize::try_from(label).unwrap_or(usize::MAX);
            let shots = counts.get(class).copied().unwrap_or(0);
            let round = match (rounds.get(first), seen.get_mut(class)) {
                (Some(&round), _) => round,
                (None, Some(rank)) if shots > 1 => {
                    *rank += 1;
                    (*rank - 1) % round_count
                }
                _ => NO_ROUND,
            };
            rounds.push(round);
        }
        let all = labels.len() as i64 <= ALL_OUT_KEYS;
        let scored: Vec<usize> = (0..labels.len())
            .filter(|&i| {
                copies.get(i) == Some(&i)
                    && rounds
                        .get(i)
                        .is_some_and(|&r| if all { r >= 0 } else { r == 0 })
            })
            .collect();
        let picked: Vec<usize> = evenly(scored.len(), scored_limit(labels.len(), material.classes))
            .into_iter()
            .filter_map(|i| scored.get(i).copied())
            .collect();
        let describe = if all {
            format!("leave-one-out, one shot of every class at once, {round_count} rounds")
        } else {
            format!("one of {round_count} shots of every class left out and scored")
        };
        Self::over_keys(material, &picked, &rounds, describe).map(Some)
    }

    fn over_keys(
        material: &Material,
        picked: &[usize],
        rounds: &[i64],
        describe: String,
    ) -> Result<Self, TipError> {
        let index: Vec<i64> = picked.iter().map(|&i| i as i64).collect();
        let index = Tensor::f_from_slice(&index)?;
        let key_rounds = Tensor::f_from_slice(rounds)?;
        Ok(Self {
            features: material.keys.f_index_select(0, &index)?,
            labels: material.labels.f_index_select(0, &index)?,
            rounds: key_rounds.f_index_select(0, &index)?,
            key_index: index,
            key_rounds,
            source: SelectionSource::LeaveOneOut,
            describe,
        })
    }

    /// The rounds in ascending order, each with its examples and the keys they
    /// may not see.
    pub fn split(&self) -> Result<Vec<Round>, TipError> {
        let mut rounds = Vec::<i64>::try_from(&self.rounds)?;
        rounds.sort_unstable();
        rounds.dedup();
        rounds
            .into_iter()
            .map(|round| {
                Ok(Round {
                    examples: self.rounds.f_eq(round)?.f_nonzero()?.f_squeeze_dim(1)?,
                    left_out: self.key_rounds.f_eq(round)?.f_nonzero()?.f_squeeze_dim(1)?,
                })
            })
            .collect()
    }
}

/// The first key of the class that each key is a copy of: itself, for most.
pub(super) fn copies(material: &Material, labels: &[i64]) -> Result<Vec<usize>, TipError> {
    let mut copies: Vec<usize> = (0..labels.len()).collect();
    let pairs: i64 = count(labels, material.classes)
        .iter()
        .map(|shots| shots.saturating_mul(*shots))
        .sum();
    if pairs > COPY_PAIRS {
        return Ok(copies);
    }
    let mut of_class: Vec<Vec<i64>> = vec![Vec::new(); material.classes];
    for (row, &label) in labels.iter().enumerate() {
        if let Some(rows) = usize::try_from(label)
            .ok()
            .and_then(|c| of_class.get_mut(c))
        {
            rows.push(row as i64);
        }
    }
    for rows in of_class.iter().filter(|rows| rows.len() > 1) {
        let index = Tensor::f_from_slice(rows)?;
        let keys = unit_rows(&material.keys.f_index_select(0, &index)?)?;
        // The first key as near as a copy; every key is near itself.
        let near = keys.f_matmul(&keys.f_tr()?)?.f_gt(1.0 - COPY)?;
        let first = near.f_to_kind(Kind::Int8)?.f_argmax(1, false)?;
        for (&row, first) in rows.iter().zip(Vec::<i64>::try_from(&first)?) {
            let first = usize::try_from(first).ok().and_then(|i| rows.get(i));
            if let (Some(&first), Some(slot)) = (
                first,
                usize::try_from(row)
                    .ok()
                    .and_then(|row| copies.get_mut(row)),
            ) {
                *slot = usize::try_from(first.min(row)).unwrap_or(*slot);
            }
        }
    }
    Ok(copies)
}

/// The labels of the keys that are no copies.
fn firsts(labels: &[i64], copies: &[usize]) -> Vec<i64> {
    labels
        .iter()
        .zip(copies)
        .enumerate()
        .filter(|&(row, (_, &first))| row == first)
        .map(|(_, (&label, _))| label)
        .collect()
}

fn labels_of(material: &Material) -> Result<Vec<i64>, TipError> {
    Ok(Vec::<i64>::try_from(&material.labels)?)
}

fn count(labels: &[i64], classes: usize) -> Vec<i64> {
    let mut counts = vec![0i64; classes];
    for &label in labels {
        if let Some(slot) = usize::try_from(label).ok().and_then(|i| counts.get_mut(i)) {
            *slot += 1;
        }
    }
    counts
}

/// Whether too little can be left out: fewer than two classes, or fewer than
/// half of those with examples, have a second one.
fn too_little(labels: &[i64], classes: usize) -> bool {
    let counts = count(labels, classes);
    let some = counts.iter().filter(|&&n| n > 0).count();
    let several = counts.iter().filter(|&&n| n > 1).count();
    several < 2 || several * 2 < some
}

/// At most `limit` of 0 … count − 1, evenly spread.
fn evenly(count: usize, limit: usize) -> Vec<usize> {
    if count <= limit {
        (0..count).collect()
    } else {
        (0..limit).map(|i| i * count / limit).collect()
    }
}
