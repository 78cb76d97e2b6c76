//! From a cache's contents to a head.

use super::{
    error::TipError, material::Material, supervised::supervised, unlabelled, watch::Watch,
};
pub use super::{
    made::Made,
    request::{HeadRequest, Pool},
    watch::Progress,
};

/// Makes a head: chooses what the request leaves open, then computes L, b, K
/// and V. `watch` is called often, at the latest between two large products or
/// solves; the work ends with [`TipError::Cancelled`] once it answers `false`.
///
/// What is chosen is chosen on the validation examples if there are any,
/// else by leave-one-out over the keys, else (one shot a class) it keeps
/// documented defaults. [`HeadSpec::selection`] says which.
///
/// # Errors
/// Material or a request that cannot be, see [`TipError`].
pub fn make(
    material: &Material,
    request: &HeadRequest,
    watch: &dyn Fn(Progress) -> bool,
) -> Result<Made, TipError> {
    material.check()?;
    request.check()?;
    let watch = Watch(watch);
    let _no_grad = tch::no_grad_guard();
    let made = supervised(material, request, &watch)?;
    unlabelled::learn(material, made, request, &watch)
}
