//! Training on x86-64: keys, moments and gradients in panels, tile by tile.
//!
//! V is one-hot, so neither its product nor that product's gradient is ever
//! computed: with A = exp(−β(1 − f·Kᵀ)) and G = ∂loss/∂logits,
//! ∂loss/∂K = (β·A ⊙ w_c·G_c)ᵀ·f, c each key's class. Two products a step in
//! all, the forward one fused with the exponential and the class sums (the
//! head's kernel), the backward one with AdamW: a gradient never leaves the
//! first-level cache.
//!
//! Where the processor gains by it, the products are in bfloat16, summed in
//! f32: of a copy of the keys that AdamW's pass writes beside the f32 ones,
//! which alone are trained. Scores are always computed from the f32 keys.

mod backward;

use std::ops::Range;

use tip_spec::KeyDtype;

pub use crate::source::TrainingSource as Source;
use crate::{
    adamw::AdamW,
    kernel::{self, Features, Finish, Item, Products, Segments},
    packed::products,
    panels::{BF16_STEP, Isa, Panels},
    source::TrainingSource,
    team::{self, Shards},
};
use backward::Backward;

/// Panels in an item of work.
const ITEM_PANELS: usize = 4;

/// The packed keys of a Tip-Adapter-F run, updated in place after each batch.
pub struct Training {
    isa: Isa,
    classes: usize,
    width: usize,
    linear: Option<Panels>,
    bias: Option<Vec<f32>>,
    /// α times the class's factor.
    weight: Vec<f32>,
    beta: f32,
    keys: Panels,
    /// The keys in bfloat16 for the products, and how these are computed;
    /// none: in f32.
    copy: Option<(Panels, Products)>,
    segments: Segments,
    /// First and second moment of each number of `keys`.
    moments: [Vec<f32>; 2],
    /// The packed place of each key.
    place: Vec<u32>,
    /// The class of each packed key.
    labels: Vec<u32>,
    batch: Batch,
}

/// Buffers of one training batch, reused by the next.
#[derive(Default)]
struct Batch {
    /// Unit features of the batch, [B, D].
    features: Vec<f32>,
    /// The same features transposed, fᵀ, [D, B].
    transposed: Vec<f32>,
    /// fᵀ in bfloat16, both dimensions padded to [`BF16_STEP`] with zeros.
    transposed_bf16: Vec<u16>,
    rows: usize,
    /// Affinities by panel, [panels, padded B, W]; the backward pass reads them
    /// again.
    affinities: Vec<f32>,
    /// Logits of the batch, [B, N].
    logits: Vec<f32>,
    /// [items, 2, B]: sums of classes that two items share.
    edges: Vec<f32>,
    /// Gradient of the loss by logit, times β and the class's weight: G·β·w,
    /// [B, N].
    gradient: Vec<f32>,
    /// Panels done in the pass that runs.
    done: usize,
}

impl Training {
    /// `mixed`: bfloat16 products where the processor gains by them.
    pub fn new(isa: Isa, mixed: bool, start: &TrainingSource) -> Self {
        let width = start.width;
        let pack = |dtype| Panels::pack(isa, dtype, start.keys, width, Some(start.order));
        let copy = match products(isa, KeyDtype::Bf16) {
            products if mixed && products != Products::F32 => {
                Some((pack(KeyDtype::Bf16), products))
            }
            _ => None,
        };
        let keys = pack(KeyDtype::F32);
        let linear = start
            .linear
            .map(|linear| Panels::pack(isa, KeyDtype::F32, linear, width, None));
        let bias = start.bias.map(|bias| {
            let mut bias = bias.to_vec();
            bias.resize(bias.len().next_multiple_of(isa.panel()), 0.0);
            bias
        });
        let numbers = keys.size_bytes() / 4;
        let mut place = vec![0u32; keys.rows()];
        for (at, &row) in start.order.iter().enumerate() {
            place[row as usize] = at as u32;
        }
        Self {
            isa,
            classes: start.classes,
            width,
            linear,
            bias,
            weight: start.weight.to_vec(),
            beta: start.beta,
            segments: Segments::new(start.sorted_labels, isa.panel()),
            moments: [vec![0.0; numbers], vec![0.0; numbers]],
            place,
            labels: start.sorted_labels.to_vec(),
            keys,
            copy,
            batch: Batch::default(),
        }
    }

