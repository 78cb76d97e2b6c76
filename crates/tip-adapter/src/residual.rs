//! Fine-tuning that never hurts: a linear residual on top of a head that was
//! made from the examples already.
//!
//! `logits(f) = head(f) + T·Δ(f′ − m)`: f′ as the head sees features, m their
//! mean over the keys, T the head's temperature. Δ [N, D] starts at zero and
//! minimises
//!
//! `mean cross-entropy + strength·S/(2Q)·‖Δ‖²`
//!
//! over the Q examples, where each example's part of the head's logits is what
//! a head says that has **not** seen it ([`crate::left_out`]): what a head says
//! of its own examples is right already and teaches nothing. S is the mean of
//! ‖f′ − m‖², so that a strength means the same whatever the features' scale.
//! The problem is convex: there are no epochs and no seed.
//!
//! The strength is chosen, and whether to change anything at all is decided,
//! on examples that neither the head nor Δ has seen: validation examples, or
//! in folds over the shots ([`crate::folds`]), for each of which head, left-out
//! logits and Δ are made anew from the others. (To reuse the left-out logits of all
//! examples would be cheaper and wrong: each depends on the labels of the fold
//! that judges.) The tuned head is kept only if its mean cross-entropy there is
//! lower by more than two standard errors of the paired difference and it has at
//! least as many right; what the residual does to the temperature is fitted there, too.

use tch::{Kind, Tensor};

use super::{
    error::TipError,
    folds::{fold_count, folds},
    formula::plain_logits,
    head::HeadTensors,
    left_out,
    made::Made,
    make::make,
    material::Material,
    request::HeadRequest,
    spec::{HeadSpec, Method, SelectionSource},
    watch::Watch,
};

mod fit;
mod judge;
mod served;

use fit::{Problem, Solved};
pub use judge::Score;
use judge::{Judged, Tally, Unseen};
use served::{as_served, with_residual};

/// Strengths that are tried, strongest first: each starts where the last ended.
pub const STRENGTHS: [f64; 4] = [3.0, 1.0, 0.3, 0.1];

/// Paired standard errors by which the cross-entropy of unseen examples has to be
/// lower.
const CLEAR: f64 = 2.0;

/// How far [`tune`] is, after each of its fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuneProgress {
    /// Fits done so far, at most `fits`.
    pub done: usize,
    /// Fits in all: one for each fold and strength, and the final one.
    pub fits: usize,
    /// Mean cross-entropy of the last fit's own examples.
    pub loss: f64,
    /// Share of them classified rightly.
    pub accuracy: f64,
}

/// What [`tune`] found, whether or not it helped.
#[derive(Debug)]
pub struct Tuning {
    /// The tuned head; none if it is not better beyond its error.
    pub made: Option<Made>,
    /// The one of [`STRENGTHS`] that scored best.
    pub strength: f64,
    /// The head without the residual, on the unseen examples.
    pub before: Score,
    /// The head with the residual, on the same examples.
    pub after: Score,
    /// Standard error of the difference of the cross-entropies.
    pub error: f64,
    /// Examples that the two scores are of.
    pub examples: usize,
    /// Where they come from; [`SelectionSource::Default`] if there were none.
    pub source: SelectionSource,
    /// Why the residual is kept or not, as one sentence for people.
    pub reason: String,
}

/// What a head's residual is fitted on.
struct Base<'a> {
    spec: &'a HeadSpec,
    /// Features as the residual sees them, less their mean, f64 [Q, D].
    features: Tensor,
    /// Left-out logits over the temperature, f64 [Q, N].
    offsets: Tensor,
    labels: Tensor,
    seen: Seen,
}

/// How the residual sees features.
struct Seen {
    /// As the head standardises them; plain if none.
    standardised: Option<super::standardise::Standardise>,
    /// m, the keys' mean as the head sees them, f64 [1, D].
    mean: Tensor,
}

impl Seen {
    fn of(tensors: &HeadTensors, keys: &Tensor) -> Result<Self, TipError> {
        let standardised = (tensors.standardised.as_ref()).map(|part| part.by.shallow_clone());
        let mut seen = Self {
            standardised,
            mean: Tensor::f_zeros([1], (Kind::Double, tch::Device::Cpu))?,
        };
        let rows = seen.features(keys)?;
        seen.mean = rows.f_mean_dim(Some([0i64].as_slice()), true, Kind::Double)?;
        Ok(seen)
    }

