//! The one head that serves every method:
//! `logits = f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V`.
//!
//! [`HeadTensors`] is a head as it is made and stored; [`Head`] is one that is
//! resident on a device, ready to serve. On x86-64 with AVX2 or AVX-512 a head
//! with one-hot values runs in kernels of our own ([`kernel`]); on CUDA, with
//! dense values or standardised features, and everywhere else it runs in torch operators
//! ([`operators`]). Neither ever holds [B, M].

use tch::{Device, Kind, Tensor};

use super::spec::{HeadSpec, KeyDtype, Method};

mod backend;
mod error;
mod form;
pub(super) mod operators;
mod plain;
mod tensors;

pub use backend::Backend;
pub use error::HeadError;
use form::{Examples, Form};
use operators::Operators;
pub(super) use plain::{Plain, filled};
pub use tensors::{HeadTensors, StandardisedPart, Values};
pub(super) use tensors::{Sorted, sort};
use tensors::{check, count};
use tip_kernels::{
    Isa,
    packed::{self, Packed},
};

/// The kernels share torch's own threads.
pub(crate) fn use_torch_threads() {
    tip_kernels::team::set_threads(|| usize::try_from(tch::get_num_threads()).unwrap_or(1));
}

/// A head resident on a device: immutable, shared by every request.
pub struct Head {
    classes: usize,
    width: usize,
    device: Device,
    dtype: KeyDtype,
    isa: Option<Isa>,
    form: Form,
    examples: Examples,
}

#[allow(unsafe_code)]
// SAFETY: what keeps `Head` from being Sync are its `Tensor`s, which are
// `Send`. They are written at construction only, no method hands them out, and
// torch's operators may read one tensor from several threads at once.
unsafe impl Sync for Head {}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("classes", &self.classes)
            .field("width", &self.width)
            .field("device", &self.device)
            .field("backend", &self.describe())
            .finish_non_exhaustive()
    }
}

impl Head {
    /// Makes a head resident on `device`.
    ///
    /// # Errors
    /// Shapes that do not fit together, labels outside 0..N, numbers that are
    /// not finite, or torch's own (memory).
    pub fn new(spec: &HeadSpec, tensors: &HeadTensors, device: Device) -> Result<Self, HeadError> {
        Self::on(spec, tensors, device, Backend::Automatic)
    }

    /// [`Head::new`] on a backend of the caller's choice; for tests and
    /// measurements.
    ///
    /// # Errors
    /// Those of [`Head::new`], and [`HeadError::Backend`] where this machine,
    /// this device or these values do not run on it.
    pub fn on(
        spec: &HeadSpec,
        tensors: &HeadTensors,
        device: Device,
        backend: Backend,
    ) -> Result<Self, HeadError> {
        let (classes, width) = check(spec, tensors)?;
        // Keys of none are no cache.
        let cache = tensors
            .cache
            .as_ref()
            .filter(|(keys, _)| keys.size()[0] > 0);
        let dense = matches!(cache, Some((_, Values::Dense(_))));
        let plain = tensors.standardised.is_none();
        let isa = backend::isa(backend, device, dense || !plain)?;
        let sorted = match cache {
            Some((_, Values::OneHot { labels, .. })) => Some(sort(labels, classes)?),
            _ => None,
        };
        let form = match isa {
            Some(isa) => Form::packed(isa, spec, tensors, width, cache, sorted.as_ref())?,
            None => Form::operators(device, spec, tensors, cache, sorted.as_ref())?,
        };
        // Trained keys are no longer anyone's picture, and standardised ones
        // give other cosines.
        let examples = match cache {
            Some(_) if plain && spec.method != Method::TipAdapterF => Examples::Shared,
            _ => Examples::None,
        };
        Ok(Self {
            classes,
            width,
            device,
            dtype: spec.key_dtype,
            isa,
            form,
            examples,
        })
    }

    /// Gives the head the examples' keys ([M, D], unit rows) to find
    /// neighbours among: needed where the formula has no keys (GDA, class
    /// means, zero-shot) or trained ones. Where they are the formula's own
    /// keys, number by number, these serve for both and nothing is copied.
    ///
    /// # Errors
    /// A width that is not the head's, or torch's own.
    pub fn with_examples(mut self, keys: &Tensor) -> Result<Self, HeadError> {
        let size = keys.size();
        if size.len() != 2 || size[1] != self.width as i64 {
            return Err(HeadError::Shape {
                what: "example keys",
                found: size,
                expected: format!("[M, {}]", self.width),
            });
        }
        count("keys", keys)?;
        let shared = match self.form.keys() {
            Some(own) => own.hold(keys)?,
            None => false,
        };
        self.examples = if size[0] == 0 {
            Examples::None
        } else if shared {
            Examples::Shared
        } else {
            Examples::new(keys, self.isa, self.dtype, self.device)?
        };
        Ok(self)
    }

    /// The logits of `features` (f32 [B, D], unit rows, on the head's device):
    /// f32 [B, N]. Each row's are the same, bit for bit, whatever rows are
    /// beside it, where our kernels compute them.
    ///
    /// # Errors
    /// Features of another width, or torch's own.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        let rows = self.rows(features)?;
        match &self.form {
            Form::Packed(packed) => {
                let features = Plain::new(features)?;
                filled([rows, self.classes], |out| {
                    packed.logits(features.values(), out, packed.small(rows));
                })
            }
            Form::Operators(operators) => Ok(
                operators.logits(&features.f_to_device(self.device)?.f_to_kind(Kind::Float)?)?
            ),
        }
    }

    /// The min(`k`, M) example keys nearest to each of `features` (as in
    /// [`Head::logits`]), best first: their rows as the examples were given
    /// (int64 [B, k]) and their cosines (f32 [B, k], as exact as the resident
    /// keys are). Equal cosines: the earlier row first.
    ///
    /// # Errors
    /// Features of another width, a head without example keys, or torch's own.
    pub fn neighbours(&self, features: &Tensor, k: usize) -> Result<(Tensor, Tensor), HeadError> {
        self.rows(features)?;
        self.examples
            .keys(&self.form)
            .ok_or(HeadError::NoExamples)?
            .nearest(features, k)
    }

    /// B, if the features fit the head.
    pub(super) fn rows(&self, features: &Tensor) -> Result<usize, HeadError> {
        match features.size()[..] {
            [rows, width] if width == self.width as i64 => Ok(rows as usize),
            _ => Err(HeadError::Shape {
                what: "features",
                found: features.size(),
                expected: format!("[B, {}]", self.width),
            }),
        }
    }

    /// Bytes that the head holds on its device.
    pub fn size_bytes(&self) -> usize {
        self.form.size_bytes() + self.examples.size_bytes()
    }

    /// N, the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// D, the width of a feature.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The device that it is resident on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes with, for people.
    pub fn describe(&self) -> String {
        self.form.describe()
    }

    pub(super) fn packed(&self) -> Option<&Packed> {
        match &self.form {
            Form::Packed(packed) => Some(packed),
            Form::Operators(_) => None,
        }
    }

    pub(super) fn operators(&self) -> Option<&Operators> {
        match &self.form {
            Form::Packed(_) => None,
            Form::Operators(operators) => Some(operators),
        }
    }
}
