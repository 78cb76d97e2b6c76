//! The head in torch operators alone, for every device and for dense values:
//! CUDA, processors without our kernels, and ProKeR.

mod joined;
mod keys;
mod runs;
mod tiles;

use tch::{Device, Kind, Tensor};

use super::{HeadError, StandardisedPart};
use crate::standardise::Standardise;
pub use keys::OperatorKeys;
use keys::ScaledProduct;
use runs::{ByCount, Run};
use tiles::keys_in_a_tile;
pub use tiles::{Tile, tiles};

/// A head resident on a device, for torch operators.
pub struct Operators {
    classes: i64,
    linear: Option<Tensor>,
    bias: Option<Tensor>,
    standardised: Option<Standardised>,
    cache: Option<Cache>,
}

/// What the keys, and L′ with them, see of the features.
struct Standardised {
    by: Standardise,
    linear: Option<Tensor>,
}

struct Cache {
    keys: OperatorKeys,
    beta: f64,
    values: Values,
}

enum Values {
    /// Keys sorted by class. `labels` [M], `weight` [N].
    OneHot {
        labels: Tensor,
        weight: Tensor,
        sums: Sums,
        /// β once for each key, [M]: joined heads have different ones.
        betas: Tensor,
        /// The weight of each key's class, [M].
        factors: Tensor,
    },
    /// V as it is, [M, N].
    Dense(Tensor),
}

/// How the affinities of a class are summed.
enum Sums {
    /// By products with one-hot tiles; keys in the order of their classes.
    Tiles(Vec<Tile>),
    /// By adding up rows of equal length, a run of classes at a time.
    Runs {
        runs: Vec<Run>,
        /// −β of each key, [M].
        offsets: Tensor,
        /// int64, the class of each column of the runs; none if it is its
        /// number.
        columns: Option<Tensor>,
        /// The weight of each column.
        weight: Tensor,
    },
}

/// What the values of `Operators::new` are.
pub enum Source<'a> {
    /// Labels in ascending order, the order they came from, a weight per class.
    OneHot {
        sorted_labels: &'a [u32],
        order: &'a Tensor,
        weight: &'a Tensor,
    },
    /// V as it is, [M, N].
    Dense(&'a Tensor),
}

impl Operators {
    pub fn new(
        device: Device,
        classes: i64,
        linear: Option<&Tensor>,
        bias: Option<&Tensor>,
        standardised: Option<&StandardisedPart>,
        cache: Option<(&Tensor, Source, f64, Kind)>,
    ) -> Result<Self, HeadError> {
        let resident = |t: &Tensor| {
            t.f_to_device(device)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()
        };
        let cache = match cache {
            None => None,
            Some((keys, Source::Dense(values), beta, kind)) => Some(Cache {
                keys: OperatorKeys::new(keys, None, device, kind)?,
                beta,
                values: Values::Dense(resident(values)?),
            }),
            Some((
                keys,
                Source::OneHot {
                    sorted_labels,
                    order,
                    weight,
                },
                beta,
                kind,
            )) => {
                let by_count = ByCount::new(sorted_labels);
                let order = order.f_index_select(0, &Tensor::f_from_slice(&by_count.order)?)?;
                Some(Cache {
                    keys: OperatorKeys::new(keys, Some(&order), device, kind)?,
                    beta,
                    values: Values::one_hot(by_count, sorted_labels, resident(weight)?, beta)?,
                })
            }
        };
        Ok(Self {
            classes,
            linear: linear.map(resident).transpose()?,
            bias: bias.map(resident).transpose()?,
            standardised: standardised
                .map(|part| {
                    Ok::<_, HeadError>(Standardised {
                        by: Standardise {
                            shift: resident(&part.by.shift)?,
                            scale: resident(&part.by.scale)?,
                        },
                        linear: part.linear.as_ref().map(resident).transpose()?,
                    })
                })
                .transpose()?,
            cache,
        })
    }

    pub fn keys(&self) -> Option<&OperatorKeys> {
        self.cache.as_ref().map(|cache| &cache.keys)
    }

    pub fn size_bytes(&self) -> usize {
        let of = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        self.linear.as_ref().map_or(0, of)
            + self.bias.as_ref().map_or(0, of)
            + self.standardised.as_ref().map_or(0, |part| {
                of(&part.by.shift) + of(&part.by.scale) + part.linear.as_ref().map_or(0, of)
            })
            + self.cache.as_ref().map_or(0, |cache| {
                cache.keys.size_bytes()
                    + match &cache.values {
                        Values::OneHot {
                            labels,
                            weight,
                            betas,
                            factors,
                            sums,
                        } => {
                            let own = match sums {
                                Sums::Tiles(_) => 0,
                                Sums::Runs {
                                    offsets,
                                    columns,
                                    weight,
                                    ..
                                } => of(offsets) + of(weight) + columns.as_ref().map_or(0, of),
                            };
                            of(labels) + of(weight) + of(betas) + of(factors) + own
                        }
                        Values::Dense(values) => of(values),
                    }
            })
    }

