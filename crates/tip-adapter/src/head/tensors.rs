//! A head as it is made and stored, and whether its parts fit together.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::HeadError;
use crate::dimensions::row_count;
use crate::standardise::Standardise;
use tip_spec::HeadSpec;

/// V, the values of the keys.
#[derive(Debug)]
pub enum Values {
    /// One-hot labels times a weight per class.
    OneHot {
        /// int64 [M], each in 0..N, in any order.
        labels: Tensor,
        /// f32 [N]: α, times the class's factor under `ClassBalance::Mean`.
        weight: Tensor,
    },
    /// V as it is, f32 [M, N]: ProKeR's.
    Dense(Tensor),
}

/// A head's tensors as they are made and stored, f32 on the CPU.
#[derive(Debug)]
pub struct HeadTensors {
    /// N: given, never taken from the largest label.
    pub classes: usize,
    /// L [N, D]; none if only the cache decides.
    pub linear: Option<Tensor>,
    /// b [N]; none if it is zero.
    pub bias: Option<Tensor>,
    /// K [M, D] (unit rows, but for trained keys) and V.
    pub cache: Option<(Tensor, Values)>,
    /// What sees standardised features; none if everything sees the plain
    /// ones.
    pub standardised: Option<StandardisedPart>,
}

/// What a head computes on standardised features f′ instead of the plain f:
/// `f′·L′ᵀ`, and the affinities to its keys, `exp(−β(1 − f′·Kᵀ))·V`. L and b
/// keep the plain ones.
#[derive(Debug)]
pub struct StandardisedPart {
    /// What makes f′ of f.
    pub by: Standardise,
    /// L′ [N, D]; none if only the keys see standardised features.
    pub linear: Option<Tensor>,
}

impl HeadTensors {
    /// The same tensors, sharing memory.
    pub(crate) fn shallow_clone(&self) -> Self {
        let tensor = |t: &Option<Tensor>| t.as_ref().map(Tensor::shallow_clone);
        Self {
            classes: self.classes,
            linear: tensor(&self.linear),
            bias: tensor(&self.bias),
            cache: self.cache.as_ref().map(|(keys, values)| {
                let values = match values {
                    Values::OneHot { labels, weight } => Values::OneHot {
                        labels: labels.shallow_clone(),
                        weight: weight.shallow_clone(),
                    },
                    Values::Dense(values) => Values::Dense(values.shallow_clone()),
                };
                (keys.shallow_clone(), values)
            }),
            standardised: self.standardised.as_ref().map(|part| StandardisedPart {
                by: part.by.shallow_clone(),
                linear: tensor(&part.linear),
            }),
        }
    }
}

/// N and D, if everything fits together.
pub(super) fn check(spec: &HeadSpec, tensors: &HeadTensors) -> Result<(usize, usize), HeadError> {
    let classes = tensors.classes;
    let n = classes as i64;
    let keys = tensors.cache.as_ref().map(|(keys, _)| keys);
    let part = tensors.standardised.as_ref();
    let inner = part.and_then(|part| part.linear.as_ref());
    let width = [("L", tensors.linear.as_ref()), ("L′", inner), ("K", keys)]
        .into_iter()
        .find_map(|(what, t)| t.map(|t| (what, t.size())));
    let width = match width {
        Some((_, size)) if size.len() == 2 && size[1] > 0 => size[1],
        Some((what, found)) => {
            return Err(HeadError::Shape {
                what,
                found,
                expected: "two dimensions, the second the width".into(),
            });
        }
        None => {
            return Err(HeadError::Empty {
                classes,
                what: "neither a linear part nor keys",
            });
        }
    };
    if classes == 0 {
        return Err(HeadError::Empty {
            classes,
            what: "no class",
        });
    }
    if u32::try_from(classes).is_err() {
        return Err(HeadError::TooMany {
            what: "classes",
            count: classes,
            limit: u32::MAX as usize,
        });
    }
    let shape = |what, t: &Tensor, expected: &[i64]| {
        if t.size() == expected {
            Ok(())
        } else {
            Err(HeadError::Shape {
                what,
                found: t.size(),
                expected: format!("{expected:?}"),
            })
        }
    };
    if let Some(linear) = &tensors.linear {
        shape("L", linear, &[n, width])?;
    }
    if let Some(bias) = &tensors.bias {
        shape("b", bias, &[n])?;
    }
    if let Some(inner) = inner {
        shape("L′", inner, &[n, width])?;
    }
    if let Some(part) = part {
        shape("the shift of the features", &part.by.shift, &[width])?;
        shape("the scale of the features", &part.by.scale, &[width])?;
    }
    if let Some((keys, values)) = &tensors.cache {
        if !spec.beta.is_finite() {
            return Err(HeadError::NotFinite {
                what: "β",
                value: spec.beta,
            });
        }
        let m = count("keys", keys)? as i64;
        shape("K", keys, &[m, width])?;
        match values {
            Values::OneHot { labels, weight } => {
                shape("labels", labels, &[m])?;
                shape("the weights of the classes", weight, &[n])?;
            }
            Values::Dense(values) => shape("V", values, &[m, n])?,
        }
    }
    Ok((classes, width as usize))
}

/// Rows of a tensor, if they can be numbered in 32 bits.
pub(super) fn count(what: &'static str, t: &Tensor) -> Result<usize, HeadError> {
    let count = row_count(t)? as usize;
    if u32::try_from(count).is_err() {
        return Err(HeadError::TooMany {
            what,
            count,
            limit: u32::MAX as usize,
        });
    }
    Ok(count)
}

/// Keys in the order of their classes, within a class as they were given.
pub(crate) struct Sorted {
    pub(crate) labels: Vec<u32>,
    pub(crate) order: Arc<[u32]>,
}

/// Sorts labels (int64 [M]), each in 0..`classes`.
pub(crate) fn sort(labels: &Tensor, classes: usize) -> Result<Sorted, HeadError> {
    let labels = labels
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Int64)?
        .f_contiguous()?;
    let labels = Vec::<i64>::try_from(&labels)?;
    if let Some((row, &label)) = labels
        .iter()
        .enumerate()
        .find(|&(_, &label)| label < 0 || label >= classes as i64)
    {
        return Err(HeadError::Label {
            row,
            label,
            classes,
        });
    }
    let mut order: Vec<u32> = (0..labels.len() as u32).collect();
    order.sort_by_key(|&row| labels[row as usize]);
    Ok(Sorted {
        labels: order
            .iter()
            .map(|&row| labels[row as usize] as u32)
            .collect(),
        order: order.into(),
    })
}

impl Sorted {
    pub(crate) fn order_tensor(&self) -> Result<Tensor, HeadError> {
        let order: Vec<i64> = self.order.iter().map(|&row| i64::from(row)).collect();
        Ok(Tensor::f_from_slice(&order)?)
    }
}
