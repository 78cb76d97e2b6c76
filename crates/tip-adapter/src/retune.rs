//! After fine-tuning: α, β and temperature searched again, with the trained
//! keys, on the examples that chose the epoch (tip-adapter.md, "Tip-Adapter-F").

use tch::{Kind, Tensor};

use super::{
    dimensions::as_count,
    error::TipError,
    finetune::SearchSet,
    head::{HeadTensors, Values},
    hold_out::HoldOut,
    made::Made,
    material::Material,
    methods::{
        by_name,
        calibrate::Calibration,
        search::{Outcome, Search},
    },
    request::HeadRequest,
    score::{Numbers, Scored},
    spec::{ClassBalance, HeadSpec, Method, Selection, SelectionSource},
    tip_adapter::class_factors,
    watch::{Progress, Watch},
};
use crate::grid::GridValues as _;

/// The examples that α and β are searched on, and where they come from.
#[derive(Clone, Copy, Debug)]
pub struct SearchOn<'a> {
    /// The examples that chose the epoch.
    pub set: &'a SearchSet,
    /// Whether they are validation examples or views held back.
    pub source: SelectionSource,
}

/// The factor of each class in training, f32 [N]: 1, or under
/// `ClassBalance::Mean` the mean shots over the class's own.
///
/// # Errors
/// Torch's own.
pub fn training_factors(material: &Material, balance: ClassBalance) -> Result<Tensor, TipError> {
    class_factors(material, balance)
}

/// A Tip-Adapter-F head of trained keys. `material` holds the keys as they
/// were before training; its labels, text and scale are used as they are.
/// Without examples to search on, the numbers of the training stay.
///
/// Returns the head, and the share that the search's winner classifies rightly
/// (none without examples).
///
/// # Errors
/// Tensors that do not fit together, torch's own, [`TipError::Cancelled`].
pub fn retune(
    material: Material,
    trained: Tensor,
    trained_with: (f64, f64),
    search_on: Option<SearchOn<'_>>,
    request: &HeadRequest,
    watch: &dyn Fn(Progress) -> bool,
) -> Result<(Made, Option<f64>), TipError> {
    let _no_grad = tch::no_grad_guard();
    let material = Material {
        keys: trained.f_to_kind(Kind::Float)?.f_contiguous()?,
        ..material
    };
    let scored = match search_on {
        None => None,
        Some(on) => Some((on, search(&material, on, request, watch)?)),
    };
    let Searched {
        alpha,
        beta,
        temperature,
        accuracy,
        selection,
    } = numbers(&material, trained_with, scored, request)?;
    let weight = class_factors(&material, request.class_balance)?.f_mul_scalar(alpha)?;
    let linear = material
        .text
        .as_ref()
        .map(|text| text.f_mul_scalar(material.logit_scale))
        .transpose()?;
    let values = Values::OneHot {
        labels: material.labels.f_contiguous()?,
        weight,
    };
    Ok((
        Made {
            spec: HeadSpec {
                method: Method::TipAdapterF,
                alpha,
                beta,
                lambda: 0.0,
                logit_scale: material.logit_scale,
                class_balance: request.class_balance,
                temperature,
                key_dtype: request.key_dtype,
                standardised: None,
                selection,
                unseen: None,
                unlabelled: None,
            },
            tensors: HeadTensors {
                classes: material.classes,
                linear,
                bias: None,
                cache: Some((material.keys, values)),
                standardised: None,
            },
            unseen: None,
        },
        accuracy,
    ))
}

/// The numbers of a head of trained keys.
struct Searched {
    alpha: f64,
    beta: f64,
    temperature: f64,
    /// On the examples searched on.
    accuracy: Option<f64>,
    selection: Selection,
}

/// The best of the search, or those of the training.
fn numbers(
    material: &Material,
    trained_with: (f64, f64),
    scored: Option<(SearchOn<'_>, Scored)>,
    request: &HeadRequest,
) -> Result<Searched, TipError> {
    Ok(match scored {
        Some((on, scored)) => Searched {
            alpha: scored.numbers.alpha,
            beta: scored.numbers.beta,
            temperature: scored.temperature,
            accuracy: Some(scored.accuracy()),
            selection: Selection {
                source: on.source,
                example_count: as_count(scored.count)?,
                score: if request.grid.is_official() {
                    "accuracy, the first best".to_owned()
                } else {
                    "accuracy, ties by cross-entropy".to_owned()
                },
                grid: request.grid.describe(),
                candidates: vec![scored.candidate()],
                reason: format!(
                    "fine-tuned keys; α and β searched again: {:.1} % of {} examples are right",
                    scored.accuracy() * 100.0,
                    scored.count
                ),
            },
        },
        None => Searched {
            alpha: trained_with.0,
            beta: trained_with.1,
            temperature: Calibration {
                method: by_name(Method::TipAdapter)?,
                material,
                numbers: &Numbers {
                    method: Method::TipAdapterF,
                    alpha: trained_with.0,
                    beta: trained_with.1,
                    lambda: 0.0,
                },
                balance: request.class_balance,
            }
            .by_spread()?,
            accuracy: None,
            selection: Selection {
                source: SelectionSource::Default,
                example_count: 0,
                score: "none".to_owned(),
                grid: "none".to_owned(),
                candidates: Vec::new(),
                reason: "fine-tuned keys with the α and β of the training: there are neither \
                         validation examples nor views held back to choose others on"
                    .to_owned(),
            },
        },
    })
}

fn search(
    material: &Material,
    on: SearchOn<'_>,
    request: &HeadRequest,
    watch: &dyn Fn(Progress) -> bool,
) -> Result<Scored, TipError> {
    let held = HoldOut::given(material, on.set, on.source)?;
    let watch = Watch(watch);
    let search = Search {
        material,
        request,
        held: &held,
        watch: &watch,
    };
    match search.best(by_name(Method::TipAdapter)?)? {
        Outcome::Scored(mut scored) => {
            scored.numbers.method = Method::TipAdapterF;
            Ok(scored)
        }
        Outcome::Skipped(_) => Err(TipError::NoClasses),
    }
}
