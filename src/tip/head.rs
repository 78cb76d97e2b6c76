//! The one head that serves every method:
//! `logits = f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V`.
//!
//! [`HeadTensors`] is a head as it is made and stored; [`Head`] is one that is
//! resident on a device, ready to serve. On x86-64 with AVX2 or AVX-512 a head
//! with one-hot values runs in kernels of our own ([`kernel`]); on CUDA, with
//! dense values and everywhere else it runs in torch operators
//! ([`operators`]). Neither ever holds [B, M].

use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use thiserror::Error;

use super::spec::{HeadSpec, KeyDtype, Method};

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod kernel;
pub(super) mod operators;
#[cfg_attr(not(target_arch = "x86_64"), path = "head/packed_absent.rs")]
pub(super) mod packed;
#[cfg(target_arch = "x86_64")]
pub(super) mod panels;
#[cfg(target_arch = "x86_64")]
pub(super) mod simd;
pub(super) mod team;

use operators::{OperatorKeys, Operators};
use packed::{Isa, Packed, PackedKeys};

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
    /// f32 [M, N].
    Dense(Tensor),
}

/// A head's tensors as they are made and stored, f32 on the CPU.
#[derive(Debug)]
pub struct HeadTensors {
    /// N: given, never taken from the largest label.
    pub classes: usize,
    /// L [N, D]; none where only the cache decides.
    pub linear: Option<Tensor>,
    /// b [N].
    pub bias: Option<Tensor>,
    /// K [M, D] (unit rows, but for trained keys) and V.
    pub cache: Option<(Tensor, Values)>,
}

/// Why a head could not be made resident, or could not answer.
#[derive(Debug, Error)]
pub enum HeadError {
    /// A tensor's shape does not fit the others.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// What was expected, in words.
        expected: String,
    },
    /// A label is no class.
    #[error("label {label} of key {row} is outside 0..{classes}")]
    Label {
        /// The key.
        row: usize,
        /// Its label.
        label: i64,
        /// N.
        classes: usize,
    },
    /// More than the 32-bit row numbers hold.
    #[error("{count} {what} are more than the {limit} that a head can hold")]
    TooMany {
        /// Keys or classes.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A number in the specification that is not finite.
    #[error("{what} is {value}, which is not a finite number")]
    NotFinite {
        /// The number's name.
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// A head without classes, or of no width at all.
    #[error(
        "a head needs a class and a linear part or keys; this one has {classes} classes, {what}"
    )]
    Empty {
        /// N.
        classes: usize,
        /// What is missing.
        what: &'static str,
    },
    /// A row that the batch does not have.
    #[error("row {row} is outside the batch of {batch}")]
    Row {
        /// The row.
        row: i64,
        /// B.
        batch: i64,
    },
    /// Neighbours were asked of a head that holds no examples.
    #[error("the head holds no example keys to find neighbours among")]
    NoExamples,
    /// The kernels asked for are not to be had here.
    #[error("this machine cannot run a head on {0:?}")]
    Backend(Backend),
    /// torch failed: out of memory, most often.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}

/// What a head computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The fastest that the device has for this head.
    #[default]
    Automatic,
    /// torch operators: any device.
    Operators,
    /// Our kernels in AVX2 (with FMA and F16C).
    Avx2,
    /// Our kernels in AVX-512, in bfloat16 also AVX512-BF16 or AMX.
    Avx512,
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

enum Form {
    Packed(Packed),
    Operators(Operators),
}

