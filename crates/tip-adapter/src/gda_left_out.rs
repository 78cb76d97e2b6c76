//! GDA's exact logits of examples that it has not seen.
//!
//! In round j every class lacks its j-th shot: the means are those of the
//! others. The covariance lacks only the shot of the query's own class; other
//! classes' shots say nothing of the query, and their spread is kept. So two
//! shots a class are enough: were all j-th shots taken from the covariance,
//! nothing would be left of it.
//!
//! With Z the deviations of the p points left out of a class of n from its
//! mean, `S′ = S − UᵀU`, where U is Z with the row `ΣZ/√(n − p)` below it, and
//! by Woodbury's identity `(A − UᵀU)⁻¹ = G + GUᵀ(I − UGUᵀ)⁻¹UG`, `G = A⁻¹`,
//! `A = S + τI`. τ keeps the size that it has over all examples.

use tch::{Device, Kind, Tensor};

use super::{
    dimensions::{column_count, row_count},
    error::TipError,
    gda::{self, Moments, NEVER},
    hold_out::{HoldOut, Round},
    material::Material,
    standardise::Standardise,
};

/// What is computed once, from all examples, for every round.
struct Whole<'a> {
    material: &'a Material,
    by: Option<&'a Standardise>,
    moments: Moments,
    /// The class means of all examples, f64 [N, D].
    means: Tensor,
    /// Of `S + τI`, f64 [D, D].
    factor: Tensor,
}

/// What a round leaves out: the classes that lack something, and U of each.
struct Out {
    /// The place of each class among those that lack something, i64 [N]; -1
    /// for the others.
    place: Tensor,
    /// f64 [C, p + 1, D], zeros where a class lacks less than the most.
    deviations: Tensor,
    /// Means of what remains, f64 [N, D].
    means: Tensor,
}

/// f·w + b at each held-out example ([Q, D], f64, as `by` has them), f64 [Q, N],
/// without the examples of its round, with `share` of the paper's ridge; none if
/// nothing varies within a class.
///
/// A class without examples is put at the mean of the others; without text it
/// gets a bias that keeps it last.
pub(super) fn held_logits(
    material: &Material,
    by: Option<&Standardise>,
    features: &Tensor,
    held: &HoldOut,
    share: f64,
) -> Result<Option<Tensor>, TipError> {
    let moments = gda::moments(material, by, None)?;
    let (means, Some((scatter, trace))) = moments.scatter()? else {
        return Ok(None);
    };
    let ridge = share * trace / (moments.points()? - 1.0);
    let mut diagonal = scatter.f_diagonal(0, 0, 1)?;
    let _ = diagonal.f_add_scalar_(ridge)?;
    let whole = Whole {
        material,
        by,
        means,
        factor: scatter.f_linalg_cholesky(false)?,
        moments,
    };
    let features = features.f_to_kind(Kind::Double)?;
    let mut out = Tensor::f_zeros([held.count(), material.n()], (Kind::Double, Device::Cpu))?;
    for round in held.split()? {
        let f = features.f_index_select(0, &round.examples)?;
        let logits = if round.left_out.numel() == 0 {
            let all = whole.moments.gaussian(material.text.is_some(), share)?;
            f.f_matmul(&all.weight.f_tr()?)?.f_add(&all.bias)?
        } else {
            let labels = held.labels.f_index_select(0, &round.examples)?;
            whole.round(&whole.leave_out(&round)?, &f, &labels)?
        };
        let _ = out.f_index_copy_(0, &round.examples, &logits)?;
    }
    Ok(Some(out))
}

