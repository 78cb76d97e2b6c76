//! The arithmetic of a Tip-Adapter head on x86-64, without a tensor library:
//! slices in, slices out.
//!
//! A head answers a batch of unit features f ([B, D]) with the logits
//! `f·Lᵀ + b + exp(−β(1 − f·Kᵀ))·V`, V one-hot times a weight per class
//! (Zhang et al., ECCV 2022, equation 6). [B, M] is never held: keys are packed
//! in [`panels`], and a panel's affinities are reduced to class sums while they
//! are in the first-level cache.
//!
//! - [`packed::Packed`]: a resident head, and [`packed::PackedKeys`], keys to
//!   search neighbours among.
//! - [`training::Training`]: keys in training (Tip-Adapter-F), with AdamW.
//! - [`Isa`]: the instruction set that was detected, AVX2 or AVX-512 (with
//!   bfloat16 and AMX products where the processor has them). On other
//!   processors [`Isa::detect`] finds none, and callers use another way.
//!
//! ```
//! use tip_kernels::{Isa, packed::{Packed, Source}};
//!
//! let Some(isa) = Isa::detect() else { return };
//! // Two classes, width 2, a linear part alone.
//! let head = Packed::new(isa, &Source {
//!     classes: 2,
//!     width: 2,
//!     linear: Some(&[1.0, 0.0, 0.0, 1.0]),
//!     bias: None,
//!     cache: None,
//!     dtype: tip_spec::KeyDtype::F32,
//! });
//! let mut logits = [0.0; 2];
//! head.logits(&[0.6, 0.8], &mut logits, true);
//! assert_eq!(logits, [0.6, 0.8]);
//! ```

// SIMD intrinsics and the pointers that they take: with the calls into CUDA,
// the only code of the workspace that cannot do without.
#![allow(unsafe_code)]
#![allow(missing_docs)]
// Indexing stays: bounds are checked once for a whole kernel, and the compiler
// sees most of them.
// Shapes are checked once, where slices come in; the loops within index what
// they have counted themselves.
#![allow(clippy::indexing_slicing)]

pub mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg_attr(not(target_arch = "x86_64"), path = "packed_absent.rs")]
pub mod packed;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(target_arch = "x86_64")]
mod simd;
mod source;
pub mod team;
#[cfg_attr(not(target_arch = "x86_64"), path = "training_absent.rs")]
pub mod training;

pub use packed::Isa;
