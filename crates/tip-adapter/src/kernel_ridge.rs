//! Kernel ridge regression with the kernel `exp(−β(1 − cos))`:
//! `k(f, S)(K_SS + λI)⁻¹R`.
//!
//! Leaving examples out has a closed form: with `G = (K_SS + λI)⁻¹` and F the
//! examples left out, the prediction at F of the fit on the others is
//! `R_F − (G_FF)⁻¹(G·R)_F`. One factorisation serves every round.
//!
//! Up to [`DOUBLE_KEYS`] keys everything is f64. Beyond, it is f32: half the
//! memory and half the time. λ bounds the error: no eigenvalue of `K_SS + λI`
//! is below λ, so that of the coefficients is about 1e-3 of their size
//! (`docs/accuracy.md` has it measured).

use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use super::{
    dimensions::{column_count, row_count},
    error::TipError,
    hold_out::{ALL_OUT_KEYS, HoldOut},
    spec::Method,
};

/// Most keys for which the system is solved in f64.
pub(super) const DOUBLE_KEYS: i64 = 4096;

/// Most keys whose cosines are kept between one (β, λ) and the next.
const COSINES_KEPT: i64 = 2048;

/// Keys and targets; what every (β, λ) shares.
#[derive(Debug)]
pub(super) struct KernelRidge {
    /// S, [M, D], unit rows.
    keys: Tensor,
    /// R, what the regression is of, [M, N].
    targets: Tensor,
    /// S·Sᵀ − 1, [M, M], if it will be needed again.
    cosines: Option<Tensor>,
}

/// A factorised `K_SS + λI`.
#[derive(Debug)]
pub(super) struct Fitted {
    keys: Tensor,
    targets: Tensor,
    factor: Tensor,
    beta: f64,
    coefficients: OnceCell<Tensor>,
    /// `(K_SS + λI)⁻¹`, [M, M], once something has asked for all of it.
    inverse: OnceCell<Tensor>,
}

impl KernelRidge {
    /// Of keys f32 [M, D] and targets [M, N].
    pub fn new(keys: &Tensor, targets: &Tensor) -> Result<Self, TipError> {
        let count = row_count(keys)?;
        let kind = kind_for(count);
        let keys = keys.f_to_kind(kind)?;
        let cosines = (count <= COSINES_KEPT)
            .then(|| cosines(&keys))
            .transpose()?;
        Ok(Self {
            targets: targets.f_to_kind(kind)?,
            keys,
            cosines,
        })
    }

    /// Factorises `K_SS + λI` (Cholesky), which every later solve uses.
    pub fn factorise(&self, beta: f64, lambda: f64) -> Result<Fitted, TipError> {
        let mut kernel = match &self.cosines {
            Some(cosines) => cosines.f_mul_scalar(beta)?,
            None => cosines(&self.keys)?.f_mul_scalar_(beta)?,
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
        Ok(Fitted {
            keys: self.keys.shallow_clone(),
            targets: self.targets.shallow_clone(),
            factor,
            beta,
            coefficients: OnceCell::new(),
            inverse: OnceCell::new(),
        })
    }
}

impl Fitted {
    /// `(K_SS + λI)⁻¹·R`, [M, N].
    pub fn coefficients(&self) -> Result<Tensor, TipError> {
        if let Some(known) = self.coefficients.get() {
            return Ok(known.shallow_clone());
        }
        let solved = self.targets.f_cholesky_solve(&self.factor, false)?;
        Ok(self.coefficients.get_or_init(|| solved).shallow_clone())
    }

    fn inverse(&self) -> Result<Tensor, TipError> {
        if let Some(known) = self.inverse.get() {
            return Ok(known.shallow_clone());
        }
        let inverse = self.factor.f_cholesky_inverse(false)?;
        Ok(self.inverse.get_or_init(|| inverse).shallow_clone())
    }

