//! What an encoder computes in: a float format, or 8-bit integers.

use std::fmt;

use tch::Kind;

/// What an encoder computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit float, whatever the device.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// IEEE half.
    Float16,
    /// Products of 8-bit integers, summed in 32 bits; everything between them
    /// is 32-bit float.
    Int8,
}

impl Precision {
    /// Its name: `float32`, `bfloat16`, `float16`, `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
        }
    }

    /// The format of the tensors that go in.
    pub fn input_kind(self) -> Kind {
        match self {
            Self::Float32 | Self::Int8 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
            Self::Float16 => Kind::Half,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A float format; float32 for whatever no encoder is loaded as.
impl From<Kind> for Precision {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::BFloat16 => Self::Bfloat16,
            Kind::Half => Self::Float16,
            _ => Self::Float32,
        }
    }
}

/// Whether this CPU multiplies 8-bit integers fast, and exactly: with AVX-512
/// VNNI (which every CPU with AMX-INT8 has too) or AVX-VNNI.
///
/// Older x86 CPUs add pairs of products in 16 bits, which overflow with
/// unsigned activations of a full 8 bits.
#[cfg(target_arch = "x86_64")]
pub fn has_int8_products() -> bool {
    std::arch::is_x86_feature_detected!("avx512vnni")
        || std::arch::is_x86_feature_detected!("avxvnni")
}

/// Not measured on other processors, and so not used there.
#[cfg(not(target_arch = "x86_64"))]
pub fn has_int8_products() -> bool {
    false
}
