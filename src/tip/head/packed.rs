//! The head on x86-64 processors with AVX2 or AVX-512: packed keys, our own
//! kernels. See [`super::kernel`] for why.

use std::{collections::BinaryHeap, sync::Arc};

use super::{
    amx,
    kernel::{self, Features, Finish, Item, Products, Segments},
    panels::Panels,
    team::{self, Shards},
};
use crate::tip::spec::KeyDtype;

pub use super::panels::Isa;

/// Panels in an item of work, for heads of up to ITEMS times as many; more in
/// larger heads. Never a question of threads, so that sums never depend on them.
const ITEM_PANELS: usize = 8;
const ITEMS: usize = 256;
/// Rows in an item where there are too few panels to go round.
const ITEM_ROWS: usize = 64;
/// Multiplications under which waking other threads costs more than it brings.
const ALONE: usize = 1 << 21;

/// What `Packed::new` packs: plain slices, checked by the caller.
pub struct Source<'a> {
    pub classes: usize,
    pub width: usize,
    /// [N, D].
    pub linear: Option<&'a [f32]>,
    /// [N].
    pub bias: Option<&'a [f32]>,
    pub cache: Option<CacheSource<'a>>,
    pub dtype: KeyDtype,
}

/// Keys with one-hot values.
pub struct CacheSource<'a> {
    /// [M, D].
    pub keys: &'a [f32],
    /// Ascending, by `order`.
    pub sorted_labels: &'a [u32],
    /// The i-th sorted key's row.
    pub order: Arc<[u32]>,
    /// [N].
    pub weight: &'a [f32],
    pub beta: f32,
}

/// A resident head.
pub struct Packed {
    classes: usize,
    width: usize,
    linear: Option<Panels>,
    /// Padded to whole panels where there is a linear part, else [N].
    bias: Option<Vec<f32>>,
    cache: Option<Cache>,
}

struct Cache {
    keys: PackedKeys,
    segments: Segments,
    /// First and last class of each panel.
    spans: Vec<(u32, u32)>,
    weight: Vec<f32>,
    beta: f32,
}

/// Keys to be searched among.
pub struct PackedKeys {
    panels: Panels,
    products: Products,
    /// The row that each packed key was; none where the same.
    order: Option<Arc<[u32]>>,
}

impl PackedKeys {
    pub fn new(
        isa: Isa,
        dtype: KeyDtype,
        keys: &[f32],
        width: usize,
        order: Option<Arc<[u32]>>,
    ) -> Self {
        Self {
            panels: Panels::pack(isa, dtype, keys, width, order.as_deref()),
            products: products(isa, dtype),
            order,
        }
    }

    pub fn count(&self) -> usize {
        self.panels.rows()
    }

    /// Whether they are these keys ([M, D]), as far as their format can tell.
    pub fn hold(&self, keys: &[f32]) -> bool {
        self.panels.hold(keys, self.order.as_deref())
    }

    pub fn size_bytes(&self) -> usize {
        self.panels.size_bytes() + self.order.as_ref().map_or(0, |order| order.len() * 4)
    }
}

/// bfloat16 products where the processor gains by them: AMX multiplies them
/// sixteen times as fast as f32, and AMD's AVX512-BF16 twice as fast; Intel's
/// AVX512-BF16 no faster than f32, so there keys are widened and features stay
/// exact.
pub fn products(isa: Isa, dtype: KeyDtype) -> Products {
    if dtype != KeyDtype::Bf16 || isa != Isa::Avx512 {
        Products::F32
    } else if amx::available() {
        Products::Amx
    } else if is_x86_feature_detected!("avx512bf16") && amd() {
        Products::Bf16
    } else {
        Products::F32
    }
}

fn amd() -> bool {
    // "AuthenticAMD" in EBX, EDX, ECX.
    let id = std::arch::x86_64::__cpuid(0);
    (id.ebx, id.edx, id.ecx) == (0x6874_7541, 0x6974_6e65, 0x444d_4163)
}

impl Packed {
    pub fn new(isa: Isa, source: &Source) -> Self {
        let Source { classes, width, .. } = *source;
        let linear = source
            .linear
            .map(|linear| Panels::pack(isa, KeyDtype::F32, linear, width, None));
        let bias = source.bias.map(|bias| {
            let mut bias = bias.to_vec();
            if linear.is_some() {
                bias.resize(classes.next_multiple_of(isa.panel()), 0.0);
            }
            bias
        });
        let cache = source.cache.as_ref().map(|cache| Cache {
            keys: PackedKeys::new(
                isa,
                source.dtype,
                cache.keys,
                width,
                Some(cache.order.clone()),
            ),
            segments: Segments::new(cache.sorted_labels, isa.panel()),
            spans: cache
                .sorted_labels
                .chunks(isa.panel())
                .map(|labels| (labels[0], labels[labels.len() - 1]))
                .collect(),
            weight: cache.weight.to_vec(),
            beta: cache.beta,
        });
        Self {
            classes,
            width,
            linear,
            bias,
            cache,
        }
    }