    /// bias + f·Lᵀ into `out` ([B, N]).
    fn linear_logits(&self, features: &[f32], rows: usize, out: &mut [f32]) {
        match (&self.linear, &self.bias) {
            (Some(panels), bias) => {
                // SAFETY: [rows, width], alive throughout.
                let features =
                    unsafe { Features::new(features.as_ptr(), rows, panels, Products::F32) };
                let out = Shards::new(out.as_mut_ptr());
                team::run(panels.count().div_ceil(ITEM_PANELS), &|i| {
                    kernel::compute(&Item {
                        panels,
                        features: &features,
                        products: Products::F32,
                        panel_range: i * ITEM_PANELS..((i + 1) * ITEM_PANELS).min(panels.count()),
                        row_range: 0..rows,
                        finish: Finish::Affine {
                            bias: bias.as_deref(),
                            out,
                            ld: self.classes,
                        },
                    });
                });
            }
            (None, Some(bias)) => out
                .chunks_exact_mut(self.classes)
                .for_each(|row| row.copy_from_slice(&bias[..self.classes])),
            (None, None) => out.fill(0.0),
        }
    }

    /// The classes that panels share with those before and after them.
    fn shared(&self, panels: &Range<usize>) -> (Option<u32>, Option<u32>) {
        let panel = self.isa.panel();
        let label = |key: usize| self.labels.get(key).copied();
        let (start, end) = (panels.start * panel, panels.end * panel);
        let before = (start > 0).then(|| label(start - 1)).flatten();
        let after = label(end);
        (
            before.filter(|&c| label(start) == Some(c)),
            after.filter(|&c| label(end - 1) == Some(c)),
        )
    }

    /// Adds the cache's logits of some panels to `out` ([B, N]); to keep the
    /// affinities is to train, and allows products in bfloat16.
    fn cache_logits(
        &self,
        features: &[f32],
        rows: usize,
        range: Range<usize>,
        out: &mut [f32],
        edges: &mut Vec<f32>,
        mut keep: Option<&mut [f32]>,
    ) {
        let (panels, products) = match &self.copy {
            Some((copy, products)) if keep.is_some() => (copy, *products),
            _ => (&self.keys, Products::F32),
        };
        // SAFETY: [rows, width], alive throughout.
        let features = unsafe { Features::new(features.as_ptr(), rows, panels, products) };
        let items = range.len().div_ceil(ITEM_PANELS);
        edges.clear();
        edges.resize(items * 2 * rows, 0.0);
        let edge_base = Shards::new(edges.as_mut_ptr());
        let target = Shards::new(out.as_mut_ptr());
        let keep = keep
            .as_mut()
            .map(|kept| (Shards::new(kept.as_mut_ptr()), padded(rows)));
        let panels_of = |i: usize| {
            let first = range.start + i * ITEM_PANELS;
            first..(first + ITEM_PANELS).min(range.end)
        };
        team::run(items, &|i| {
            let panel_range = panels_of(i);
            let (before, after) = self.shared(&panel_range);
            // SAFETY: two runs of [rows] in `edges` for each item.
            let edge = |side: usize| unsafe { Shards::new(edge_base.at((i * 2 + side) * rows)) };
            kernel::compute(&Item {
                panels,
                features: &features,
                products,
                panel_range,
                row_range: 0..rows,
                finish: Finish::Classes {
                    beta: self.beta,
                    segments: &self.segments,
                    weight: &self.weight,
                    out: target,
                    ld: self.classes,
                    before: before.map(|class| (class, edge(0))),
                    after: after.map(|class| (class, edge(1))),
                    keep,
                },
            });
        });
        let shared = |i| self.shared(&panels_of(i));
        kernel::add_edges(edges, rows, shared, out, self.classes);
    }

    /// Panels whose product with `rows` rows is about `work` multiplications.
    fn slice(&self, rows: usize, work: usize) -> usize {
        (work / (rows * self.width * self.isa.panel()).max(1)).max(ITEM_PANELS)
    }

    /// Takes a batch, [B, D].
    pub fn begin(&mut self, features: &[f32]) {
        let rows = features.len() / self.width;
        let mut batch = std::mem::take(&mut self.batch);
        batch.features.clear();
        batch.features.extend_from_slice(features);
        batch.rows = rows;
        batch.done = 0;
        if self.copy.is_some() {
            batch.transposed_bf16.clear();
            batch
                .transposed_bf16
                .resize(padded(self.width) * padded(rows), 0);
            for (b, row) in features.chunks_exact(self.width).enumerate() {
                for (d, &value) in row.iter().enumerate() {
                    let value = half::bf16::from_f32(value).to_bits();
                    batch.transposed_bf16[d * padded(rows) + b] = value;
                }
            }
        } else {
            batch.transposed.resize(rows * self.width, 0.0);
            for (b, row) in features.chunks_exact(self.width).enumerate() {
                for (d, &value) in row.iter().enumerate() {
                    batch.transposed[d * rows + b] = value;
                }
            }
        }
        let kept = self.keys.count() * self.isa.panel() * padded(rows);
        batch.affinities.resize(kept, 0.0);
        batch.logits.resize(rows * self.classes, 0.0);
        self.linear_logits(&batch.features, rows, &mut batch.logits);
        self.batch = batch;
    }