impl Whole<'_> {
    fn leave_out(&self, round: &Round) -> Result<Out, TipError> {
        let double = (Kind::Double, Device::Cpu);
        let (n, d) = (self.material.n(), self.material.width());
        let points = gda::points(self.material, self.by, &round.left_out)?;
        let per_example = column_count(&points)?;
        let labels = self.material.labels.f_index_select(0, &round.left_out)?;

        // Where each example's points stand: its class's place, its rank there.
        let mut place = vec![-1i64; self.material.classes];
        let mut taken: Vec<i64> = Vec::new();
        let mut slots: Vec<(i64, i64)> = Vec::with_capacity(round.left_out.numel());
        for label in Vec::<i64>::try_from(&labels)? {
            let slot = usize::try_from(label).ok().and_then(|at| place.get_mut(at));
            let Some(slot) = slot else { continue };
            if *slot < 0 {
                *slot = taken.len() as i64;
                taken.push(0);
            }
            let at = *slot;
            if let Some(rank) = usize::try_from(at).ok().and_then(|at| taken.get_mut(at)) {
                slots.push((at, *rank));
                *rank += 1;
            }
        }
        let classes = taken.len() as i64;
        let height = taken.iter().copied().max().unwrap_or(0) * per_example + 1;
        let rows: Vec<i64> = slots
            .iter()
            .flat_map(|&(at, rank)| {
                (0..per_example).map(move |r| at * height + rank * per_example + r)
            })
            .collect();

        let deviations = points
            .f_sub(&self.means.f_index_select(0, &labels)?.f_unsqueeze(1)?)?
            .f_reshape([-1, d])?;
        let mut all = Tensor::f_zeros([classes * height, d], double)?;
        let _ = all.f_index_copy_(0, &Tensor::f_from_slice(&rows)?, &deviations)?;
        let all = all.f_view([classes, height, d])?;

        let over = Some([1i64].as_slice());
        let sums = Tensor::f_zeros([n, d], double)?.f_index_add_(
            0,
            &labels,
            &points.f_sum_dim_intlist(over, false, Kind::Double)?,
        )?;
        let counts = Tensor::f_zeros([n], double)?.f_index_add_(
            0,
            &labels,
            &Tensor::f_full([labels.numel() as i64], per_example as f64, double)?,
        )?;
        let remain = self.moments.counts.f_sub(&counts)?;
        let means = self
            .moments
            .sums
            .f_sub(&sums)?
            .f_div(&remain.f_clamp_min(1.0)?.f_unsqueeze(1)?)?;

        let place = Tensor::f_from_slice(&place)?;
        let lacking = place.f_ge(0)?.f_nonzero()?.f_squeeze_dim(1)?;
        // In the order of their places.
        let order = place.f_index_select(0, &lacking)?.f_argsort(0, false)?;
        let lacking = lacking.f_index_select(0, &order)?;
        let shift = all.f_sum_dim_intlist(over, false, Kind::Double)?.f_div(
            &remain
                .f_index_select(0, &lacking)?
                .f_clamp_min(1.0)?
                .f_sqrt()?
                .f_unsqueeze(1)?,
        )?;
        let mut last = all.f_select(1, height - 1)?;
        last.f_copy_(&shift)?;
        Ok(Out {
            place,
            deviations: all,
            means: gda::present_means(&means, &self.moments.counts)?,
        })
    }

    fn solve(&self, rows: &Tensor) -> Result<Tensor, TipError> {
        Ok(rows
            .f_tr()?
            .f_cholesky_solve(&self.factor, false)?
            .f_tr()?
            .f_contiguous()?)
    }

    /// Logits of f [Q, D] of classes `labels`, each without its own block.
    fn round(&self, out: &Out, f: &Tensor, labels: &Tensor) -> Result<Tensor, TipError> {
        let classes = row_count(&out.deviations)?;
        let height = column_count(&out.deviations)?;
        let d = self.material.width();
        let over = |dim: i64| Some(vec![dim]);
        let solved_means = self.solve(&out.means)?;
        let solved = self
            .solve(&out.deviations.f_reshape([-1, d])?)?
            .f_view([classes, height, d])?;
        let eye = Tensor::f_eye(height, (Kind::Double, Device::Cpu))?;
        let inner = eye.f_sub(&out.deviations.f_bmm(&solved.f_transpose(1, 2)?)?)?;
        // [C, p + 1, N].
        let at_means = solved.f_matmul(&out.means.f_tr()?)?;
        let through = Tensor::f_linalg_solve(&inner, &at_means, true)?;
        let squares =
            at_means
                .f_mul(&through)?
                .f_sum_dim_intlist(over(1).as_deref(), false, Kind::Double)?;
        let own = solved_means.f_mul(&out.means)?.f_sum_dim_intlist(
            over(1).as_deref(),
            false,
            Kind::Double,
        )?;

        let place = out.place.f_index_select(0, labels)?;
        let at_f = solved
            .f_index_select(0, &place)?
            .f_bmm(&f.f_unsqueeze(2)?)?
            .f_transpose(1, 2)?;
        let linear = f.f_matmul(&solved_means.f_tr()?)?.f_add(
            &at_f
                .f_bmm(&through.f_index_select(0, &place)?)?
                .f_squeeze_dim(1)?,
        )?;
        let bias = squares.f_index_select(0, &place)?.f_add(&own)?;
        let logits = linear
            .f_sub(&bias.f_mul_scalar(0.5)?)?
            .f_mul_scalar(d as f64)?
            .f_sub_scalar((self.material.classes as f64).ln())?;
        if self.material.text.is_some() {
            return Ok(logits);
        }
        Ok(logits.f_masked_fill(&self.moments.counts.f_lt(0.5)?, NEVER)?)
    }
}
