//! What becomes of a tile of products while it is still in registers.

use super::segments::Segments;
use crate::team::Shards;

/// What becomes of a tile.
pub enum Finish<'a> {
    /// out[b, n] = dot + bias[n].
    Affine {
        /// [N padded to whole panels], added to every row.
        bias: Option<&'a [f32]>,
        /// Logits [B, N], written by several threads at once.
        out: Shards<f32>,
        /// Distance between two rows of `out`, in elements: N.
        ld: usize,
    },
    /// out[b, c] += weight[c] · Σ over the class's keys of exp(β(dot − 1)).
    Classes {
        beta: f32,
        segments: &'a Segments,
        weight: &'a [f32],
        /// Logits [B, N], written by several threads at once.
        out: Shards<f32>,
        /// Distance between two rows of `out`, in elements: N.
        ld: usize,
        /// The class that the item shares with the one before it, and where
        /// its sums go: [B].
        before: Option<(u32, Shards<f32>)>,
        /// Likewise with the one after it.
        after: Option<(u32, Shards<f32>)>,
        /// Where the affinities themselves are kept for the gradient: [panels,
        /// rows, W], and how many rows, at least B.
        keep: Option<(Shards<f32>, usize)>,
    },
    /// out[b − first_row, j − first] = dot, or exp(β(dot − 1)) with a β.
    Dots {
        beta: Option<f32>,
        /// [rows of the item, ld].
        out: Shards<f32>,
        ld: usize,
        /// The first row of the item.
        first_row: usize,
        /// The first key of the item.
        first: usize,
    },
}

impl Finish<'_> {
    #[inline(always)]
    pub(super) fn beta(&self) -> Option<f32> {
        match self {
            Finish::Affine { .. } => None,
            Finish::Classes { beta, .. } => Some(*beta),
            Finish::Dots { beta, .. } => *beta,
        }
    }

    /// Hands over a tile [rows, width] that begins at `row` and at the
    /// panel's first key.
    ///
    /// # Safety
    /// The places named belong to this item alone.
    #[inline(always)]
    pub(super) unsafe fn write(
        &self,
        panel: usize,
        row: usize,
        rows: usize,
        width: usize,
        tile: &[f32],
    ) {
        unsafe {
            match self {
                Finish::Affine { bias, out, ld } => {
                    let first = panel * width;
                    let count = width.min(ld - first);
                    for r in 0..rows {
                        let out = out.at((row + r) * ld + first);
                        for j in 0..count {
                            let bias = bias.map_or(0.0, |bias| bias[first + j]);
                            *out.add(j) = tile[r * width + j] + bias;
                        }
                    }
                }
                Finish::Classes {
                    segments,
                    weight,
                    out,
                    ld,
                    before,
                    after,
                    keep,
                    ..
                } => {
                    if let Some((kept, all_rows)) = keep {
                        let to = kept.at((panel * all_rows + row) * width);
                        std::ptr::copy_nonoverlapping(tile.as_ptr(), to, rows * width);
                    }
                    for run in segments.of(panel) {
                        let class = run.class as usize;
                        let weight = weight[class];
                        let edge = match (before, after) {
                            (Some((c, sums)), _) if *c == run.class => Some(sums),
                            (_, Some((c, sums))) if *c == run.class => Some(sums),
                            _ => None,
                        };
                        for r in 0..rows {
                            let tile = &tile[r * width..(r + 1) * width];
                            let sum: f32 = tile[run.start as usize..run.end as usize].iter().sum();
                            match edge {
                                Some(sums) => *sums.at(row + r) += sum * weight,
                                None => *out.at((row + r) * ld + class) += sum * weight,
                            }
                        }
                    }
                }
                Finish::Dots {
                    out,
                    ld,
                    first_row,
                    first,
                    ..
                } => {
                    let from = panel * width - first;
                    let count = width.min(ld - from);
                    for r in 0..rows {
                        let out = out.at((row - first_row + r) * ld + from);
                        std::ptr::copy_nonoverlapping(tile.as_ptr().add(r * width), out, count);
                    }
                }
            }
        }
    }
}

/// Adds up, in order, what items summed beside the logits: `edges` is [items,
/// 2, B], for the class that an item shares with the one before it and for
/// that with the one after it, which `shared` names; `out` is [B, N].
pub fn add_edges(
    edges: &[f32],
    rows: usize,
    shared: impl Fn(usize) -> (Option<u32>, Option<u32>),
    out: &mut [f32],
    classes: usize,
) {
    for (item, sums) in edges.chunks_exact(2 * rows).enumerate() {
        let (before, after) = shared(item);
        let (first, last) = sums.split_at(rows);
        for (class, sums) in [(before, first), (after, last)] {
            let Some(class) = class else { continue };
            for (b, sum) in sums.iter().enumerate() {
                out[b * classes + class as usize] += sum;
            }
        }
    }
}
