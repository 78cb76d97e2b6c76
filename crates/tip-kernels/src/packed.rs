//! The head on x86-64 processors with AVX2 or AVX-512: packed keys, our own
//! kernels. See [`super::kernel`] for why.

mod keys;
mod plan;

use super::{
    amx,
    kernel::{self, Features, Finish, Item, Products, Segments},
    panels::Panels,
    team::{self, Shards},
};
use tip_spec::KeyDtype;

pub use super::{
    panels::Isa,
    source::{CacheSource, Source},
};
pub use keys::PackedKeys;
use plan::Plan;

/// Multiplications under which waking other threads costs more than it brings.
const ALONE: usize = 1 << 21;

/// A head packed for the CPU's instruction set: what a resident cache serves
/// from.
pub struct Packed {
    classes: usize,
    width: usize,
    linear: Option<Panels>,
    /// Padded to whole panels if there is a linear part, else [N].
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

    /// Multiply-adds that one row of features costs: the unit in which work is
    /// split over threads.
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
        self.linear_logits(features, rows, out, alone);
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
        run(alone, plan.items(), &|i| {
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

    /// bias + f·Lᵀ into `out` ([B, N]).
    fn linear_logits(&self, features: &[f32], rows: usize, out: &mut [f32], alone: bool) {
        match &self.linear {
            Some(panels) => {
                // SAFETY: [rows, width], alive throughout.
                let features =
                    unsafe { Features::new(features.as_ptr(), rows, panels, Products::F32) };
                let plan = Plan::new(panels.count(), rows, alone);
                let target = Shards::new(out.as_mut_ptr());
                run(alone, plan.items(), &|i| {
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
    }
}

/// Calls `body` for each of `0..items`, on this thread `alone` or on all.
fn run(alone: bool, items: usize, body: &(dyn Fn(usize) + Sync)) {
    if alone {
        (0..items).for_each(body);
    } else {
        team::run(items, body);
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
