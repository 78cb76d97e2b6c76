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

use tch::{Device, Tensor};

use super::{AdamW, Start, Weights};
use crate::tip::{
    head::{
        HeadError, Plain, filled,
        kernel::{self, Features, Finish, Item, Products, Segments},
        packed::products,
        panels::{BF16_STEP, Isa, Panels},
        team::{self, Shards},
    },
    spec::KeyDtype,
};
use backward::Backward;

/// Panels in an item of work.
const ITEM_PANELS: usize = 4;

/// Keys in training.
pub struct Packed {
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

/// The batch in hand.
#[derive(Default)]
struct Batch {
    /// [B, D].
    features: Vec<f32>,
    /// fᵀ, [D, B].
    transposed: Vec<f32>,
    /// fᵀ in bfloat16, both dimensions padded to [`BF16_STEP`] with zeros.
    transposed_bf16: Vec<u16>,
    rows: usize,
    /// [panels, padded B, W].
    affinities: Vec<f32>,
    /// [B, N].
    logits: Vec<f32>,
    /// [items, 2, B]: sums of classes that two items share.
    edges: Vec<f32>,
    /// G·β·w, [B, N].
    gradient: Vec<f32>,
    /// Panels done in the pass that runs.
    done: usize,
}

impl Packed {
    /// `mixed`: bfloat16 products where the processor gains by them.
    pub fn new(isa: Isa, mixed: bool, start: &Start) -> Result<Self, HeadError> {
        let width = start.keys.size()[1] as usize;
        let keys = Plain::new(start.keys)?;
        let pack =
            |dtype| Panels::pack(isa, dtype, keys.values(), width, Some(&start.sorted.order));
        let copy = match products(isa, KeyDtype::Bf16) {
            products if mixed && products != Products::F32 => {
                Some((pack(KeyDtype::Bf16), products))
            }
            _ => None,
        };
        let keys = pack(KeyDtype::F32);
        let linear = match start.linear {
            Some(linear) => {
                let linear = Plain::new(linear)?;
                Some(Panels::pack(
                    isa,
                    KeyDtype::F32,
                    linear.values(),
                    width,
                    None,
                ))
            }
            None => None,
        };
        let bias = match start.bias {
            Some(bias) => {
                let mut bias = Plain::new(bias)?.values().to_vec();
                bias.resize(bias.len().next_multiple_of(isa.panel()), 0.0);
                Some(bias)
            }
            None => None,
        };
        let numbers = keys.size_bytes() / 4;
        let mut place = vec![0u32; keys.rows()];
        for (at, &row) in start.sorted.order.iter().enumerate() {
            place[row as usize] = at as u32;
        }
        Ok(Self {
            isa,
            classes: start.classes,
            width,
            linear,
            bias,
            weight: Plain::new(&start.weight)?.values().to_vec(),
            beta: start.beta as f32,
            segments: Segments::new(&start.sorted.labels, isa.panel()),
            moments: [vec![0.0; numbers], vec![0.0; numbers]],
            place,
            labels: start.sorted.labels.clone(),
            keys,
            copy,
            batch: Batch::default(),
        })
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
}

impl Weights for Packed {
    fn begin(&mut self, features: &Tensor) -> Result<(), HeadError> {
        let features = Plain::new(features)?;
        let features = features.values();
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
        Ok(())
    }

    fn forward(&mut self, work: usize) -> Result<bool, HeadError> {
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
        Ok(end == self.keys.count())
    }

    fn logits(&mut self) -> Result<Tensor, HeadError> {
        self.batch.done = 0;
        filled([self.batch.rows, self.classes], |out| {
            out.copy_from_slice(&self.batch.logits);
        })
    }

    fn backward(
        &mut self,
        gradient: &Tensor,
        adamw: &AdamW,
        work: usize,
    ) -> Result<bool, HeadError> {
        let Batch { rows, done, .. } = self.batch;
        if done == 0 {
            let scale = Tensor::f_from_slice(&self.weight)?.f_mul_scalar(f64::from(self.beta))?;
            let gradient = Plain::new(&gradient.f_mul(&scale)?)?;
            self.batch.gradient.clear();
            self.batch.gradient.extend_from_slice(gradient.values());
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
        Ok(end == self.keys.count())
    }

    fn score(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        let features = Plain::new(features)?;
        let features = features.values();
        let rows = features.len() / self.width;
        filled([rows, self.classes], |out| {
            self.linear_logits(features, rows, out);
            let panels = 0..self.keys.count();
            self.cache_logits(features, rows, panels, out, &mut Vec::new(), None);
        })
    }

    fn own(&self, features: &Tensor, keys: &[usize]) -> Result<Tensor, HeadError> {
        let features = Plain::new(features)?;
        let panel = self.isa.panel();
        let own: Vec<f32> = features
            .values()
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
            .collect();
        Ok(Tensor::f_from_slice(&own)?)
    }

    fn keys(&self) -> Result<Tensor, HeadError> {
        let packed = self.keys.unpack();
        let order: Vec<i64> = self.place.iter().map(|&at| i64::from(at)).collect();
        Ok(Tensor::f_from_slice(&packed)?
            .f_view([order.len() as i64, self.width as i64])?
            .f_index_select(0, &Tensor::f_from_slice(&order)?)?)
    }

    fn device(&self) -> Device {
        Device::Cpu
    }
}

/// Rows of a batch, or dimensions, rounded up for bfloat16 products.
fn padded(rows: usize) -> usize {
    rows.next_multiple_of(BF16_STEP)
}
