//! How often a version's answers for unseen examples were right, class by class,
//! as three tensors.

use tch::{Kind, Tensor};

use super::{CatalogError, columns, tensors};
use tip_adapter::precision::{CurvePoint, PrecisionCurve};
use tipserve_store::{Dtype, NamedTensor, TensorFile, tensors::names};

/// Numbers for each point of a curve.
const COLUMNS: usize = 4;

/// The tensors of N curves.
///
/// # Errors
/// Torch's.
pub(super) fn write(curves: &[PrecisionCurve]) -> Result<Vec<NamedTensor>, CatalogError> {
    let (mut points, mut offsets) = (Vec::new(), vec![0_i64]);
    for curve in curves {
        for point in &curve.points {
            points.extend([
                point.threshold as f32,
                point.taken as f32,
                point.right as f32,
                point.claimed as f32,
            ]);
        }
        offsets.push((points.len() / COLUMNS) as i64);
    }
    let positives: Vec<i64> = curves
        .iter()
        .map(|curve| i64::from(curve.positives))
        .collect();
    let torch = CatalogError::internal;
    let points = Tensor::f_from_slice(&points).map_err(torch)?;
    let points = points.f_reshape([-1, COLUMNS as i64]).map_err(torch)?;
    let numbers = |of: &[i64]| {
        let made = Tensor::f_from_slice(of);
        made.and_then(|t| t.f_to_kind(Kind::Int64)).map_err(torch)
    };
    Ok(vec![
        tensors::write(names::PRECISION_POINTS, &points)?,
        tensors::write(names::PRECISION_OFFSETS, &numbers(&offsets)?)?,
        tensors::write(names::PRECISION_POSITIVES, &numbers(&positives)?)?,
    ])
}

/// The curves of `classes` classes; none if the version has none.
///
/// # Errors
/// The reason, in words, if the tensors are not valid curves.
pub(super) fn read(
    file: &TensorFile,
    classes: usize,
) -> Result<Option<Vec<PrecisionCurve>>, String> {
    if file.get(names::PRECISION_POINTS).is_none() {
        return Ok(None);
    }
    let expected: [(&str, Dtype, &[usize]); 2] = [
        (names::PRECISION_OFFSETS, Dtype::I64, &[classes + 1]),
        (names::PRECISION_POSITIVES, Dtype::I64, &[classes]),
    ];
    for (name, dtype, shape) in expected {
        let tensor = file
            .get(name)
            .ok_or_else(|| format!("tensor {name} is missing"))?;
        if (tensor.dtype, tensor.shape) != (dtype, shape) {
            return Err(format!("tensor {name} is not {dtype:?} {shape:?}"));
        }
    }
    let points = match file.get(names::PRECISION_POINTS) {
        Some(t) if t.dtype == Dtype::F32 && t.shape.get(1) == Some(&COLUMNS) => {
            columns::floats(file, names::PRECISION_POINTS)
        }
        _ => {
            return Err(format!(
                "tensor {} is not F32 [·, 4]",
                names::PRECISION_POINTS
            ));
        }
    };
    if points
        .iter()
        .any(|number| !(0.0..=f32::MAX).contains(number))
    {
        return Err(format!(
            "tensor {} has numbers that cannot be",
            names::PRECISION_POINTS
        ));
    }
    let offsets = columns::labels(file, names::PRECISION_OFFSETS);
    let positives = columns::labels(file, names::PRECISION_POSITIVES);
    let mut curves = Vec::with_capacity(classes);
    for (ends, positives) in offsets.windows(2).zip(positives) {
        let &[from, to] = ends else { continue };
        let rows = from
            .checked_mul(COLUMNS)
            .zip(to.checked_mul(COLUMNS))
            .and_then(|(from, to)| points.get(from..to))
            .ok_or_else(|| format!("{} goes beyond its points", names::PRECISION_OFFSETS))?;
        curves.push(PrecisionCurve {
            points: rows.as_chunks::<COLUMNS>().0.iter().map(point).collect(),
            positives: u32::try_from(positives).unwrap_or(u32::MAX),
        });
    }
    Ok(Some(curves))
}

fn point(&[threshold, taken, right, claimed]: &[f32; COLUMNS]) -> CurvePoint {
    CurvePoint {
        threshold: f64::from(threshold),
        taken: taken as u32,
        right: right as u32,
        claimed: f64::from(claimed),
    }
}
