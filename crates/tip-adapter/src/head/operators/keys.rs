//! Keys resident for torch operators: their cosines, their affinities, and the
//! nearest of them.

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use super::tiles::keys_in_a_tile;
use crate::head::HeadError;

/// Keys to be searched among.
pub struct OperatorKeys {
    /// [M, D], in the head's number format.
    pub(super) keys: Tensor,
    /// The row that each key was; none if the same.
    order: Option<Tensor>,
}

impl OperatorKeys {
    pub fn new(
        keys: &Tensor,
        order: Option<&Tensor>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, HeadError> {
        let keys = match order {
            Some(order) => keys.f_index_select(0, order)?,
            None => keys.f_contiguous()?,
        };
        Ok(Self {
            keys: keys.f_to_kind(kind)?.f_to_device(device)?,
            order: order.map(|order| order.f_to_device(device)).transpose()?,
        })
    }

    pub fn count(&self) -> i64 {
        self.keys.size()[0]
    }

    pub fn device(&self) -> Device {
        self.keys.device()
    }

    pub fn size_bytes(&self) -> usize {
        let of = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        of(&self.keys) + self.order.as_ref().map_or(0, of)
    }

    /// Whether they are these keys ([M, D]), as far as their format can tell.
    pub fn hold(&self, keys: &Tensor) -> Result<bool, HeadError> {
        if keys.size() != self.keys.size() {
            return Ok(false);
        }
        let keys = keys.f_to_device(self.keys.device())?;
        let keys = match &self.order {
            Some(order) => keys.f_index_select(0, order)?,
            None => keys,
        };
        Ok(keys.f_to_kind(self.keys.kind())?.f_equal(&self.keys)?)
    }

    pub(super) fn cosines(
        &self,
        features: &Tensor,
        start: i64,
        keys: i64,
    ) -> Result<Tensor, HeadError> {
        let keys = self.keys.f_narrow(0, start, keys)?.f_to_kind(Kind::Float)?;
        Ok(features.f_mm(&keys.f_tr()?)?)
    }

    /// The `k` nearest keys of each row, best first: rows and cosines, [B, k].
    pub fn nearest(&self, features: &Tensor, k: i64) -> Result<(Tensor, Tensor), HeadError> {
        let count = self.count();
        let most = keys_in_a_tile(self.keys.device(), features.size()[0]);
        let mut best: Option<(Tensor, Tensor)> = None;
        for start in (0..count).step_by(most as usize) {
            let keys = most.min(count - start);
            let cosines = self.cosines(features, start, keys)?;
            let (cosines, at) = cosines.f_topk(k.min(keys), 1, true, true)?;
            let at = at.f_add_scalar(start)?;
            best = Some(match best {
                None => (cosines, at),
                Some((was, was_at)) => {
                    let all = Tensor::f_cat(&[was, cosines], 1)?;
                    let (cosines, pick) = all.f_topk(k.min(all.size()[1]), 1, true, true)?;
                    let at = Tensor::f_cat(&[was_at, at], 1)?.f_gather(1, &pick, false)?;
                    (cosines, at)
                }
            });
        }
        let Some((cosines, at)) = best else {
            return Err(HeadError::NoExamples);
        };
        let rows = match &self.order {
            Some(order) => order.f_take(&at)?,
            None => at,
        };
        Ok((rows, cosines))
    }
}

/// exp(β·f·Kᵀ − β), for some keys at a time.
pub(super) struct ScaledProduct<'a> {
    keys: &'a OperatorKeys,
    /// β·f, in float32, or in the keys' format where the device multiplies
    /// that and sums in float32.
    features: Tensor,
    beta: f64,
    /// −β of each key, [M].
    offsets: &'a Tensor,
    halves: bool,
}

impl<'a> ScaledProduct<'a> {
    pub fn new(
        keys: &'a OperatorKeys,
        features: &Tensor,
        beta: f64,
        offsets: &'a Tensor,
    ) -> Result<Self, HeadError> {
        let kind = keys.keys.kind();
        let halves = kind != Kind::Float && sums_halves_in_float(keys.keys.device());
        // A rounding of the features is no coarser than that of the keys.
        let features = features.f_mul_scalar(beta)?;
        Ok(Self {
            keys,
            features: if halves {
                features.f_to_kind(kind)?
            } else {
                features
            },
            beta,
            offsets,
            halves,
        })
    }

    /// For `count` keys from `start` on, [B, count].
    pub fn affinities(&self, start: i64, count: i64) -> Result<Tensor, HeadError> {
        let keys = self.keys.keys.f_narrow(0, start, count)?;
        let mut x = if self.halves {
            let mut x = self.features.f_mm_dtype(&keys.f_tr()?, Kind::Float)?;
            x.f_sub_scalar_(self.beta)?
        } else {
            let keys = keys.f_to_kind(Kind::Float)?;
            let offsets = self.offsets.f_narrow(0, start, count)?;
            offsets.f_addmm(&self.features, &keys.f_tr()?)?
        };
        Ok(x.f_exp_()?)
    }
}

/// Whether a device gives float32 products of 16-bit factors: CUDA, where this
/// torch can; tried once.
fn sums_halves_in_float(device: Device) -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    if !device.is_cuda() {
        return false;
    }
    *TRIED.get_or_init(|| {
        [Kind::Half, Kind::BFloat16].into_iter().all(|kind| {
            Tensor::f_ones([16, 16], (kind, device))
                .and_then(|ones| ones.f_mm_dtype(&ones, Kind::Float))
                .and_then(|product| product.f_double_value(&[3, 5]))
                .is_ok_and(|sum| sum == 16.0)
        })
    })
}
