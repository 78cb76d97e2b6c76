//! What a fine-tuning is asked to do, checked.

use super::super::request::RequestError;
use crate::catalog::TuneRecipe;
use tip_adapter::finetune::{Options, Schedule};
use tipserve_api::v1::{self as pb, fine_tune_request::Schedule as Asked};

/// α while training: the recipe's for ImageNet, Food, Pets and SUN
/// (tip-adapter.md, "Tip-Adapter-F").
const ALPHA: f64 = 1.17;

/// The recipe that is asked for, by its name or by its numbers.
pub(super) fn recipe(request: &pb::FineTuneRequest) -> Result<TuneRecipe, RequestError> {
    let numbers = [
        ("epochs", request.epochs != 0),
        ("learning_rate", request.learning_rate.is_some()),
        ("batch_size", request.batch_size != 0),
        ("schedule", request.schedule != 0),
        ("weight_decay", request.weight_decay.is_some()),
        ("patience", request.patience != 0),
        ("alpha", request.alpha.is_some()),
        ("beta", request.beta.is_some()),
        ("grid", request.grid.is_some()),
    ];
    let given = numbers.iter().find(|(_, given)| *given);
    match (pb::FineTuneRecipe::try_from(request.recipe), given) {
        (Ok(pb::FineTuneRecipe::Unspecified), None) => Ok(TuneRecipe::Residual),
        (Ok(pb::FineTuneRecipe::Residual), None) => Ok(TuneRecipe::Residual),
        (Ok(pb::FineTuneRecipe::Unspecified | pb::FineTuneRecipe::TipAdapterF), _) => {
            Ok(TuneRecipe::Keys)
        }
        (Ok(pb::FineTuneRecipe::Residual), Some((field, _))) => Err(RequestError::invalid(
            field,
            "it is a number of FINE_TUNE_RECIPE_TIP_ADAPTER_F; a residual has none",
        )),
        (Err(_), _) => Err(RequestError::invalid(
            "recipe",
            format!("{} is not a FineTuneRecipe", request.recipe),
        )),
    }
}

fn count(field: &str, asked: i32, default: usize, most: usize) -> Result<usize, RequestError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(n) if n <= most => Ok(n),
        _ => Err(RequestError::invalid(
            field,
            format!("{asked} is not in 0 to {most}"),
        )),
    }
}

fn number(
    field: &str,
    asked: Option<f64>,
    default: f64,
    (low, high): (f64, f64),
) -> Result<f64, RequestError> {
    match asked {
        None => Ok(default),
        Some(value) if (low..=high).contains(&value) => Ok(value),
        Some(value) => Err(RequestError::invalid(
            field,
            format!("{value} is not in {low} to {high}"),
        )),
    }
}

/// How keys are trained: the authors' recipe, except for what is given.
pub(super) fn options(request: &pb::FineTuneRequest) -> Result<Options, RequestError> {
    let defaults = Options::default();
    Ok(Options {
        epochs: count("epochs", request.epochs, defaults.epochs, 1000)?,
        learning_rate: number(
            "learning_rate",
            request.learning_rate,
            defaults.learning_rate,
            (1e-9, 10.0),
        )?,
        batch_size: count(
            "batch_size",
            request.batch_size,
            defaults.batch_size,
            65_536,
        )?,
        schedule: match Asked::try_from(request.schedule) {
            Ok(Asked::Unspecified | Asked::Cosine) => Schedule::Cosine,
            Ok(Asked::Constant) => Schedule::Constant,
            Err(_) => {
                let problem = format!("{} is not a Schedule", request.schedule);
                return Err(RequestError::invalid("schedule", problem));
            }
        },
        weight_decay: number(
            "weight_decay",
            request.weight_decay,
            defaults.weight_decay,
            (0.0, 1.0),
        )?,
        seed: request.seed.unwrap_or(defaults.seed),
        patience: count("patience", request.patience, 0, 1000)?,
        alpha: number("alpha", request.alpha, ALPHA, (1e-6, 1e6))?,
        beta: number("beta", request.beta, 1.0, (1e-6, 1e3))?,
    })
}
