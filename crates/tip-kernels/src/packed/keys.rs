//! Packed keys, and the search among them.

use std::{collections::BinaryHeap, sync::Arc};

use super::{plan::Plan, products};
use crate::{
    kernel::{self, Features, Finish, Item, Products},
    panels::{Isa, Panels},
    team::{self, Shards},
};
use tip_spec::KeyDtype;

/// Keys to be searched among.
pub struct PackedKeys {
    pub(super) panels: Panels,
    pub(super) products: Products,
    /// The row that each packed key was; none if the same.
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
            // The item's rows only, so that the scores stay small.
            let mut scores = vec![0f32; row_range.len() * count];
            let first_row = row_range.start;
            kernel::compute(&Item {
                panels: &self.panels,
                features: &features,
                products: self.products,
                panel_range,
                row_range,
                finish: Finish::Dots {
                    beta: None,
                    out: Shards::new(scores.as_mut_ptr()),
                    ld: count,
                    first_row,
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

    /// The `k` best of the keys from `first` on, in no order.
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