    pub fn keys(&self) -> Option<&PackedKeys> {
        self.cache.as_ref().map(|cache| &cache.keys)
    }

    /// What it computes with, for people.
    pub fn describe(&self) -> String {
        let (isa, products) = match &self.cache {
            Some(cache) => (cache.keys.panels.isa(), cache.keys.products),
            None => match &self.linear {
                Some(linear) => (linear.isa(), Products::F32),
                None => return "nothing to compute".into(),
            },
        };
        let isa = match isa {
            Isa::Avx512 => "AVX-512",
            Isa::Avx2 => "AVX2",
        };
        match products {
            Products::F32 => format!("{isa} kernels, f32 products"),
            Products::Bf16 => format!("{isa} kernels, bfloat16 products by AVX512-BF16"),
            Products::Amx => format!("{isa} kernels, bfloat16 products by AMX"),
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.linear.as_ref().map_or(0, Panels::size_bytes)
            + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
            + self.cache.as_ref().map_or(0, |cache| {
                cache.keys.size_bytes()
                    + cache.segments.size_bytes()
                    + cache.spans.len() * 8
                    + cache.weight.len() * 4
            })
    }

    /// Multiplications for one row.
    pub fn work(&self) -> usize {
        (self.linear.as_ref().map_or(0, Panels::rows)
            + self.cache.as_ref().map_or(0, |cache| cache.keys.count()))
            * self.width
    }

    /// Whether `rows` rows are too little work to wake other threads for.
    pub fn small(&self, rows: usize) -> bool {
        rows.saturating_mul(self.work()) <= ALONE
    }

    /// Logits of `features` ([B, D]) into `out` ([B, N]), on this thread
    /// `alone` or on all.
    pub fn logits(&self, features: &[f32], out: &mut [f32], alone: bool) {
        let rows = out.len() / self.classes;
        if rows == 0 {
            return;
        }
        let each = |items: usize, body: &(dyn Fn(usize) + Sync)| {
            if alone {
                (0..items).for_each(body);
            } else {
                team::run(items, body);
            }
        };

        match &self.linear {
            Some(panels) => {
                // SAFETY: [rows, width], alive throughout.
                let features =
                    unsafe { Features::new(features.as_ptr(), rows, panels, Products::F32) };
                let plan = Plan::new(panels.count(), rows, alone);
                let target = Shards::new(out.as_mut_ptr());
                each(plan.items(), &|i| {
                    let (panel_range, row_range) = plan.item(i);
                    kernel::compute(&Item {
                        panels,
                        features: &features,
                        products: Products::F32,
                        panel_range,
                        row_range,
                        finish: Finish::Affine {
                            bias: self.bias.as_deref(),
                            out: target,
                            ld: self.classes,
                        },
                    });
                });
            }
            None => match &self.bias {
                Some(bias) => out
                    .chunks_exact_mut(self.classes)
                    .for_each(|row| row.copy_from_slice(bias)),
                None => out.fill(0.0),
            },
        }

        let Some(cache) = &self.cache else { return };
        let PackedKeys {
            panels, products, ..
        } = &cache.keys;
        // SAFETY: [rows, width], alive throughout.
        let features = unsafe { Features::new(features.as_ptr(), rows, panels, *products) };
        let plan = Plan::new(panels.count(), rows, alone);
        // A class cut by the border between two items gets its sums in two
        // places beside the logits, added up afterwards in order.
        let mut edges = vec![0f32; plan.panel_items() * 2 * rows];
        let edge_base = Shards::new(edges.as_mut_ptr());
        let target = Shards::new(out.as_mut_ptr());
        each(plan.items(), &|i| {
            let (panel_range, row_range) = plan.item(i);
            let (before, after) = cache.shared(&panel_range);
            // SAFETY: inside `edges`; a pair of [rows] for each run of panels,
            // and items with the same run have different rows.
            let edge = |side: usize| unsafe {
                Shards::new(edge_base.at((i / plan.row_items * 2 + side) * rows))
            };
            kernel::compute(&Item {
                panels,
                features: &features,
                products: *products,
                panel_range,
                row_range,
                finish: Finish::Classes {
                    beta: cache.beta,
                    segments: &cache.segments,
                    weight: &cache.weight,
                    out: target,
                    ld: self.classes,
                    before: before.map(|class| (class, edge(0))),
                    after: after.map(|class| (class, edge(1))),
                    keep: None,
                },
            });
        });
        let shared = |p| cache.shared(&plan.panel_range(p));
        kernel::add_edges(&edges, rows, shared, out, self.classes);
    }
}

impl Cache {
    /// The classes that a run of panels shares with the keys before and after.
    fn shared(&self, panels: &std::ops::Range<usize>) -> (Option<u32>, Option<u32>) {
        let first = self.spans[panels.start].0;
        let last = self.spans[panels.end - 1].1;
        let before = panels.start > 0 && self.spans[panels.start - 1].1 == first;
        let after = self
            .spans
            .get(panels.end)
            .is_some_and(|next| next.0 == last);
        (before.then_some(first), after.then_some(last))
    }
}

/// How panels × rows is cut into items.
struct Plan {
    panels: usize,
    rows: usize,
    item_panels: usize,
    item_rows: usize,
    row_items: usize,
}

impl Plan {
    fn new(panels: usize, rows: usize, alone: bool) -> Self {
        let item_panels = ITEM_PANELS.max(panels.div_ceil(ITEMS));
        let enough = alone || panels.div_ceil(item_panels) >= 4 * team::threads();
        let item_rows = if enough { rows } else { ITEM_ROWS };
        Self {
            panels,
            rows,
            item_panels,
            item_rows,
            row_items: rows.div_ceil(item_rows),
        }
    }

