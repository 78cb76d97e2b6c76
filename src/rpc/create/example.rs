//! An example's purpose and classes, from its message.

use super::super::request::{RequestError, class_indices};
use crate::catalog::{ClassNames, ClassRef, Purpose, Recipe};
use tipserve_api::v1 as pb;

/// What an example is for.
///
/// # Errors
/// An example with two purposes.
pub fn purpose(example: &pb::Example) -> Result<Purpose, RequestError> {
    match (example.validation, example.unknown, example.unlabelled) {
        (false, false, false) => Ok(Purpose::Training),
        (true, false, false) => Ok(Purpose::Validation),
        (false, true, false) => Ok(Purpose::Unknown),
        (false, false, true) => Ok(Purpose::Unlabelled),
        (.., true) => Err(RequestError::invalid(
            "examples.unlabelled",
            "a picture without a label is neither for validation nor of no class",
        )),
        (true, true, false) => Err(RequestError::invalid(
            "examples.unknown",
            "an example of no class chooses no numbers: it cannot be for validation, too",
        )),
    }
}

/// The classes of an example, ascending. Takes its `class_name`.
///
/// # Errors
/// Indices and names of no class, and fields that are not for versions of this
/// kind.
pub fn classes(
    recipe: &Recipe,
    names: &ClassNames,
    example: &mut pb::Example,
    purpose: Purpose,
) -> Result<Vec<usize>, RequestError> {
    let name = std::mem::take(&mut example.class_name);
    if recipe.multi_label {
        if purpose == Purpose::Unlabelled {
            let problem = "a version with multi_label learns from labelled examples alone";
            return Err(RequestError::invalid("examples.unlabelled", problem));
        }
        if purpose == Purpose::Unknown {
            let problem =
                "in a version with multi_label an example of no class is one without class_indices";
            return Err(RequestError::invalid("examples.unknown", problem));
        }
        if !name.is_empty() {
            let problem = "in a version with multi_label examples have class_indices";
            return Err(RequestError::invalid("examples.class_name", problem));
        }
        let field = "examples.class_indices";
        return class_indices(field, &example.class_indices, recipe.class_count());
    }
    if !example.class_indices.is_empty() {
        let problem = "only for versions with multi_label";
        return Err(RequestError::invalid("examples.class_indices", problem));
    }
    if matches!(purpose, Purpose::Unknown | Purpose::Unlabelled) {
        return match name.is_empty() {
            true => Ok(Vec::new()),
            false => Err(RequestError::invalid(
                "examples.class_name",
                "an example without a class has none",
            )),
        };
    }
    let field = match name.is_empty() {
        true => "examples.class_index",
        false => "examples.class_name",
    };
    ClassRef::of(example.class_index, name)
        .and_then(|class| names.find(&class))
        .map(|class| vec![class])
        .map_err(|problem| RequestError::invalid(field, problem))
}
