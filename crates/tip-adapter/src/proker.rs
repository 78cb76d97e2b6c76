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
//!
//! Leaving examples out has a closed form: with `G = (K_SS + λI)⁻¹` and F the
//! examples left out, the prediction at F of the fit on the others is
//! `R_F − (G_FF)⁻¹(G·R)_F`.

use tch::{Device, Kind, Tensor};

use super::{
    error::TipError,
    held::{ALL_OUT_KEYS, Held},
    material::Material,
    spec::Method,
};

/// Most keys: the dense system takes two f64 matrices of M × M, 4.3 GB at this
/// bound.
pub const PROKER_KEY_LIMIT: i64 = 16_384;

/// Up to so many keys β and λ are searched; beyond, they keep their defaults.
pub(super) const PROKER_SEARCH_KEYS: i64 = 2048;

/// The residuals and cosines that every (β, λ) shares.
#[derive(Debug)]
pub(super) struct Proker<'a> {
    material: &'a Material,
    /// S·Sᵀ − 1, f64 [M, M], kept only where it will be wanted again.
    cosines: Option<Tensor>,
    /// R = Y − S·Wᵀ, f64 [M, N].
    residual: Tensor,
}

/// A factorised `K_SS + λI`.
#[derive(Debug)]
pub(super) struct Fitted {
    factor: Tensor,
    beta: f64,
}

impl<'a> Proker<'a> {
    /// # Errors
    /// [`TipError::TooManyKeys`] over [`PROKER_KEY_LIMIT`].
    pub fn new(material: &'a Material) -> Result<Self, TipError> {
        check_keys(material.key_count())?;
        let keys = material.keys.f_to_kind(Kind::Double)?;
        let mut residual = material
            .labels
            .f_one_hot(material.n())?
            .f_to_kind(Kind::Double)?;
        if let Some(text) = &material.text {
            let scores = keys.f_matmul(&text.f_to_kind(Kind::Double)?.f_tr()?)?;
            residual = residual.f_sub(&scores)?;
        }
        let cosines = (material.key_count() <= PROKER_SEARCH_KEYS)
            .then(|| cosines(&keys))
            .transpose()?;
        Ok(Self {
            material,
            cosines,
            residual,
        })
    }

    /// Factorises `K_SS + λI`.
    pub fn factorise(&self, beta: f64, lambda: f64) -> Result<Fitted, TipError> {
        let mut kernel = match &self.cosines {
            Some(cosines) => cosines.f_mul_scalar(beta)?,
            None => cosines(&self.material.keys.f_to_kind(Kind::Double)?)?.f_mul_scalar_(beta)?,
        };
        let kernel = kernel.f_exp_()?;
        let mut diagonal = kernel.f_diagonal(0, 0, 1)?;
        let _ = diagonal.f_add_scalar_(lambda)?;
        let (factor, info) = kernel.f_linalg_cholesky_ex(false, false)?;
        if info.f_int64_value(&[])? != 0 {
            return Err(TipError::Singular {
                method: Method::Proker,
                beta,
                lambda,
            });
        }
        Ok(Fitted { factor, beta })
    }

    /// `(K_SS + λI)⁻¹·R`, f64 [M, N].
    pub fn coefficients(&self, fitted: &Fitted) -> Result<Tensor, TipError> {
        Ok(self.residual.f_cholesky_solve(&fitted.factor, false)?)
    }

    /// The prediction of R at each held example by the fit on the keys that it
    /// may see, f64 [Q, N] (not yet times α·λ·s).
    pub fn held_predictions(&self, fitted: &Fitted, held: &Held) -> Result<Tensor, TipError> {
        let rounds = held.split()?;
        let keys = self.material.key_count();
        let options = (Kind::Double, Device::Cpu);
        let mut out = Tensor::f_zeros([held.count(), self.material.n()], options)?;
        // The whole inverse pays where every key is left out once.
        let inverse = (keys <= ALL_OUT_KEYS && rounds.len() > 1)
            .then(|| fitted.factor.f_cholesky_inverse(false))
            .transpose()?;
        for round in rounds {
            if round.left_out.numel() == 0 {
                let f = held
                    .features
                    .f_index_select(0, &round.examples)?
                    .f_to_kind(Kind::Double)?;
                let keys = self.material.keys.f_to_kind(Kind::Double)?;
                let mut affinity = f
                    .f_matmul(&keys.f_tr()?)?
                    .f_sub_scalar_(1.0)?
                    .f_mul_scalar_(fitted.beta)?;
                let predicted = affinity.f_exp_()?.f_matmul(&self.coefficients(fitted)?)?;
                let _ = out.f_index_copy_(0, &round.examples, &predicted)?;
                continue;
            }
            let columns = match &inverse {
                Some(inverse) => inverse.f_index_select(1, &round.left_out)?,
                None => {
                    let count = round.left_out.numel() as i64;
                    let mut unit = Tensor::f_zeros([keys, count], options)?;
                    let at = Tensor::f_arange(count, (Kind::Int64, Device::Cpu))?;
                    let _ = unit.f_index_put_(
                        &[Some(&round.left_out), Some(&at)],
                        &Tensor::f_ones([count], options)?,
                        false,
                    )?;
                    unit.f_cholesky_solve(&fitted.factor, false)?
                }
            };
            let block = columns.f_index_select(0, &round.left_out)?;
            let fit = columns.f_tr()?.f_matmul(&self.residual)?;
            let own = self.residual.f_index_select(0, &round.left_out)?;
            let predicted = own.f_sub(&Tensor::f_linalg_solve(&block, &fit, true)?)?;
            let at = self.positions(&round.left_out, held, &round.examples)?;
            let _ = out.f_index_copy_(0, &round.examples, &predicted.f_index_select(0, &at)?)?;
        }
        Ok(out)
    }

    /// Where the scored examples of a round stand among the keys left out: all
    /// of them, in order, unless only some are scored.
    fn positions(
        &self,
        left_out: &Tensor,
        held: &Held,
        examples: &Tensor,
    ) -> Result<Tensor, TipError> {
        let keys = held.key_index.f_index_select(0, examples)?;
        Ok(left_out.f_searchsorted(&keys, false, false, "left", None::<Tensor>)?)
    }
}

/// keys·keysᵀ − 1.
fn cosines(keys: &Tensor) -> Result<Tensor, TipError> {
    Ok(keys.f_matmul(&keys.f_tr()?)?.f_sub_scalar_(1.0)?)
}

/// # Errors
/// [`TipError::TooManyKeys`] over [`PROKER_KEY_LIMIT`].
pub(super) fn check_keys(keys: i64) -> Result<(), TipError> {
    if keys <= PROKER_KEY_LIMIT {
        return Ok(());
    }
    let bytes = 2.0 * 8.0 * (keys as f64) * (keys as f64);
    Err(TipError::TooManyKeys {
        method: Method::Proker,
        keys,
        limit: PROKER_KEY_LIMIT,
        gib: bytes / f64::from(1u32 << 30),
    })
}