    fn features(&self, features: &Tensor) -> Result<Tensor, TipError> {
        let features = features.f_to_kind(Kind::Double)?;
        Ok(match &self.standardised {
            Some(by) => by.apply(&features)?,
            None => features,
        }
        .f_sub(&self.mean)?)
    }
}

impl<'a> Base<'a> {
    /// None if no example can be left out.
    fn of(
        material: &Material,
        spec: &'a HeadSpec,
        tensors: &HeadTensors,
        watch: &Watch<'_>,
    ) -> Result<Option<Self>, TipError> {
        let Some(left_out) = left_out::left_out(material, spec, watch)? else {
            return Ok(None);
        };
        let seen = Seen::of(tensors, &material.keys)?;
        let keys = material.keys.f_index_select(0, &left_out.keys)?;
        Ok(Some(Self {
            spec,
            features: seen.features(&keys)?,
            offsets: left_out.logits,
            labels: left_out.labels,
            seen,
        }))
    }

    fn problem(&self) -> Result<Problem, TipError> {
        Problem::new(&self.features, &self.offsets, &self.labels)
    }

    /// Of unseen examples, with a residual.
    fn judge(
        &self,
        tensors: &HeadTensors,
        unseen: &Unseen,
        delta: Option<&Tensor>,
    ) -> Result<Judged, TipError> {
        let mut logits = plain_logits(self.spec, tensors, &unseen.features)?
            .f_div_scalar(self.spec.temperature)?;
        if let Some(delta) = delta {
            let seen = self.seen.features(&unseen.features)?;
            logits = logits.f_add(&seen.f_matmul(&delta.f_tr()?)?)?;
        }
        Ok(Judged {
            features: unseen.features.shallow_clone(),
            labels: unseen.labels.shallow_clone(),
            logits: logits.f_to_kind(Kind::Double)?,
        })
    }
}

/// Counts the fits and reports progress after each.
struct Steps<'a> {
    watch: &'a dyn Fn(TuneProgress) -> bool,
    done: usize,
    fits: usize,
}

impl Steps<'_> {
    fn step(&mut self, solved: &Solved) -> Result<(), TipError> {
        self.done += 1;
        let progress = TuneProgress {
            done: self.done,
            fits: self.fits,
            loss: solved.cross_entropy,
            accuracy: solved.accuracy,
        };
        if (self.watch)(progress) {
            Ok(())
        } else {
            Err(TipError::Cancelled)
        }
    }
}

/// Fine-tunes the head `made` of a version, which was made from `material`.
/// `watch` is called after each fit; `go_on` also between the large products
/// of making heads.
///
/// # Errors
/// A method without left-out logits ([`Method::TipAdapterF`]); torch's;
/// [`TipError::Cancelled`].
pub fn tune(
    material: &Material,
    made: Made,
    watch: &dyn Fn(TuneProgress) -> bool,
    go_on: &dyn Fn() -> bool,
) -> Result<Tuning, TipError> {
    material.check()?;
    if made.spec.method == Method::TipAdapterF {
        return Err(TipError::NotTrainingFree(Method::TipAdapterF));
    }
    let _no_grad = tch::no_grad_guard();
    let proceed = |_| go_on();
    let working = Watch(&proceed);
    let folds = match material.validation() {
        Some(_) => 1,
        None => fold_count(material),
    };
    let mut steps = Steps {
        watch,
        done: 0,
        fits: folds as usize * STRENGTHS.len() + 1,
    };
    let Some(base) = Base::of(material, &made.spec, &made.tensors, &working)? else {
        return Ok(untuned(
            "too few classes have a second example to learn from",
        ));
    };
    let mut before = Tally::default();
    let mut after: Vec<Tally> = STRENGTHS.iter().map(|_| Tally::default()).collect();
    let source = match material.validation() {
        Some((features, labels)) => {
            let unseen = Unseen {
                features: features.shallow_clone(),
                labels: labels.shallow_clone(),
            };
            judge_fold(
                &base,
                &made.tensors,
                &unseen,
                &mut before,
                &mut after,
                &mut steps,
            )?;
            SelectionSource::Validation
        }
        None => {
            cross_validate(
                material,
                &made.spec,
                &working,
                &mut before,
                &mut after,
                &mut steps,
            )?;
            SelectionSource::LeaveOneOut
        }
    };
    if before.is_empty() {
        return Ok(untuned(
            "too few classes have a third example to judge it by",
        ));
    }
    decide(
        (material, &working),
        &base,
        (&before, &after),
        source,
        made.tensors,
        &mut steps,
    )
}

