//! Heads of many caches over one batch.
//!
//! The encoder does not know caches, so a batch mixes pictures of many; only
//! the head is each cache's own. Small heads are then computed together: on
//! the CPU as items of one piece of work, in our kernels; elsewhere as one
//! concatenated head, whose diagonal blocks are the answers, so that the
//! number of operators does not grow with the number of caches.

use parking_lot::Mutex;
use tch::{Device, Kind, Tensor};

use tip_kernels::team;

use super::head::{Head, HeadError, Plain, operators::Operators};
use crate::dimensions::row_count;

/// Most heads that are concatenated: the unused part of the product grows with
/// it.
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
    let mut answers: Vec<Option<Tensor>> = groups.iter().map(|_| None).collect();
    for block in blocks(features, groups)? {
        for part in &block.parts {
            let own = block
                .logits
                .f_narrow(0, part.row as i64, part.rows as i64)?
                .f_narrow(1, part.class as i64, part.classes as i64)?;
            if let Some(answer) = answers.get_mut(part.group) {
                *answer = Some(own);
            }
        }
    }
    // Every group is in one block.
    Ok(answers.into_iter().flatten().collect())
}

/// The logits of one group, or of several that were computed together.
pub(super) struct Block {
    /// f32 [rows of all parts, classes].
    pub logits: Tensor,
    /// Where the groups' are, in the order of the rows.
    pub parts: Vec<Part>,
}

/// The logits of a group in a block: `rows` from `row` on, `classes` from
/// `class` on.
pub(super) struct Part {
    pub group: usize,
    pub row: usize,
    pub rows: usize,
    pub class: usize,
    pub classes: usize,
}

impl Block {
    /// The block of a head that is computed by itself.
    fn alone(group: usize, (head, rows): (&Head, &[i64]), logits: Tensor) -> Block {
        let part = Part {
            group,
            row: 0,
            rows: rows.len(),
            class: 0,
            classes: head.classes(),
        };
        Block {
            logits,
            parts: vec![part],
        }
    }

    /// Every row's own classes from the first column on, f32 [rows, most
    /// classes]; a row with fewer is filled up with its last.
    ///
    /// # Errors
    /// Torch's own.
    pub fn aligned(&self) -> Result<Tensor, HeadError> {
        if let [_] = self.parts.as_slice() {
            return Ok(self.logits.shallow_clone());
        }
        let device = self.logits.device();
        let of_rows = |number: fn(&Part) -> usize| {
            (self.parts.iter())
                .flat_map(move |part| std::iter::repeat_n(number(part) as i64, part.rows))
        };
        let ends: Vec<i64> = of_rows(|part| part.class)
            .chain(of_rows(|part| part.class + part.classes - 1))
            .collect();
        let ends = Tensor::f_from_slice(&ends)?
            .f_view([2, -1, 1])?
            .f_to_device(device)?;
        let most = self.parts.iter().map(|part| part.classes).max();
        let columns = Tensor::f_arange(most.unwrap_or(0) as i64, (Kind::Int64, device))?;
        let index = ends.f_select(0, 0)?.f_add(&columns)?;
        let index = index.f_minimum(&ends.f_select(0, 1)?)?;
        Ok(self.logits.f_gather(1, &index, false)?)
    }
}

/// The logits of every group, each in one block.
///
/// # Errors
/// As [`grouped_logits`].
pub(super) fn blocks(
    features: &Tensor,
    groups: &[(&Head, &[i64])],
) -> Result<Vec<Block>, HeadError> {
    let batch = row_count(features)?;
    for &(head, rows) in groups {
        head.rows(features)?;
        if let Some(&row) = rows.iter().find(|&&row| row < 0 || row >= batch) {
            return Err(HeadError::Row { row, batch });
        }
    }
    if let [(head, rows)] = groups
        && rows.iter().copied().eq(0..batch)
    {
        let logits = head.logits(features)?;
        return Ok(vec![Block::alone(0, (head, rows), logits)]);
    }

    let mut blocks = Vec::new();
    let mut kernels = Vec::new();
    let mut operators: Vec<(usize, &Operators)> = Vec::new();
    for (g, &(head, rows)) in groups.iter().enumerate() {
        match (head.packed(), head.operators()) {
            (Some(packed), _) if packed.small(rows.len()) => kernels.push(g),
            (_, Some(small)) if small.joins() => operators.push((g, small)),
            _ => {
                let own = features.f_index_select(0, &indices(rows, features.device())?)?;
                blocks.push(Block::alone(g, (head, rows), head.logits(&own)?));
            }
        }
    }
    by_kernels(features, groups, &kernels, &mut blocks)?;
    // Heads on one device at a time.
    operators.sort_by_key(|(g, _)| device_number(groups[*g].0.device()));
    for same in operators.chunk_by(|a, b| groups[a.0].0.device() == groups[b.0].0.device()) {
        for joined in same.chunks(TOGETHER) {
            blocks.extend(by_operators(features, groups, joined)?);
        }
    }
    // Every group was computed in one of the three ways.
    Ok(blocks)
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
    blocks: &mut Vec<Block>,
) -> Result<(), HeadError> {
    if which.is_empty() {
        return Ok(());
    }
    let features = Plain::new(features)?;
    let features = features.values();
    // Each item writes its own; a lock that nobody else asks for costs nothing
    // beside the product.
    let outputs: Vec<Mutex<Vec<f32>>> = which
        .iter()
        .map(|&g| {
            let (head, rows) = groups[g];
            Mutex::new(vec![0f32; head.classes() * rows.len()])
        })
        .collect();
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
        packed.logits(own, &mut outputs[i].lock(), true);
    });
    for (&g, output) in which.iter().zip(outputs) {
        let (head, rows) = groups[g];
        let own = Tensor::f_from_slice(&output.into_inner())?;
        let own = own.f_view([rows.len() as i64, head.classes() as i64])?;
        blocks.push(Block::alone(g, (head, rows), own));
    }
    Ok(())
}

/// All of `which` as one head; each group's part is a block of its logits.
fn by_operators(
    features: &Tensor,
    groups: &[(&Head, &[i64])],
    which: &[(usize, &Operators)],
) -> Result<Option<Block>, HeadError> {
    let Some(&(first, _)) = which.first() else {
        return Ok(None);
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
    let parts = which
        .iter()
        .map(|&(group, _)| {
            let (rows, classes) = (groups[group].1.len(), groups[group].0.classes());
            let part = Part {
                group,
                row,
                rows,
                class,
                classes,
            };
            row += rows;
            class += classes;
            part
        })
        .collect();
    Ok(Some(Block { logits, parts }))
}