    /// A slice of the forward pass of about `work` multiplications; true when it
    /// was the last.
    pub fn forward(&mut self, work: usize) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let end = (batch.done + self.slice(batch.rows, work)).min(self.keys.count());
        self.cache_logits(
            &batch.features,
            batch.rows,
            batch.done..end,
            &mut batch.logits,
            &mut batch.edges,
            Some(&mut batch.affinities),
        );
        batch.done = end;
        self.batch = batch;
        end == self.keys.count()
    }

    /// The batch's logits, [B, N].
    pub fn logits(&mut self) -> &[f32] {
        self.batch.done = 0;
        &self.batch.logits
    }

    /// A slice of the backward pass and of the optimiser's step, of about `work`
    /// multiplications, from ∂loss/∂logits ([B, N]); true when it was the last.
    pub fn backward(&mut self, gradient: &[f32], adamw: &AdamW, work: usize) -> bool {
        let Batch { rows, done, .. } = self.batch;
        if done == 0 {
            self.batch.gradient.clear();
            self.batch.gradient.extend(
                gradient
                    .chunks_exact(self.classes)
                    .flat_map(|row| row.iter().zip(&self.weight))
                    .map(|(gradient, weight)| gradient * (weight * self.beta)),
            );
        }
        let end = (done + self.slice(rows, work)).min(self.keys.count());
        let (keys, stride) = self.keys.f32_mut();
        let (copy, products) = match &mut self.copy {
            Some((copy, products)) => (Some(copy.bf16_mut()), *products),
            None => (None, Products::F32),
        };
        let pass = Backward {
            rows,
            width: self.width,
            classes: self.classes,
            transposed: &self.batch.transposed,
            transposed_bf16: &self.batch.transposed_bf16,
            gradient: &self.batch.gradient,
            segments: &self.segments,
            affinities: Shards::new(self.batch.affinities.as_mut_ptr()),
            keys,
            copy,
            first: Shards::new(self.moments[0].as_mut_ptr()),
            second: Shards::new(self.moments[1].as_mut_ptr()),
            stride,
            adamw: *adamw,
        };
        let isa = self.isa;
        team::run(end - done, &|i| {
            // SAFETY: the instruction set was detected; each panel is one item's.
            unsafe { pass.run(isa, products, done + i) }
        });
        self.batch.done = end;
        end == self.keys.count()
    }

    /// Logits of any features ([B, D]) into `out` ([B, N]), from the f32 keys.
    pub fn score(&self, features: &[f32], out: &mut [f32]) {
        let rows = features.len() / self.width;
        self.linear_logits(features, rows, out);
        let panels = 0..self.keys.count();
        self.cache_logits(features, rows, panels, out, &mut Vec::new(), None);
    }

    /// What each row's own key adds to the logit of its class, [B].
    pub fn own(&self, features: &[f32], keys: &[usize]) -> Vec<f32> {
        let panel = self.isa.panel();
        features
            .chunks_exact(self.width)
            .zip(keys)
            .map(|(row, &key)| {
                let at = self.place[key] as usize;
                let base = self.keys.panel_ptr(at / panel).cast::<f32>();
                let dot: f32 = row
                    .iter()
                    .enumerate()
                    // SAFETY: inside the panel.
                    .map(|(d, x)| x * unsafe { *base.add(d * panel + at % panel) })
                    .sum();
                self.weight[self.labels[at] as usize] * (self.beta * dot - self.beta).exp()
            })
            .collect()
    }

    /// The keys in the examples' order, [M, D].
    pub fn keys(&self) -> Vec<f32> {
        let packed = self.keys.unpack();
        let mut keys = Vec::with_capacity(packed.len());
        for &at in &self.place {
            keys.extend_from_slice(&packed[at as usize * self.width..][..self.width]);
        }
        keys
    }
}

/// Rows of a batch, or dimensions, rounded up for bfloat16 products.
fn padded(rows: usize) -> usize {
    rows.next_multiple_of(BF16_STEP)
}
