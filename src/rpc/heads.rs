//! How clients want a head made.

use super::request::RequestError;
use crate::catalog::MAX_MAGNITUDE;
use tip_adapter::make::HeadRequest;
use tip_spec::{ClassBalance, KeyDtype, MadeBy, Method, SearchGrid};
use tipserve_api::v1 as pb;

/// The method that a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodChoice {
    /// The client named none: the RPC's own default.
    Default,
    /// AUTO: the best on held-out examples.
    Auto,
    /// The client named this method.
    This(Method),
}

/// A head's numbers as a specification gives them.
pub struct Numbers {
    /// α, if it is given.
    pub alpha: Option<f64>,
    /// β, if it is given.
    pub beta: Option<f64>,
    /// λ, if it is given.
    pub lambda: Option<f64>,
    /// Which α and β are tried.
    pub grid: Option<pb::SearchGrid>,
}

fn positive(field: &str, value: Option<f64>) -> Result<Option<f64>, RequestError> {
    match value {
        Some(number) if !(number > 0.0 && number <= MAX_MAGNITUDE) => Err(RequestError::invalid(
            field,
            format!("{number} is not over 0 and at most {MAX_MAGNITUDE}"),
        )),
        value => Ok(value),
    }
}

fn unknown(field: &str, value: i32) -> RequestError {
    RequestError::invalid(field, format!("{value} is not one of its values"))
}

/// A method by its number in the API.
///
/// # Errors
/// An unknown value, or a method that is not made from examples.
pub fn method(value: i32) -> Result<MethodChoice, RequestError> {
    match pb::Method::try_from(value) {
        Ok(pb::Method::Unspecified) => return Ok(MethodChoice::Default),
        Ok(pb::Method::Auto) => return Ok(MethodChoice::Auto),
        _ => {}
    }
    let method = Method::by_number(value).ok_or_else(|| unknown("spec.method", value))?;
    let otherwise = match method.made_by() {
        MadeBy::Name => return Ok(MethodChoice::This(method)),
        MadeBy::FineTuning => "is made by FineTune, from a version",
        MadeBy::Auto => "is what METHOD_AUTO makes",
    };
    let problem = format!("{} {otherwise}", method.api_name());
    Err(RequestError::invalid("spec.method", problem))
}

/// A grid as asked for; none if the server decides.
///
/// # Errors
/// Scales out of range.
pub fn grid(field: &str, grid: Option<pb::SearchGrid>) -> Result<Option<SearchGrid>, RequestError> {
    use pb::search_grid::Kind;
    let Some(grid) = grid else { return Ok(None) };
    let scale = |name: &str, value: f64, default: f64| {
        if value == 0.0 {
            return Ok(default);
        }
        if !(0.1..=1000.0).contains(&value) {
            return Err(RequestError::invalid(
                format!("{field}.{name}"),
                format!("{value} is not in 0.1 to 1000"),
            ));
        }
        Ok(value)
    };
    match Kind::try_from(grid.kind) {
        Ok(Kind::Official) => Ok(Some(SearchGrid::Official {
            beta_scale: scale("beta_scale", grid.beta_scale, 7.0)?,
            alpha_scale: scale("alpha_scale", grid.alpha_scale, 3.0)?,
        })),
        Ok(Kind::Wide) => Ok(Some(SearchGrid::Wide)),
        Ok(Kind::Unspecified) => Ok(None),
        Err(_) => Err(RequestError::invalid(
            format!("{field}.kind"),
            format!("{} is not a kind of grid", grid.kind),
        )),
    }
}

/// A class balance by its number in the API.
///
/// # Errors
/// An unknown value.
pub fn class_balance(value: i32) -> Result<ClassBalance, RequestError> {
    match pb::ClassBalance::try_from(value) {
        Ok(pb::ClassBalance::Unspecified | pb::ClassBalance::Sum) => Ok(ClassBalance::Sum),
        Ok(pb::ClassBalance::Mean) => Ok(ClassBalance::Mean),
        Err(_) => Err(unknown("spec.class_balance", value)),
    }
}

/// A number format by its number in the API.
///
/// # Errors
/// An unknown value.
pub fn key_dtype(value: i32) -> Result<KeyDtype, RequestError> {
    match pb::KeyDtype::try_from(value) {
        Ok(pb::KeyDtype::Unspecified | pb::KeyDtype::F32) => Ok(KeyDtype::F32),
        Ok(pb::KeyDtype::Bf16) => Ok(KeyDtype::Bf16),
        Ok(pb::KeyDtype::F16) => Ok(KeyDtype::F16),
        Err(_) => Err(unknown("spec.key_dtype", value)),
    }
}

/// The request for a head: a method (none: the best) and its numbers.
///
/// # Errors
/// Numbers out of range.
pub fn request(
    method: Option<Method>,
    numbers: Numbers,
    class_balance: ClassBalance,
    key_dtype: KeyDtype,
) -> Result<HeadRequest, RequestError> {
    Ok(HeadRequest {
        method,
        alpha: positive("spec.alpha", numbers.alpha)?,
        beta: positive("spec.beta", numbers.beta)?,
        lambda: positive("spec.lambda", numbers.lambda)?,
        class_balance,
        grid: grid("spec.grid", numbers.grid)?.unwrap_or(SearchGrid::Wide),
        key_dtype,
        ..HeadRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_the_name_and_number_of_one_in_the_api() {
        for &method in Method::ALL {
            let found = pb::Method::try_from(method.number());
            assert_eq!(found.map(|it| it.as_str_name()), Ok(method.api_name()));
        }
        let in_api = (0..).map_while(|number| pb::Method::try_from(number).ok());
        // METHOD_UNSPECIFIED and METHOD_AUTO are requests, not methods.
        assert_eq!(in_api.count(), Method::ALL.len() + 2);
    }
}
