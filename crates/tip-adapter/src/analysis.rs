//! What a version's own examples say about it: how accuracy grows with shots,
//! which classes are confused, which examples are probably mislabelled or
//! nearly the same.
//!
//! Everything rests on left-out logits ([`LeftOut`]): each example is judged by
//! a head that has not seen it.

use tch::Kind;

use super::{
    error::TipError,
    left_out::{self, LeftOut},
    material::Material,
    near::{self, Pair, Pairs},
    spec::{HeadSpec, Method},
    watch::{GoOn, Watch},
};

mod curve;
mod labels;

pub use curve::{CurvePoint, Forecast};
pub use labels::{ClassReport, Confused, ReliabilityBin, Suspect};

/// Most examples of which all pairs are compared.
pub const DUPLICATE_LIMIT: i64 = 16_384;

/// What an analysis computes, and how much of it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalysisOptions {
    /// Most entries of each list of examples and pairs.
    pub list_limit: usize,
    /// Cosine from which two examples are near-duplicates; by the examples
    /// themselves if none.
    pub duplicate_similarity: Option<f64>,
    /// Random subsets at each point of the learning curve; 0: no curve.
    pub draws: usize,
    /// Seed of the random subsets: the same seed draws the same ones.
    pub seed: u64,
}

impl Default for AnalysisOptions {
    fn default() -> Self {
        Self {
            list_limit: 50,
            duplicate_similarity: None,
            draws: 5,
            seed: 0,
        }
    }
}

/// What [`analyse`] found in a version's own examples.
#[derive(Debug)]
pub struct Analysis {
    /// The method that was left out.
    pub method: Method,
    /// M, the version's training examples.
    pub example_count: usize,
    /// Those that were left out and classified.
    pub scored_count: usize,
    /// Share of them classified rightly.
    pub accuracy: f64,
    /// Standard error of `accuracy`, over the left-out examples.
    pub accuracy_error: f64,
    /// Mean cross-entropy of the left-out answers, in nats.
    pub cross_entropy: f64,
    /// Of the left-out probabilities, 15 bins of equal width.
    pub expected_calibration_error: f64,
    /// Accuracy by shots, fewest first.
    pub curve: Vec<CurvePoint>,
    /// Accuracy at twice the shots; none if the curve is too short to extend.
    pub forecast: Option<Forecast>,
    /// One report a class, in class order.
    pub classes: Vec<ClassReport>,
    /// (class, taken for, examples), sorted, without zeros.
    pub confusion: Vec<(usize, usize, u64)>,
    /// Pairs of classes most often taken for one another, the worst first.
    pub confused: Vec<Confused>,
    /// How many such pairs there are, listed or not.
    pub confused_count: usize,
    /// Probably mislabelled examples, the least probable in their own class
    /// first.
    pub suspects: Vec<Suspect>,
    /// How many suspects there are, listed or not.
    pub suspect_count: usize,
    /// The examples off the confusion's diagonal, in the same order.
    pub misclassified: Vec<Suspect>,
    /// Near-duplicate pairs of examples, the most similar first.
    pub duplicates: Vec<Pair>,
    /// How many such pairs there are, listed or not.
    pub duplicate_count: usize,
    /// How many of these are copies.
    pub copy_count: usize,
    /// The cosine from which pairs counted.
    pub duplicate_similarity: f64,
    /// Bins that hold an answer, by ascending probability.
    pub reliability: Vec<ReliabilityBin>,
    /// What was not computed, and why.
    pub skipped: Vec<String>,
}

const POOL: &str = "what the unlabelled pictures teach: all figures are of heads made from the \
                    labelled examples alone";

