//! A Gaussian per class with one covariance, as [`crate::gda`] fits it, over
//! labelled examples and a pool whose pictures belong to classes in part.
//!
//! E-step: `p = softmax(z/T)`, z the classifier's logits and T their spread
//! over all but the likeliest class, times 0.35. M-step: a picture u counts as `r_u·p_uc` examples of class c, with
//! `r_u = (max_c p_uc − 1/N)/(1 − 1/N)`: what could be anything, pictures of
//! other classes above all, counts for nothing. Classes weigh alike in the
//! E-step whatever their share of the pool, so no class balance is assumed.
//!
//! The first p are the supervised head's probabilities, which know of text and
//! work from one shot on. After [`STEPS`] steps the gain is over: more of them
//! drift where the pool holds other classes.

use tch::{Kind, Tensor};

use crate::{
    dimensions::{column_count, row_count},
    error::TipError,
    formula::plain_logits,
    gda::{self, Moments, WHOLE_RIDGE},
    made::Made,
    material::Material,
    spec::Method,
    spread::wrong_class_spread,
    unit::unit_rows,
    watch::Watch,
};

/// T over the logits' spread, however many shots there are: the pool knows the covariance.
const SPREAD_FACTOR: f64 = 0.35;

/// The number of EM steps.
const STEPS: usize = 3;

/// Most pictures of a pool that are used, evenly spread.
const POOL_LIMIT: i64 = 16_384;

/// The result of EM: a linear classifier of the head's (standardised) features;
/// its logits are divided by their temperature.
#[derive(Debug)]
pub(super) struct Mixture {
    /// The weights of the classifier, f64 [N, D].
    pub weight: Tensor,
    /// The offsets of the classifier, f64 [N].
    pub bias: Tensor,
}

impl Mixture {
    /// `None` without a pool, or if all of its pictures are alike.
    pub fn fit(
        material: &Material,
        made: &Made,
        watch: &Watch<'_>,
    ) -> Result<Option<Self>, TipError> {
        let Some(pool) = material.unlabelled() else {
            return Ok(None);
        };
        let rows = row_count(pool)?;
        let pool = pool.f_slice(0, 0, rows, (rows + POOL_LIMIT - 1) / POOL_LIMIT)?;
        let by = made.tensors.standardised.as_ref().map(|part| &part.by);
        let points = unit_rows(&pool.f_to_kind(Kind::Double)?)?;
        let points = match by {
            Some(by) => by.apply(&points)?,
            None => points,
        };
        let labelled = gda::moments(material, by, None)?;
        // A picture weighs as much as a labelled one, whose views are separate
        // points.
        let views = labelled.points()? / material.key_count().max(1) as f64;
        let classes = told(material)?;

        let first = plain_logits(&made.spec, &made.tensors, &pool)?;
        let mut p = first
            .f_div_scalar(made.spec.temperature)?
            .f_to_kind(Kind::Double)?
            .f_index_select(1, &classes)?
            .f_softmax(1, Kind::Double)?;
        let mut found = None;
        for step in 0..STEPS {
            watch.step(Method::Stack, step, STEPS)?;
            let shares = shares(&p, views)?;
            let shares = Tensor::f_zeros(
                [row_count(&points)?, material.n()],
                (Kind::Double, tch::Device::Cpu),
            )?
            .f_index_copy(1, &classes, &shares)?;
            let Some((now, logits)) = maximised(&labelled, material, &points, &shares, &classes)?
            else {
                break;
            };
            p = logits.f_softmax(1, Kind::Double)?;
            found = Some(now);
        }
        Ok(found)
    }
}

/// The classes that the pool's pictures may belong to, i64: those with
/// examples.
fn told(material: &Material) -> Result<Tensor, TipError> {
    let present = material.counts()?.f_gt(0)?;
    Ok(present.f_nonzero()?.f_squeeze_dim(1)?)
}

/// How many points of each class each picture counts as, f64 [U, C].
fn shares(p: &Tensor, views: f64) -> Result<Tensor, TipError> {
    let classes = column_count(p)?.max(2) as f64;
    let sure = p
        .f_amax([1i64].as_slice(), true)?
        .f_sub_scalar(1.0 / classes)?
        .f_mul_scalar(views / (1.0 - 1.0 / classes))?
        .f_clamp_min(0.0)?;
    Ok(p.f_mul(&sure)?)
}

/// The classifier of labelled points and shares in the pool's, and its logits
/// of the pool over their temperature; none if these are all alike.
fn maximised(
    labelled: &Moments,
    material: &Material,
    points: &Tensor,
    shares: &Tensor,
    classes: &Tensor,
) -> Result<Option<(Mixture, Tensor)>, TipError> {
    let gaussian = labelled
        .plus(points, shares)?
        .gaussian(material.text.is_some(), WHOLE_RIDGE)?;
    let logits = points
        .f_matmul(&gaussian.weight.f_tr()?)?
        .f_add(&gaussian.bias)?
        .f_index_select(1, classes)?;
    let Some(spread) = wrong_class_spread(&logits, &logits.f_argmax(1, false)?, None)? else {
        return Ok(None);
    };
    let inverse = 1.0 / (spread * SPREAD_FACTOR);
    Ok(Some((
        Mixture {
            weight: gaussian.weight.f_mul_scalar(inverse)?,
            bias: gaussian.bias.f_mul_scalar(inverse)?,
        },
        logits.f_mul_scalar(inverse)?,
    )))
}
