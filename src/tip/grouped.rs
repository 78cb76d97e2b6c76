//! Heads of many caches over one batch.
//!
//! The encoder does not know caches, so a batch mixes pictures of many; only
//! the head is each cache's own. Small heads are then computed together: on
//! the CPU as items of one piece of work, in our kernels; elsewhere as one
//! concatenated head, whose diagonal blocks are the answers, so that the
//! number of operators does not grow with the number of caches.

use tch::{Device, Kind, Tensor};

use super::head::{
    Head, HeadError, Plain,
    operators::Operators,
    team::{self, Shards},
};

/// Heads concatenated at most: what is computed for nothing grows with it.
const TOGETHER: usize = 64;

/// The logits of each group: `groups[g]` names a head and the rows of
/// `features` (f32 [B, D], unit rows) that it classifies, and the g-th answer
/// is f32 [rows, N of that head], in the order of its rows. A row may be in
/// several groups, or in none.
///
/// # Errors
/// A row outside the batch, features of another width than a head's, or
/// torch's own.
pub fn grouped_logits(
    features: &Tensor,
    groups: &[(&Head, &[i64])],
) -> Result<Vec<Tensor>, HeadError> {
    let batch = features.size().first().copied().unwrap_or(0);
    for &(head, rows) in groups {
        head.rows(features)?;
        if let Some(&row) = rows.iter().find(|&&row| row < 0 || row >= batch) {
            return Err(HeadError::Row { row, batch });
        }
    }
    if let [(head, rows)] = groups
        && rows.iter().copied().eq(0..batch)
    {
        return Ok(vec![head.logits(features)?]);
    }

    let mut answers: Vec<Option<Tensor>> = groups.iter().map(|_| None).collect();
    let mut kernels = Vec::new();
    let mut operators: Vec<(usize, &Operators)> = Vec::new();
    for (g, &(head, rows)) in groups.iter().enumerate() {
        match (head.packed(), head.operators()) {
            (Some(packed), _) if packed.small(rows.len()) => kernels.push(g),
            (_, Some(small)) if small.joins() => operators.push((g, small)),
            _ => {
                let own = features.f_index_select(0, &indices(rows, features.device())?)?;
                answers[g] = Some(head.logits(&own)?);
            }
        }
    }
    by_kernels(features, groups, &kernels, &mut answers)?;
    // Heads on one device at a time.
    operators.sort_by_key(|(g, _)| device_number(groups[*g].0.device()));
    for same in operators.chunk_by(|a, b| groups[a.0].0.device() == groups[b.0].0.device()) {
        for joined in same.chunks(TOGETHER) {
            by_operators(features, groups, joined, &mut answers)?;
        }
    }
    // Every group went one of the three ways.
    Ok(answers.into_iter().flatten().collect())
}

fn indices(rows: &[i64], device: Device) -> Result<Tensor, HeadError> {
    Ok(Tensor::f_from_slice(rows)?.f_to_device(device)?)
}

fn device_number(device: Device) -> usize {
    match device {
        Device::Cuda(number) => number + 1,
        _ => 0,
    }
}

/// All of `which` as one piece of work: a group is an item.
fn by_kernels(
    features: &Tensor,
    groups: &[(&Head, &[i64])],
    which: &[usize],
    answers: &mut [Option<Tensor>],
) -> Result<(), HeadError> {
    if which.is_empty() {
        return Ok(());
    }
    let features = Plain::new(features)?;
    let features = features.values();
    let mut starts = Vec::with_capacity(which.len());
    let mut total = 0;
    for &g in which {
        starts.push(total);
        total += groups[g].0.classes() * groups[g].1.len();
    }
    let mut logits = vec![0f32; total];
    let base = Shards::new(logits.as_mut_ptr());
    team::run(which.len(), &|i| {
        let (head, rows) = groups[which[i]];
        let Some(packed) = head.packed() else { return };
        let width = head.width();
        let row = |row: i64| &features[row as usize * width..][..width];
        let gathered: Vec<f32>;
        let own = match rows {
            [only] => row(*only),
            _ => {
                gathered = rows.iter().flat_map(|&r| row(r)).copied().collect();
                &gathered
            }
        };
        let count = head.classes() * rows.len();
        // SAFETY: the run of `logits` that is this item's.
        let out = unsafe { std::slice::from_raw_parts_mut(base.at(starts[i]), count) };
        packed.logits(own, out, true);
    });
    for (&g, &start) in which.iter().zip(&starts) {
        let (head, rows) = groups[g];
        let count = head.classes() * rows.len();
        let own = Tensor::f_from_slice(&logits[start..start + count])?;
        answers[g] = Some(own.f_view([rows.len() as i64, head.classes() as i64])?);
    }
    Ok(())
}

/// All of `which` as one head; each answer is a block of its logits.
fn by_operators(
    features: &Tensor,
    groups: &[(&Head, &[i64])],
    which: &[(usize, &Operators)],
    answers: &mut [Option<Tensor>],
) -> Result<(), HeadError> {
    let Some(&(first, _)) = which.first() else {
        return Ok(());
    };
    let device = groups[first].0.device();
    let rows: Vec<i64> = which
        .iter()
        .flat_map(|&(g, _)| groups[g].1)
        .copied()
        .collect();
    let own = features
        .f_to_device(device)?
        .f_to_kind(Kind::Float)?
        .f_index_select(0, &indices(&rows, device)?)?;
    let heads: Vec<&Operators> = which.iter().map(|&(_, head)| head).collect();
    let logits = Operators::joined_logits(&heads, &own)?;
    let (mut row, mut class) = (0, 0);
    for &(g, _) in which {
        let (rows, classes) = (groups[g].1.len() as i64, groups[g].0.classes() as i64);
        answers[g] = Some(logits.f_narrow(0, row, rows)?.f_narrow(1, class, classes)?);
        row += rows;
        class += classes;
    }
    Ok(())
}