/// Judges the head without and with residuals of all strengths.
fn judge_fold(
    base: &Base<'_>,
    tensors: &HeadTensors,
    unseen: &Unseen,
    before: &mut Tally,
    after: &mut [Tally],
    steps: &mut Steps<'_>,
) -> Result<(), TipError> {
    before.add(base.judge(tensors, unseen, None)?)?;
    let problem = base.problem()?;
    let mut start: Option<Tensor> = None;
    for (strength, tally) in STRENGTHS.iter().zip(after) {
        let solved = problem.solve(*strength, start.as_ref())?;
        steps.step(&solved)?;
        tally.add(base.judge(tensors, unseen, Some(&solved.delta))?)?;
        start = Some(solved.delta);
    }
    Ok(())
}

/// Each fold of the shots is judged by what is made from the others.
fn cross_validate(
    material: &Material,
    spec: &HeadSpec,
    working: &Watch<'_>,
    before: &mut Tally,
    after: &mut [Tally],
    steps: &mut Steps<'_>,
) -> Result<(), TipError> {
    let folds = folds(material)?;
    let count = folds.len();
    for (at, fold) in folds.into_iter().enumerate() {
        working.step(spec.method, at, count)?;
        let rest = material.with_rows(&fold.rest)?;
        let made = make(&rest, &HeadRequest::like(spec), working.0)?;
        let Some(base) = Base::of(&rest, &made.spec, &made.tensors, working)? else {
            continue;
        };
        let unseen = Unseen {
            features: fold.features,
            labels: fold.labels,
        };
        judge_fold(&base, &made.tensors, &unseen, before, after, steps)?;
    }
    Ok(())
}

fn decide(
    (material, working): (&Material, &Watch<'_>),
    base: &Base<'_>,
    (before, after): (&Tally, &[Tally]),
    source: SelectionSource,
    tensors: HeadTensors,
    steps: &mut Steps<'_>,
) -> Result<Tuning, TipError> {
    let start = before.score()?;
    let mut best: Option<(f64, Score, &Tally)> = None;
    for (&strength, tally) in STRENGTHS.iter().zip(after) {
        let score = tally.score()?;
        if best.is_none_or(|(_, best, _)| score.cross_entropy < best.cross_entropy) {
            best = Some((strength, score, tally));
        }
    }
    let Some((strength, score, tally)) = best else {
        return Ok(untuned("no strength was tried"));
    };
    let gain = before.losses()?.f_sub(&tally.losses()?)?;
    let count = gain.numel();
    let mean = gain.f_mean(Kind::Double)?.f_double_value(&[])?;
    let error = if count > 1 {
        (gain.f_var(true)?.f_double_value(&[])? / count as f64).sqrt()
    } else {
        f64::INFINITY
    };
    let improved = mean > CLEAR * error && mean > 0.0 && score.accuracy >= start.accuracy;
    let made = if improved {
        let solved = base.problem()?.solve(strength, None)?;
        steps.step(&solved)?;
        let (temperature, unseen) = as_served(material, base.spec, before, tally, source, working)?;
        Some(Made {
            spec: HeadSpec {
                unseen: unseen.scores()?,
                temperature: base.spec.temperature * temperature,
                ..base.spec.clone()
            },
            tensors: with_residual(base, tensors, &solved.delta)?,
            unseen: Some(unseen),
        })
    } else {
        None
    };
    let figures = format!(
        "cross-entropy {:.4} before and {:.4} after on {count} examples that it had not seen \
         (standard error of the difference {error:.4}), accuracy {:.1} % and {:.1} %",
        start.cross_entropy,
        score.cross_entropy,
        100.0 * start.accuracy,
        100.0 * score.accuracy
    );
    Ok(Tuning {
        reason: if improved {
            format!("fine-tuning helped: {figures}")
        } else {
            format!("fine-tuning did not help; nothing changed: {figures}")
        },
        made,
        strength,
        before: start,
        after: score,
        error,
        examples: count,
        source,
    })
}

/// The result if there are no unseen examples to judge a residual on.
fn untuned(why: &str) -> Tuning {
    let nothing = Score {
        accuracy: 0.0,
        cross_entropy: 0.0,
    };
    Tuning {
        made: None,
        strength: 0.0,
        before: nothing,
        after: nothing,
        error: 0.0,
        examples: 0,
        source: SelectionSource::Default,
        reason: format!("fine-tuning did not help; nothing changed: {why}"),
    }
}