/// Analyses a version. `material` is what its head `spec` was made from. Calls
/// `go_on` often, at the latest between two large products or solves.
///
/// # Errors
/// Invalid material, see [`Material::check`]; [`TipError::Cancelled`].
pub fn analyse(
    material: &Material,
    spec: &HeadSpec,
    options: &AnalysisOptions,
    go_on: &dyn Fn() -> bool,
) -> Result<Analysis, TipError> {
    material.check()?;
    let _no_grad = tch::no_grad_guard();
    let go_on = GoOn(go_on);
    let proceed = |_| (go_on.0)();
    let watch = Watch(&proceed);
    let mut skipped = Vec::new();
    let left_out = left_out::left_out(material, spec, &watch)?;
    let judged = match &left_out {
        Some(left_out) => labels::Judged::of(left_out, material)?,
        None => {
            skipped.push(nothing_left_out(material)?.to_owned());
            labels::Judged::none(material)?
        }
    };
    if spec.unlabelled.as_ref().is_some_and(|pool| pool.used) {
        skipped.push(POOL.to_owned());
    }
    let (curve, forecast, slope) = match &left_out {
        Some(_) if options.draws > 0 => {
            let draws = curve::Draws {
                count: options.draws,
                seed: options.seed,
            };
            let points = curve::points(material, spec, &judged, draws, &watch, &mut skipped)?;
            let (forecast, slope) = curve::forecast(&points, &judged);
            (points, forecast, slope)
        }
        _ => (Vec::new(), None, curve::USUAL_SLOPE),
    };
    let (duplicates, duplicate_similarity) = duplicates(material, options, &go_on, &mut skipped)?;
    let (suspects, suspect_count) = judged.suspects(options.list_limit);
    let (confused, confused_count) = judged.confused(options.list_limit);
    Ok(Analysis {
        method: left_out.as_ref().map_or(spec.method, |it| it.method),
        example_count: usize::try_from(material.key_count()).unwrap_or(usize::MAX),
        scored_count: judged.count(),
        accuracy: judged.accuracy(),
        accuracy_error: judged.accuracy_error(),
        cross_entropy: judged.cross_entropy(),
        expected_calibration_error: judged.calibration_error(),
        classes: judged.classes(slope),
        confusion: judged.confusion(),
        confused,
        confused_count,
        suspects,
        suspect_count,
        misclassified: judged.misclassified(options.list_limit),
        reliability: judged.reliability(),
        curve,
        forecast,
        duplicates: duplicates.listed,
        duplicate_count: duplicates.count,
        copy_count: duplicates.copies,
        duplicate_similarity,
        skipped,
    })
}

/// Why nothing is said of accuracy.
fn nothing_left_out(material: &Material) -> Result<&'static str, TipError> {
    let counts = Vec::<i64>::try_from(material.counts()?)?;
    let several = counts.iter().filter(|count| **count > 0).count() > 1;
    Ok(match several {
        true => {
            "too few classes have a second example (copies of a picture are one): nothing is said \
             of accuracy"
        }
        false => "there are not two classes to tell apart: nothing is said of accuracy",
    })
}

/// The left-out logits of a version's examples by themselves; none if too
/// few classes have a second shot, or the method cannot be scored.
///
/// # Errors
/// As [`analyse`].
pub fn left_out_logits(
    material: &Material,
    spec: &HeadSpec,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<LeftOut>, TipError> {
    material.check()?;
    let _no_grad = tch::no_grad_guard();
    left_out::left_out(material, spec, &Watch(&|_| go_on()))
}

fn duplicates(
    material: &Material,
    options: &AnalysisOptions,
    go_on: &GoOn<'_>,
    skipped: &mut Vec<String>,
) -> Result<(Pairs, f64), TipError> {
    let keys = &material.keys;
    if material.key_count() < 2 {
        let similarity = options.duplicate_similarity.unwrap_or(1.0);
        return Ok((Pairs::default(), similarity));
    }
    let similarity = match options.duplicate_similarity {
        Some(similarity) => similarity,
        None => near::threshold(&keys.f_to_kind(Kind::Float)?, go_on)?,
    };
    if material.key_count() > DUPLICATE_LIMIT {
        skipped.push(format!(
            "{} examples are over the bound of {DUPLICATE_LIMIT}: they were not compared with \
             each other",
            material.key_count()
        ));
        return Ok((Pairs::default(), similarity));
    }
    let pairs = near::pairs(keys, similarity, options.list_limit, go_on)?;
    Ok((pairs, similarity))
}
