//! A resident head in the form that computes it: packed for our kernels, or
//! as torch operators have it.

use tch::{Device, Kind, Tensor};

use super::{
    HeadError, HeadTensors, Plain, Sorted, Values,
    operators::{self, OperatorKeys, Operators},
    packed::{self, Isa, Packed, PackedKeys},
};
use tip_spec::{HeadSpec, KeyDtype};

/// The numbers of a resident head.
pub(super) enum Form {
    Packed(Packed),
    Operators(Operators),
}

impl Form {
    /// Packs a head of `width`, checked, whose keys are those of `cache`.
    pub(super) fn packed(
        isa: Isa,
        spec: &HeadSpec,
        tensors: &HeadTensors,
        width: usize,
        cache: Option<&(Tensor, Values)>,
        sorted: Option<&Sorted>,
    ) -> Result<Self, HeadError> {
        let linear = tensors.linear.as_ref().map(Plain::new).transpose()?;
        let bias = tensors.bias.as_ref().map(Plain::new).transpose()?;
        let cache = match (cache, sorted) {
            (Some((keys, Values::OneHot { weight, .. })), Some(sorted)) => {
                Some((Plain::new(keys)?, Plain::new(weight)?, sorted))
            }
            _ => None,
        };
        Ok(Self::Packed(Packed::new(
            isa,
            &packed::Source {
                classes: tensors.classes,
                width,
                linear: linear.as_ref().map(Plain::values),
                bias: bias.as_ref().map(Plain::values),
                cache: cache
                    .as_ref()
                    .map(|(keys, weight, sorted)| packed::CacheSource {
                        keys: keys.values(),
                        sorted_labels: &sorted.labels,
                        order: sorted.order.clone(),
                        weight: weight.values(),
                        beta: spec.beta as f32,
                    }),
                dtype: spec.key_dtype,
            },
        )))
    }

    /// The same on `device`, for torch operators.
    pub(super) fn operators(
        device: Device,
        spec: &HeadSpec,
        tensors: &HeadTensors,
        cache: Option<&(Tensor, Values)>,
        sorted: Option<&Sorted>,
    ) -> Result<Self, HeadError> {
        let order = sorted.map(Sorted::order_tensor).transpose()?;
        let source = match (cache, sorted, &order) {
            (Some((keys, Values::OneHot { weight, .. })), Some(sorted), Some(order)) => Some((
                keys,
                operators::Source::OneHot {
                    sorted_labels: &sorted.labels,
                    order,
                    weight,
                },
            )),
            (Some((keys, Values::Dense(values))), ..) => {
                Some((keys, operators::Source::Dense(values)))
            }
            _ => None,
        };
        let kind = kind(spec.key_dtype);
        Ok(Self::Operators(Operators::new(
            device,
            tensors.classes as i64,
            tensors.linear.as_ref(),
            tensors.bias.as_ref(),
            tensors.standardised.as_ref(),
            source.map(|(keys, source)| (keys, source, spec.beta, kind)),
        )?))
    }

    /// The keys that the formula computes affinities to; none in a linear head.
    pub(super) fn keys(&self) -> Option<Keys<'_>> {
        match self {
            Self::Packed(packed) => packed.keys().map(Keys::Packed),
            Self::Operators(operators) => operators.keys().map(Keys::Operators),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.size_bytes(),
            Self::Operators(operators) => operators.size_bytes(),
        }
    }

    /// What it computes with, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Packed(packed) => packed.describe(),
            Self::Operators(_) => "torch operators".into(),
        }
    }
}

/// Resident keys, to be searched among.
#[derive(Clone, Copy)]
pub(super) enum Keys<'a> {
    Packed(&'a PackedKeys),
    Operators(&'a OperatorKeys),
}

impl Keys<'_> {
    /// Whether they are these keys ([M, D]), as far as their format can tell.
    pub(super) fn hold(self, keys: &Tensor) -> Result<bool, HeadError> {
        match self {
            Self::Packed(own) => Ok(own.hold(Plain::new(keys)?.values())),
            Self::Operators(own) => own.hold(keys),
        }
    }

    /// The min(`k`, M) nearest to each of `features` ([B, D]), best first:
    /// rows (int64) and cosines (f32), [B, k].
    pub(super) fn nearest(
        self,
        features: &Tensor,
        k: usize,
    ) -> Result<(Tensor, Tensor), HeadError> {
        match self {
            Self::Packed(keys) => {
                let rows = features.size()[0];
                let features = Plain::new(features)?;
                let k = k.min(keys.count());
                let (at, cosines) = keys.nearest(features.values(), rows as usize, k);
                let shape = [rows, k as i64];
                Ok((
                    Tensor::f_from_slice(&at)?.f_view(shape)?,
                    Tensor::f_from_slice(&cosines)?.f_view(shape)?,
                ))
            }
            Self::Operators(keys) => {
                let k = (k as i64).min(keys.count());
                let features = features
                    .f_to_device(keys.device())?
                    .f_to_kind(Kind::Float)?;
                keys.nearest(&features, k)
            }
        }
    }
}

/// The keys that neighbours are searched among.
pub(super) enum Examples {
    None,
    /// The same keys that the formula has: nothing is held twice.
    Shared,
    Packed(PackedKeys),
    Operators(OperatorKeys),
}

impl Examples {
    /// Keys ([M, D]) of their own, in the format and the place of the head's.
    pub(super) fn new(
        keys: &Tensor,
        isa: Option<Isa>,
        dtype: KeyDtype,
        device: Device,
    ) -> Result<Self, HeadError> {
        match isa {
            Some(isa) => {
                let width = keys.size()[1] as usize;
                let keys = Plain::new(keys)?;
                Ok(Self::Packed(PackedKeys::new(
                    isa,
                    dtype,
                    keys.values(),
                    width,
                    None,
                )))
            }
            None => Ok(Self::Operators(OperatorKeys::new(
                keys,
                None,
                device,
                kind(dtype),
            )?)),
        }
    }

    /// The keys, if there are some; `own` are the formula's.
    pub(super) fn keys<'a>(&'a self, own: &'a Form) -> Option<Keys<'a>> {
        match self {
            Self::None => None,
            Self::Shared => own.keys(),
            Self::Packed(keys) => Some(Keys::Packed(keys)),
            Self::Operators(keys) => Some(Keys::Operators(keys)),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::None | Self::Shared => 0,
            Self::Packed(keys) => keys.size_bytes(),
            Self::Operators(keys) => keys.size_bytes(),
        }
    }
}

fn kind(dtype: KeyDtype) -> Kind {
    match dtype {
        KeyDtype::F32 => Kind::Float,
        KeyDtype::Bf16 => Kind::BFloat16,
        KeyDtype::F16 => Kind::Half,
    }
}