    fn panel_items(&self) -> usize {
        self.panels.div_ceil(self.item_panels)
    }

    fn items(&self) -> usize {
        self.panel_items() * self.row_items
    }

    fn panel_range(&self, p: usize) -> std::ops::Range<usize> {
        p * self.item_panels..((p + 1) * self.item_panels).min(self.panels)
    }

    fn item(&self, i: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let row = i % self.row_items * self.item_rows;
        (
            self.panel_range(i / self.row_items),
            row..(row + self.item_rows).min(self.rows),
        )
    }
}

/// A key found: ordered so that a heap's greatest is the one to give up first.
#[derive(Clone, Copy, PartialEq)]
struct Found {
    cosine: f32,
    row: u32,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Lower cosines first out, then later rows: ties go to the earlier row.
        other
            .cosine
            .total_cmp(&self.cosine)
            .then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PackedKeys {
    /// The `k` nearest keys of each row of `features` ([B, D]), best first:
    /// their rows and cosines, [B, k] each. `k` ≤ count.
    pub fn nearest(&self, features: &[f32], rows: usize, k: usize) -> (Vec<i64>, Vec<f32>) {
        let mut rows_out = vec![0i64; rows * k];
        let mut cosines_out = vec![0f32; rows * k];
        if rows_out.is_empty() {
            return (rows_out, cosines_out);
        }
        // SAFETY: [rows, width], alive throughout.
        let features =
            unsafe { Features::new(features.as_ptr(), rows, &self.panels, self.products) };
        let panel = self.panels.isa().panel();
        let plan = Plan::new(self.panels.count(), rows, false);
        let found: Vec<parking_lot::Mutex<Vec<Vec<Found>>>> =
            (0..plan.items()).map(|_| Default::default()).collect();
        team::run(plan.items(), &|i| {
            let (panel_range, row_range) = plan.item(i);
            let first = panel_range.start * panel;
            let count = (panel_range.end * panel).min(self.count()) - first;
            // The item's rows only, so that the scores stay small; the kernel
            // counts rows from the batch's first.
            let mut scores = vec![0f32; row_range.len() * count];
            let base = scores.as_mut_ptr().wrapping_sub(row_range.start * count);
            kernel::compute(&Item {
                panels: &self.panels,
                features: &features,
                products: self.products,
                panel_range,
                row_range,
                finish: Finish::Dots {
                    beta: None,
                    out: Shards::new(base),
                    ld: count,
                    first,
                },
            });
            *found[i].lock() = scores
                .chunks_exact(count)
                .map(|scores| self.best(scores, first, k))
                .collect();
        });
        for b in 0..rows {
            let mut all: Vec<Found> = Vec::new();
            for p in 0..plan.panel_items() {
                let item = p * plan.row_items + b / plan.item_rows;
                all.extend(&found[item].lock()[b % plan.item_rows]);
            }
            all.sort_unstable();
            for (j, found) in all.iter().take(k).enumerate() {
                rows_out[b * k + j] = i64::from(found.row);
                cosines_out[b * k + j] = found.cosine;
            }
        }
        (rows_out, cosines_out)
    }

    fn best(&self, scores: &[f32], first: usize, k: usize) -> Vec<Found> {
        let mut heap = BinaryHeap::with_capacity(k + 1);
        for (j, &cosine) in scores.iter().enumerate() {
            let row = match &self.order {
                Some(order) => order[first + j],
                None => (first + j) as u32,
            };
            let found = Found { cosine, row };
            if heap.len() < k {
                heap.push(found);
            } else if heap.peek().is_some_and(|worst| found < *worst) {
                heap.pop();
                heap.push(found);
            }
        }
        heap.into_vec()
    }
}