/// The keys that neighbours are searched among.
enum Examples {
    None,
    /// The formula's own.
    Shared,
    Packed(PackedKeys),
    Operators(OperatorKeys),
}

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
        let isa = isa(backend, device, dense)?;
        let sorted = match cache {
            Some((_, Values::OneHot { labels, .. })) => Some(sort(labels, classes)?),
            _ => None,
        };

        let form = if let Some(isa) = isa {
            let linear = tensors.linear.as_ref().map(Plain::new).transpose()?;
            let bias = tensors.bias.as_ref().map(Plain::new).transpose()?;
            let plain = match (cache, &sorted) {
                (Some((keys, Values::OneHot { weight, .. })), Some(sorted)) => {
                    Some((Plain::new(keys)?, Plain::new(weight)?, sorted))
                }
                _ => None,
            };
            Form::Packed(Packed::new(
                isa,
                &packed::Source {
                    classes,
                    width,
                    linear: linear.as_ref().map(Plain::values),
                    bias: bias.as_ref().map(Plain::values),
                    cache: plain
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
            ))
        } else {
            let order = sorted.as_ref().map(Sorted::order_tensor).transpose()?;
            let source = match (cache, &sorted, &order) {
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
            Form::Operators(Operators::new(
                device,
                classes as i64,
                tensors.linear.as_ref(),
                tensors.bias.as_ref(),
                source.map(|(keys, source)| (keys, source, spec.beta, kind)),
            )?)
        };
        // Trained keys are no longer anyone's picture.
        let examples = match cache {
            Some(_) if spec.method != Method::TipAdapterF => Examples::Shared,
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
        let shared = match &self.form {
            Form::Packed(packed) => match packed.keys() {
                Some(own) => own.hold(Plain::new(keys)?.values()),
                None => false,
            },
            Form::Operators(operators) => match operators.keys() {
                Some(own) => own.hold(keys)?,
                None => false,
            },
        };
        self.examples = if size[0] == 0 {
            Examples::None
        } else if shared {
            Examples::Shared
        } else if let Some(isa) = self.isa {
            let keys = Plain::new(keys)?;
            Examples::Packed(PackedKeys::new(
                isa,
                self.dtype,
                keys.values(),
                self.width,
                None,
            ))
        } else {
            Examples::Operators(OperatorKeys::new(
                keys,
                None,
                self.device,
                kind(self.dtype),
            )?)
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
        let rows = self.rows(features)?;
        let shared = match (&self.examples, &self.form) {
            (Examples::Shared, Form::Packed(packed)) => packed.keys().map(Keys::Packed),
            (Examples::Shared, Form::Operators(operators)) => operators.keys().map(Keys::Operators),
            (Examples::Packed(keys), _) => Some(Keys::Packed(keys)),
            (Examples::Operators(keys), _) => Some(Keys::Operators(keys)),
            (Examples::None, _) => None,
        };
        match shared.ok_or(HeadError::NoExamples)? {
            Keys::Packed(keys) => {
                let features = Plain::new(features)?;
                let k = k.min(keys.count());
                let (at, cosines) = keys.nearest(features.values(), rows, k);
                let shape = [rows as i64, k as i64];
                Ok((
                    Tensor::f_from_slice(&at)?.f_view(shape)?,
                    Tensor::f_from_slice(&cosines)?.f_view(shape)?,
                ))
            }
            Keys::Operators(keys) => {
                let k = (k as i64).min(keys.count());
                let features = features.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
                keys.nearest(&features, k)
            }
        }
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
        let form = match &self.form {
            Form::Packed(packed) => packed.size_bytes(),
            Form::Operators(operators) => operators.size_bytes(),
        };
        form + match &self.examples {
            Examples::None | Examples::Shared => 0,
            Examples::Packed(keys) => keys.size_bytes(),
            Examples::Operators(keys) => keys.size_bytes(),
        }
    }

    /// N.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The device that it is resident on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes with, for people.
    pub fn describe(&self) -> String {
        match &self.form {
            Form::Packed(packed) => packed.describe(),
            Form::Operators(_) => "torch operators".into(),
        }
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

enum Keys<'a> {
    Packed(&'a PackedKeys),
    Operators(&'a OperatorKeys),
}

fn kind(dtype: KeyDtype) -> Kind {
    match dtype {
        KeyDtype::F32 => Kind::Float,
        KeyDtype::Bf16 => Kind::BFloat16,
        KeyDtype::F16 => Kind::Half,
    }
}

/// The kernels for a head, or none for operators.
fn isa(backend: Backend, device: Device, dense: bool) -> Result<Option<Isa>, HeadError> {
    let detected = Isa::detect().filter(|_| device == Device::Cpu && !dense);
    let found = match backend {
        Backend::Automatic => return Ok(detected),
        Backend::Operators => return Ok(None),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => detected.map(|_| Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512 => detected.filter(|isa| *isa == Isa::Avx512),
        #[cfg(not(target_arch = "x86_64"))]
        Backend::Avx2 | Backend::Avx512 => None,
    };
    found.map(Some).ok_or(HeadError::Backend(backend))
}

/// N and D, if everything fits together.
fn check(spec: &HeadSpec, tensors: &HeadTensors) -> Result<(usize, usize), HeadError> {
    let classes = tensors.classes;
    let n = classes as i64;
    let keys = tensors.cache.as_ref().map(|(keys, _)| keys);
    let width = [("L", tensors.linear.as_ref()), ("K", keys)]
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
fn count(what: &'static str, t: &Tensor) -> Result<usize, HeadError> {
    let count = t.size().first().copied().unwrap_or(0) as usize;
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
pub(super) struct Sorted {
    pub(super) labels: Vec<u32>,
    pub(super) order: Arc<[u32]>,
}

/// Sorts labels (int64 [M]), each in 0..`classes`.
pub(super) fn sort(labels: &Tensor, classes: usize) -> Result<Sorted, HeadError> {
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
    pub(super) fn order_tensor(&self) -> Result<Tensor, HeadError> {
        let order: Vec<i64> = self.order.iter().map(|&row| i64::from(row)).collect();
        Ok(Tensor::f_from_slice(&order)?)
    }
}

/// A tensor as plain numbers: f32, contiguous, on the CPU.
pub(super) struct Plain(Tensor);

impl Plain {
    pub(super) fn new(t: &Tensor) -> Result<Self, HeadError> {
        Ok(Self(
            t.f_to_device(Device::Cpu)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()?,
        ))
    }

    pub(super) fn values(&self) -> &[f32] {
        let count = self.0.numel();
        if count == 0 {
            return &[];
        }
        // SAFETY: contiguous f32 on the CPU, kept alive by self.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<f32>(), count) }
    }
}

/// A tensor of f32 on the CPU, its numbers written by `fill`, to which they
/// come as zeros.
pub(super) fn filled(
    shape: [usize; 2],
    fill: impl FnOnce(&mut [f32]),
) -> Result<Tensor, HeadError> {
    let t = Tensor::f_zeros(shape.map(|n| n as i64), (Kind::Float, Device::Cpu))?;
    let count = t.numel();
    if count > 0 {
        // SAFETY: contiguous f32 on the CPU, made here and shared with no one.
        fill(unsafe { std::slice::from_raw_parts_mut(t.data_ptr().cast::<f32>(), count) });
    }
    Ok(t)
}
