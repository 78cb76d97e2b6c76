//! Labelled features as tensors, row by row.

use half::f16;
use tch::Tensor;

use super::{CatalogError, ExampleFeature};
use tipserve_store::{NamedTensor, TextColumn};

/// Rows of `width` as a matrix on the CPU.
pub(super) fn matrix(values: &[f32], width: usize) -> Result<Tensor, CatalogError> {
    let rows = values.len().checked_div(width).unwrap_or(0);
    Tensor::f_from_slice(values)
        .and_then(|tensor| tensor.f_reshape([rows as i64, width as i64]))
        .map_err(CatalogError::internal)
}

/// The keys of examples, f32 [M, D].
pub(super) fn feature_rows(
    examples: &[&ExampleFeature],
    width: usize,
) -> Result<Tensor, CatalogError> {
    let values: Vec<f32> = examples
        .iter()
        .flat_map(|e| e.key.iter().copied())
        .collect();
    matrix(&values, width)
}

/// The class of each example, i64 [M].
pub(super) fn labels(examples: &[&ExampleFeature]) -> Tensor {
    let labels: Vec<i64> = examples
        .iter()
        .map(|example| example.class as i64)
        .collect();
    Tensor::from_slice(&labels)
}

/// The views of each example, f16 [M, R, D].
pub(super) fn view_rows(
    examples: &[&ExampleFeature],
    count: usize,
    width: usize,
) -> Result<Tensor, CatalogError> {
    let values: Vec<f16> = examples
        .iter()
        .flat_map(|example| {
            // An embedding among pictures stands for all of its views.
            let own = example.views.iter().copied();
            let same = example.key.iter().map(|value| f16::from_f32(*value));
            let copies = if example.views.is_empty() { count } else { 0 };
            own.chain(same.cycle().take(width * copies))
        })
        .collect();
    Tensor::f_from_slice(&values)
        .and_then(|t| t.f_reshape([examples.len() as i64, -1, width as i64]))
        .map_err(CatalogError::internal)
}

/// The examples' ids, as the tensors of a text column.
pub(super) fn ids(
    name: &'static str,
    examples: &[&ExampleFeature],
) -> impl Iterator<Item = NamedTensor> {
    TextColumn::encode(name, examples.iter().map(|example| example.id.as_str())).into_iter()
}
