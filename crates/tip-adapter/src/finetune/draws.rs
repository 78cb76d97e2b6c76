//! Which examples a step takes, and which view of each.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::{Device, Kind, Tensor};

use super::{Options, TrainError, TrainingSet};

/// Draws batches: every example once an epoch, in random order, by a random
/// one of its views.
pub(super) struct Draws {
    /// [M·R, D], each example's R views in adjacent rows.
    views: Tensor,
    /// R, the views of each example.
    views_each: usize,
    /// The view of each example that is never drawn.
    held_back: Option<Vec<usize>>,
    rng: StdRng,
    order: Vec<usize>,
    /// The first of `order` that the epoch has not had.
    next: usize,
    batch_size: usize,
}

impl Draws {
    /// `set` is checked: `views_each` views of width `width` for each example.
    /// Without validation examples one view of each is held back, where there
    /// are two or more.
    pub fn new(
        set: &TrainingSet,
        options: &Options,
        (views_each, width): (usize, i64),
    ) -> Result<Self, TrainError> {
        let examples = set.keys.size()[0] as usize;
        let mut rng = StdRng::seed_from_u64(options.seed);
        let held_back = (set.validation.is_none() && views_each > 1).then(|| {
            (0..examples)
                .map(|_| rng.random_range(0..views_each))
                .collect()
        });
        Ok(Self {
            views: set
                .views
                .f_to_device(Device::Cpu)?
                .f_contiguous()?
                .f_view([(examples * views_each) as i64, width])?,
            views_each,
            held_back,
            rng,
            order: (0..examples).collect(),
            next: examples,
            batch_size: options.batch_size,
        })
    }

    /// Whether every example of the epoch is drawn.
    pub fn exhausted(&self) -> bool {
        self.next >= self.order.len()
    }

    /// Puts the examples in a new order, for another epoch.
    pub fn shuffle(&mut self) {
        self.order.shuffle(&mut self.rng);
        self.next = 0;
    }

    /// The examples of the next batch, and one view of each, [B, D], unit rows.
    pub fn batch(&mut self) -> Result<(Vec<usize>, Tensor), TrainError> {
        let end = (self.next + self.batch_size).min(self.order.len());
        let batch = self.order[self.next..end].to_vec();
        self.next = end;
        let mut rows = Vec::with_capacity(batch.len());
        for &example in &batch {
            let view = match &self.held_back {
                Some(held) => {
                    let view = self.rng.random_range(0..self.views_each - 1);
                    view + usize::from(view >= held[example])
                }
                None => self.rng.random_range(0..self.views_each),
            };
            rows.push(self.row(example, view));
        }
        let features = self.features(&rows)?;
        Ok((batch, features))
    }

    /// The view of each example that is never drawn, [M, D], unit rows.
    pub fn held_back(&self) -> Result<Option<Tensor>, TrainError> {
        let Some(held) = &self.held_back else {
            return Ok(None);
        };
        let rows: Vec<i64> = held
            .iter()
            .enumerate()
            .map(|(example, &view)| self.row(example, view))
            .collect();
        Ok(Some(self.features(&rows)?))
    }

    fn row(&self, example: usize, view: usize) -> i64 {
        (example * self.views_each + view) as i64
    }

    fn features(&self, rows: &[i64]) -> Result<Tensor, TrainError> {
        let views = self.views.f_index_select(0, &Tensor::f_from_slice(rows)?)?;
        Ok(unit(&views)?)
    }
}

/// Rows in f32 on the CPU, each divided by its norm.
pub(super) fn unit(t: &Tensor) -> Result<Tensor, tch::TchError> {
    let t = t.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let norm = t
        .f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?
        .f_sqrt()?
        .f_clamp_min(1e-12)?;
    t.f_div(&norm)
}