    /// The prediction at features [Q, D] by the fit on all keys, f64 [Q, N].
    pub fn predictions(&self, features: &Tensor) -> Result<Tensor, TipError> {
        let f = features.f_to_kind(self.keys.kind())?;
        let mut affinity = f
            .f_matmul(&self.keys.f_tr()?)?
            .f_sub_scalar_(1.0)?
            .f_mul_scalar_(self.beta)?;
        let out = affinity.f_exp_()?.f_matmul(&self.coefficients()?)?;
        Ok(out.f_to_kind(Kind::Double)?)
    }

    /// The prediction at each held-out example by the fit on the keys that it may
    /// see, f64 [Q, N]. `features` are those of `held` as the keys are.
    pub fn held_predictions(&self, features: &Tensor, held: &HoldOut) -> Result<Tensor, TipError> {
        let rounds = held.split()?;
        let targets = &self.targets;
        let classes = column_count(targets)?;
        let keys = row_count(targets)?;
        let mut out = Tensor::f_zeros([held.count(), classes], (Kind::Double, Device::Cpu))?;
        // The whole inverse pays where every key is left out once.
        let inverse = (keys <= ALL_OUT_KEYS && rounds.len() > 1)
            .then(|| self.inverse())
            .transpose()?;
        for round in rounds {
            if round.left_out.numel() == 0 {
                let f = features.f_index_select(0, &round.examples)?;
                let _ = out.f_index_copy_(0, &round.examples, &self.predictions(&f)?)?;
                continue;
            }
            let block = match &inverse {
                Some(inverse) => inverse
                    .f_index_select(1, &round.left_out)?
                    .f_index_select(0, &round.left_out)?,
                None => self.inverse_block(&round.left_out)?,
            };
            let fit = self.coefficients()?.f_index_select(0, &round.left_out)?;
            let own = targets.f_index_select(0, &round.left_out)?;
            let predicted = own
                .f_sub(&Tensor::f_linalg_solve(&block, &fit, true)?)?
                .f_to_kind(Kind::Double)?;
            let at = positions(&round.left_out, held, &round.examples)?;
            let _ = out.f_index_copy_(0, &round.examples, &predicted.f_index_select(0, &at)?)?;
        }
        Ok(out)
    }

    /// Each key's prediction by the fit on all others, f64 [M, N].
    pub fn one_out_predictions(&self) -> Result<Tensor, TipError> {
        let inverse = self.inverse()?;
        let diagonal = inverse.f_diagonal(0, 0, 1)?.f_unsqueeze(1)?;
        Ok(self
            .targets
            .f_sub(&self.coefficients()?.f_div(&diagonal)?)?
            .f_to_kind(Kind::Double)?)
    }

    /// G at the given rows and columns.
    fn inverse_block(&self, at: &Tensor) -> Result<Tensor, TipError> {
        let count = at.numel() as i64;
        let keys = row_count(&self.factor)?;
        let options = (self.factor.kind(), Device::Cpu);
        let mut unit = Tensor::f_zeros([keys, count], options)?;
        let columns = Tensor::f_arange(count, (Kind::Int64, Device::Cpu))?;
        let _ = unit.f_index_put_(
            &[Some(at), Some(&columns)],
            &Tensor::f_ones([count], options)?,
            false,
        )?;
        let half = self
            .factor
            .f_linalg_solve_triangular(&unit, false, true, false)?;
        Ok(half.f_tr()?.f_matmul(&half)?)
    }
}

/// Where the scored examples of a round stand among the keys left out: all of
/// them, in order, unless only some are scored.
fn positions(left_out: &Tensor, held: &HoldOut, examples: &Tensor) -> Result<Tensor, TipError> {
    let keys = held.key_index.f_index_select(0, examples)?;
    Ok(keys.f_searchsorted(left_out, false, false, "left", None::<Tensor>)?)
}

fn kind_for(keys: i64) -> Kind {
    if keys <= DOUBLE_KEYS {
        Kind::Double
    } else {
        Kind::Float
    }
}

/// keys·keysᵀ − 1, [M, M]: the exponent of the kernel over β.
fn cosines(keys: &Tensor) -> Result<Tensor, TipError> {
    Ok(keys.f_matmul(&keys.f_tr()?)?.f_sub_scalar_(1.0)?)
}