    /// Logits of `features` (f32 [B, D] on the head's device): f32 [B, N].
    pub fn logits(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        let mut logits = linear_logits(
            self.linear.as_ref(),
            self.bias.as_ref(),
            self.classes,
            features,
        )?;
        let own;
        let seen = match &self.standardised {
            None => features,
            Some(part) => {
                own = part.by.apply(features)?;
                if let Some(linear) = &part.linear {
                    let _ = logits.f_addmm_(&own, &linear.f_tr()?)?;
                }
                &own
            }
        };
        if let Some(cache) = &self.cache {
            cache.add(seen, &mut logits)?;
        }
        Ok(logits)
    }
}

/// b + f·Lᵀ, f32 [B, N], on the features' device; what is missing is zero.
pub fn linear_logits(
    linear: Option<&Tensor>,
    bias: Option<&Tensor>,
    classes: i64,
    features: &Tensor,
) -> Result<Tensor, HeadError> {
    let rows = features.size()[0];
    Ok(match (linear, bias) {
        (Some(linear), Some(bias)) => bias.f_addmm(features, &linear.f_tr()?)?,
        (Some(linear), None) => features.f_mm(&linear.f_tr()?)?,
        (None, Some(bias)) => bias.f_unsqueeze(0)?.f_repeat([rows, 1])?,
        (None, None) => Tensor::f_zeros([rows, classes], (Kind::Float, features.device()))?,
    })
}

impl Values {
    /// One-hot values of the labels sorted as `by_count` has them; `weight`
    /// [N] is on the head's device.
    fn one_hot(
        by_count: ByCount,
        sorted_labels: &[u32],
        weight: Tensor,
        beta: f64,
    ) -> Result<Self, HeadError> {
        let device = weight.device();
        let labels = Tensor::f_from_slice(&by_count.labels)?.f_to_device(device)?;
        let betas = Tensor::f_full([labels.size()[0]], beta, (Kind::Float, device))?;
        let sums = if by_count.sorted {
            Sums::Tiles(tiles(sorted_labels))
        } else {
            let columns = Tensor::f_from_slice(&by_count.columns)?.f_to_device(device)?;
            let plain = (0..weight.size()[0]).eq(by_count.columns.iter().copied());
            Sums::Runs {
                runs: by_count.runs,
                offsets: betas.f_neg()?,
                weight: weight.f_index_select(0, &columns)?,
                columns: (!plain).then_some(columns),
            }
        };
        Ok(Self::OneHot {
            sums,
            betas,
            factors: weight.f_index_select(0, &labels)?,
            labels,
            weight,
        })
    }
}

impl Cache {
    /// Adds exp(−β(1 − f·Kᵀ))·V to `logits` ([B, N]), some keys at a time.
    fn add(&self, features: &Tensor, logits: &mut Tensor) -> Result<(), HeadError> {
        let rows = features.size()[0];
        let most = keys_in_a_tile(self.keys.device(), rows);
        match &self.values {
            Values::OneHot {
                sums:
                    Sums::Runs {
                        runs,
                        offsets,
                        columns,
                        weight,
                    },
                ..
            } => {
                let keys = ScaledProduct::new(&self.keys, features, self.beta, offsets)?;
                for part in runs.iter().flat_map(|run| run.cut(most)) {
                    let x = keys.affinities(part.start, part.classes * part.each)?;
                    let x = x.f_view([rows, part.classes, part.each])?;
                    let sums = x.f_sum_dim_intlist([2i64].as_slice(), false, Kind::Float)?;
                    let weight = weight.f_narrow(0, part.column, part.classes)?;
                    match columns {
                        None => {
                            let mut target = logits.f_narrow(1, part.column, part.classes)?;
                            let _ = target.f_addcmul_(&sums, &weight)?;
                        }
                        Some(columns) => {
                            // Each class once: adding has one order.
                            let columns = columns.f_narrow(0, part.column, part.classes)?;
                            let _ = logits.f_index_add_(1, &columns, &sums.f_mul(&weight)?)?;
                        }
                    }
                }
            }
            Values::OneHot {
                labels,
                weight,
                sums: Sums::Tiles(tiles),
                ..
            } => {
                for tile in tiles {
                    let affinities = self.affinities(features, tile.start, tile.keys)?;
                    let one_hot = tile.one_hot(labels, weight)?;
                    let mut target = logits.f_narrow(1, tile.class, tile.classes)?;
                    let _ = target.f_add_(&affinities.f_mm(&one_hot)?)?;
                }
            }
            Values::Dense(values) => {
                let count = self.keys.count();
                for start in (0..count).step_by(most as usize) {
                    let keys = most.min(count - start);
                    let affinities = self.affinities(features, start, keys)?;
                    let _ = logits.f_addmm_(&affinities, &values.f_narrow(0, start, keys)?)?;
                }
            }
        }
        Ok(())
    }

    /// exp(−β(1 − f·Kᵀ)) for some keys, [B, keys].
    fn affinities(&self, features: &Tensor, start: i64, keys: i64) -> Result<Tensor, HeadError> {
        let mut x = self.keys.cosines(features, start, keys)?;
        Ok(x.f_mul_scalar_(self.beta)?
            .f_sub_scalar_(self.beta)?
            .f_exp_()?)
    }
}
