//! Kernel ridge regression with the kernel `exp(−β(1 − cos))`:
//! `k(f, S)(K_SS + λI)⁻¹R`.
//!
//! Leaving examples out has a closed form: with `G = (K_SS + λI)⁻¹` and F the
//! examples left out, the prediction at F of the fit on the others is
//! `R_F − (G_FF)⁻¹(G·R)_F`. One factorisation serves every round. Where there is one
//! round alone, its keys come last: then `(G_FF)⁻¹ = CCᵀ`, C the last rows and columns of
//! the Cholesky factor, and no part of G is needed.
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

/// Rows of a kernel that are computed at once if it is not kept.
const ROWS_AT_ONCE: i64 = 2048;

/// Keys and targets; what every (β, λ) shares.
#[derive(Debug)]
pub(super) struct KernelRidge {
    /// S, [M, D], unit rows.
    keys: Tensor,
    /// R, what the regression is of, [M, N].
    targets: Tensor,
    /// S·Sᵀ − 1, [M, M], if it will be needed again.
    cosines: Option<Tensor>,
    /// If keys and targets are in another order than the caller's.
    order: Option<Order>,
}

/// An order of the keys in which some come last.
#[derive(Debug)]
struct Order {
    /// Where each of the caller's keys is, i64 [M].
    places: Tensor,
    /// The caller's keys that come last, i64 ascending.
    last: Tensor,
}

impl Order {
    fn shallow_clone(&self) -> Self {
        Self {
            places: self.places.shallow_clone(),
            last: self.last.shallow_clone(),
        }
    }
}

/// A factorised `K_SS + λI`.
#[derive(Debug)]
pub(super) struct Fitted {
    keys: Tensor,
    targets: Tensor,
    factor: Tensor,
    beta: f64,
    order: Option<Order>,
    /// In the order of the factor.
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
            order: None,
        })
    }

    /// The same, for leaving `last` (i64 ascending, keys) out together: with these in
    /// the last rows, their block of the inverse is that of the factor's last rows
    /// alone.
    pub fn to_leave_out(keys: &Tensor, targets: &Tensor, last: &Tensor) -> Result<Self, TipError> {
        let count = row_count(keys)?;
        let is_last =
            Tensor::f_zeros([count], (Kind::Int64, Device::Cpu))?.f_index_fill_(0, last, 1i64)?;
        let order = is_last.f_argsort_stable(true, 0, false)?;
        let system = Self::new(
            &keys.f_index_select(0, &order)?,
            &targets.f_index_select(0, &order)?,
        )?;
        Ok(Self {
            order: Some(Order {
                places: order.f_argsort(0, false)?,
                last: last.shallow_clone(),
            }),
            ..system
        })
    }

    /// Factorises `K_SS + λI` (Cholesky), which every later solve uses.
    pub fn factorise(&self, beta: f64, lambda: f64) -> Result<Fitted, TipError> {
        let kernel = match &self.cosines {
            Some(cosines) => cosines.f_mul_scalar(beta)?.f_exp_()?,
            None => lower_kernel(&self.keys, beta)?,
        };
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
            order: self.order.as_ref().map(Order::shallow_clone),
            coefficients: OnceCell::new(),
            inverse: OnceCell::new(),
        })
    }
}

impl Fitted {
    /// `(K_SS + λI)⁻¹·R`, [M, N], in the caller's order.
    pub fn coefficients(&self) -> Result<Tensor, TipError> {
        let ordered = self.ordered_coefficients()?;
        self.as_given(ordered)
    }

    /// Rows [M, ..] in the caller's order.
    fn as_given(&self, rows: Tensor) -> Result<Tensor, TipError> {
        Ok(match &self.order {
            Some(order) => rows.f_index_select(0, &order.places)?,
            None => rows,
        })
    }

    fn ordered_coefficients(&self) -> Result<Tensor, TipError> {
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
        let out = affinity.f_exp_()?.f_matmul(&self.ordered_coefficients()?)?;
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
            let own = self.rows_of(&round.left_out)?;
            let fit = self.ordered_coefficients()?.f_index_select(0, &own)?;
            let targets = targets.f_index_select(0, &own)?;
            let predicted = targets
                .f_sub(&self.times_block(&own, &round.left_out, inverse.as_ref(), &fit)?)?
                .f_to_kind(Kind::Double)?;
            let at = positions(&round.left_out, held, &round.examples)?;
            let _ = out.f_index_copy_(0, &round.examples, &predicted.f_index_select(0, &at)?)?;
        }
        Ok(out)
    }

    /// `(G_FF)⁻¹·fit` of the keys F that are left out, in the rows `own` of the factor.
    fn times_block(
        &self,
        own: &Tensor,
        left_out: &Tensor,
        inverse: Option<&Tensor>,
        fit: &Tensor,
    ) -> Result<Tensor, TipError> {
        if let Some(order) = &self.order
            && order.last.f_equal(left_out)?
        {
            // The factor's last rows are that of (G_FF)⁻¹.
            let count = left_out.numel() as i64;
            let start = row_count(&self.factor)? - count;
            let factor = (self.factor.f_narrow(0, start, count)?).f_narrow(1, start, count)?;
            return Ok(factor.f_matmul(&factor.f_tr()?.f_matmul(fit)?)?);
        }
        let block = match inverse {
            Some(inverse) => inverse.f_index_select(1, own)?.f_index_select(0, own)?,
            None => self.inverse_block(own)?,
        };
        Ok(Tensor::f_linalg_solve(&block, fit, true)?)
    }

    /// The factor's rows of the caller's keys.
    fn rows_of(&self, keys: &Tensor) -> Result<Tensor, TipError> {
        Ok(match &self.order {
            Some(order) => order.places.f_index_select(0, keys)?,
            None => keys.shallow_clone(),
        })
    }

    /// Each key's prediction by the fit on all others, f64 [M, N].
    pub fn one_out_predictions(&self) -> Result<Tensor, TipError> {
        let inverse = self.inverse()?;
        let diagonal = inverse.f_diagonal(0, 0, 1)?.f_unsqueeze(1)?;
        let predictions = self
            .targets
            .f_sub(&self.ordered_coefficients()?.f_div(&diagonal)?)?
            .f_to_kind(Kind::Double)?;
        self.as_given(predictions)
    }

    /// G at the given rows and columns of the factor.
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

/// The kernel of keys, [M, M], below and on the diagonal: all that a factorisation
/// reads. Above it some blocks are zero.
fn lower_kernel(keys: &Tensor, beta: f64) -> Result<Tensor, TipError> {
    let count = row_count(keys)?;
    let kernel = Tensor::f_zeros([count, count], (keys.kind(), Device::Cpu))?;
    let mut start = 0;
    while start < count {
        let length = ROWS_AT_ONCE.min(count - start);
        let others = keys.f_narrow(0, 0, start + length)?;
        let mut rows = keys
            .f_narrow(0, start, length)?
            .f_matmul(&others.f_tr()?)?
            .f_sub_scalar_(1.0)?
            .f_mul_scalar_(beta)?;
        let mut place = kernel
            .f_narrow(0, start, length)?
            .f_narrow(1, 0, start + length)?;
        place.f_copy_(&rows.f_exp_()?)?;
        start += length;
    }
    Ok(kernel)
}

/// keys·keysᵀ − 1, [M, M]: the exponent of the kernel over β.
fn cosines(keys: &Tensor) -> Result<Tensor, TipError> {
    Ok(keys.f_matmul(&keys.f_tr()?)?.f_sub_scalar_(1.0)?)
}
