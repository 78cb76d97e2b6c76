//! ProKeR: kernel ridge regression on what CLIP's text classifier leaves over
//! (Bendou et al., "ProKeR: A Kernel Perspective on Few-Shot Adaptation of
//! Large Vision-Language Models", CVPR 2025), in closed form.
//!
//! `logits = s·(f·Wᵀ + α·k(f, S)(K_SS/λ + I)⁻¹(Y − S·Wᵀ))`,
//! `k = exp(−β(1 − cos))`.
//!
//! α = 1 is the paper's formula. Since `(K_SS/λ + I)⁻¹ = λ(K_SS + λI)⁻¹`,
//! α = 1/λ is ordinary kernel ridge regression, which fits the labels as
//! closely as λ lets it; the paper's form takes only λ times that, so with text
//! a small λ also means little trust in the cache. Without text α changes no
//! decision.

use tch::Kind;

use super::{error::TipError, kernel_ridge::KernelRidge, material::Material, spec::Method};

/// Most keys: the dense system takes two f32 matrices of M × M, 2.1 GB at this
/// bound.
pub const PROKER_KEY_LIMIT: i64 = 16_384;

/// Most keys for which β and λ are searched; beyond, they keep their defaults.
pub(super) const PROKER_SEARCH_KEYS: i64 = 2048;

/// The regression on `R = Y − S·Wᵀ` (Y alone without text).
///
/// # Errors
/// [`TipError::TooManyKeys`] over [`PROKER_KEY_LIMIT`].
pub(super) fn system(material: &Material) -> Result<KernelRidge, TipError> {
    check_keys(material.key_count())?;
    let mut residual = material
        .labels
        .f_one_hot(material.n())?
        .f_to_kind(Kind::Double)?;
    if let Some(text) = &material.text {
        let keys = material.keys.f_to_kind(Kind::Double)?;
        let scores = keys.f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?;
        residual = residual.f_sub(&scores)?;
    }
    KernelRidge::new(&material.keys, &residual)
}

/// # Errors
/// [`TipError::TooManyKeys`] over [`PROKER_KEY_LIMIT`].
pub(super) fn check_keys(keys: i64) -> Result<(), TipError> {
    if keys <= PROKER_KEY_LIMIT {
        return Ok(());
    }
    let bytes = 2.0 * 4.0 * (keys as f64) * (keys as f64);
    Err(TipError::TooManyKeys {
        method: Method::Proker,
        keys,
        limit: PROKER_KEY_LIMIT,
        gib: bytes / f64::from(1u32 << 30),
    })
}
