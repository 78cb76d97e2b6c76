//! What a head is made from: keys, labels, text weights, views, validation
//! examples.

use tch::{Kind, Tensor};

use super::{
    dimensions::{column_count, row_count},
    error::TipError,
    standardise::Statistics,
    unit::LEAST_NORM,
};

/// How far from 1 the length of a unit row may be: half precision moves it by
/// less than a tenth of this.
const UNIT_TOLERANCE: f64 = 0.01;

/// Rows checked in one go, so that checks need no second copy of a large
/// tensor.
const CHECK_ROWS: i64 = 65_536;

/// A cache's contents, on the CPU.
#[derive(Debug)]
pub struct Material {
    /// K, f32 [M, D], unit rows: see [`build_keys`].
    pub keys: Tensor,
    /// The class of each key, i64 [M].
    pub labels: Tensor,
    /// N. A class may have no key.
    pub classes: usize,
    /// The augmented views, f32 or f16 [M, R, D], normalised or as the encoder
    /// gave them.
    pub views: Option<Tensor>,
    /// W, f32 [N, D], unit rows.
    pub text: Option<Tensor>,
    /// Validation examples, never keys: f32 [Q, D], unit rows, and i64 [Q].
    pub validation: Option<(Tensor, Tensor)>,
    /// s, CLIP's logit scale (100).
    pub logit_scale: f64,
    /// The bundle's statistics, if it has some.
    pub statistics: Option<Statistics>,
    /// Unlabelled pictures, some perhaps of none of the classes: f32 [U, D],
    /// unit rows.
    pub unlabelled: Option<Tensor>,
}

impl Material {
    /// M, the number of examples; 0 of a scalar, which [`Self::check`] refuses.
    pub fn key_count(&self) -> i64 {
        row_count(&self.keys).unwrap_or(0)
    }

    /// D, the width of a feature; 0 of keys that are no matrix, which
    /// [`Self::check`] refuses.
    pub fn width(&self) -> i64 {
        column_count(&self.keys).unwrap_or(0)
    }

    /// Keys of each class, i64 [N].
    pub(super) fn counts(&self) -> Result<Tensor, TipError> {
        Ok(self.labels.f_bincount(None::<Tensor>, self.n())?)
    }

    /// Mean number of keys per class, over the classes that have any.
    pub(super) fn shots(&self) -> Result<f64, TipError> {
        let counts = self.counts()?;
        let some = counts.f_gt(0)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        Ok(self.key_count() as f64 / some.max(1) as f64)
    }

    /// N, in torch's index type.
    pub(super) fn n(&self) -> i64 {
        i64::try_from(self.classes).unwrap_or(i64::MAX)
    }

    /// The keys at the given rows, i64; all else as it is.
    pub(super) fn with_rows(&self, rows: &Tensor) -> Result<Self, TipError> {
        Ok(Self {
            keys: self.keys.f_index_select(0, rows)?,
            labels: self.labels.f_index_select(0, rows)?,
            classes: self.classes,
            views: (self.views.as_ref())
                .map(|views| views.f_index_select(0, rows))
                .transpose()?,
            text: self.text.as_ref().map(Tensor::shallow_clone),
            validation: (self.validation()).map(|(f, y)| (f.shallow_clone(), y.shallow_clone())),
            logit_scale: self.logit_scale,
            statistics: self.statistics.as_ref().map(Statistics::shallow_clone),
            unlabelled: self.unlabelled.as_ref().map(Tensor::shallow_clone),
        })
    }

    /// The pictures without labels, if there are any.
    pub(super) fn unlabelled(&self) -> Option<&Tensor> {
        self.unlabelled.as_ref().filter(|rows| rows.numel() > 0)
    }

    /// The validation examples, if there are any.
    pub(super) fn validation(&self) -> Option<&(Tensor, Tensor)> {
        self.validation
            .as_ref()
            .filter(|(_, labels)| labels.numel() > 0)
    }

    /// Checks shapes, kinds, labels, finiteness and unit length.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), TipError> {
        if self.classes == 0 {
            return Err(TipError::NoClasses);
        }
        let size = self.keys.size();
        let &[keys, width] = size.as_slice() else {
            return Err(shape("keys", size, "[M, D]"));
        };
        if width == 0 {
            return Err(shape("keys", size, "[M, D] with D at least 1"));
        }
        if keys == 0 && self.text.is_none() {
            return Err(TipError::NoExamples);
        }
        if !(self.logit_scale.is_finite() && self.logit_scale > 0.0) {
            return Err(TipError::Number {
                thing: "logit_scale",
                value: self.logit_scale,
                expected: "a finite number over 0",
            });
        }
        check_features("key", &self.keys)?;
        check_labels("label of key", &self.labels, keys, self.classes)?;
        if let Some(views) = &self.views {
            let size = views.size();
            match size.as_slice() {
                &[m, r, d] if m == keys && r > 0 && d == width => {}
                _ => return Err(shape("views", size, &format!("[{keys}, R, {width}]"))),
            }
            if !matches!(views.kind(), Kind::Float | Kind::Half) {
                return Err(kind("views", views, "f32 or f16"));
            }
            check_finite("views of example", views)?;
        }
        if let Some(text) = &self.text {
            let expected = [self.n(), width];
            if text.size() != expected {
                return Err(shape("text weights", text.size(), &format!("{expected:?}")));
            }
            check_features("text weight", text)?;
        }
        if let Some(statistics) = &self.statistics {
            statistics.check(width)?;
        }
        if let Some(rows) = &self.unlabelled {
            let size = rows.size();
            match size.as_slice() {
                &[_, d] if d == width => {}
                _ => return Err(shape("unlabelled features", size, &format!("[U, {width}]"))),
            }
            check_features("unlabelled picture", rows)?;
        }
        if let Some((features, labels)) = &self.validation {
            let size = features.size();
            let rows = match size.as_slice() {
                &[rows, d] if d == width => rows,
                _ => return Err(shape("validation features", size, &format!("[Q, {width}]"))),
            };
            check_features("validation example", features)?;
            check_labels("label of validation example", labels, rows, self.classes)?;
        }
        Ok(())
    }
}

/// Keys from the views that the encoder gave: per example the mean of the
/// **raw** features of its views, normalised once (the authors' recipe).
///
/// `views` is [M, R, D], f32 or f16, not normalised; the keys are f32 [M, D].
///
/// # Errors
/// A wrong shape, a value that is not finite, or an example whose mean has no
/// direction.
pub fn build_keys(views: &Tensor) -> Result<Tensor, TipError> {
    let size = views.size();
    if !matches!(size.as_slice(), &[_, r, d] if r > 0 && d > 0) {
        return Err(shape("views", size, "[M, R, D] with R and D at least 1"));
    }
    check_finite("views of example", views)?;
    let mean = views.f_mean_dim(Some([1i64].as_slice()), false, Kind::Float)?;
    let norm = row_norms(&mean)?;
    if let Some((row, norm)) = first_where(&norm, &norm.f_lt(LEAST_NORM)?)? {
        return Err(TipError::NoDirection {
            thing: "example",
            row,
            norm,
        });
    }
    Ok(mean.f_div(&norm.f_unsqueeze(1)?)?)
}

pub(super) fn check_features(thing: &'static str, rows: &Tensor) -> Result<(), TipError> {
    if rows.kind() != Kind::Float {
        return Err(kind(thing, rows, "f32"));
    }
    check_finite(thing, rows)?;
    let norm = row_norms(rows)?;
    let off = norm.f_sub_scalar(1.0)?.f_abs()?.f_gt(UNIT_TOLERANCE)?;
    match first_where(&norm, &off)? {
        None => Ok(()),
        Some((row, norm)) => Err(TipError::NotUnit {
            thing,
            row,
            norm,
            tolerance: UNIT_TOLERANCE,
        }),
    }
}

fn check_labels(
    thing: &'static str,
    labels: &Tensor,
    rows: i64,
    classes: usize,
) -> Result<(), TipError> {
    if labels.size() != [rows] {
        return Err(shape(thing, labels.size(), &format!("[{rows}]")));
    }
    if labels.kind() != Kind::Int64 {
        return Err(kind(thing, labels, "i64"));
    }
    let limit = i64::try_from(classes).unwrap_or(i64::MAX);
    let bad = labels.f_lt(0)?.f_logical_or(&labels.f_ge(limit)?)?;
    match first_index(&bad)? {
        None => Ok(()),
        Some(row) => {
            let label = labels.f_int64_value(&[row])?;
            Err(TipError::Label {
                thing,
                row,
                label,
                classes,
            })
        }
    }
}

fn check_finite(thing: &'static str, tensor: &Tensor) -> Result<(), TipError> {
    let rows = row_count(tensor)?;
    let mut start = 0;
    while start < rows {
        let part = tensor.f_narrow(0, start, CHECK_ROWS.min(rows - start))?;
        // A sum is finite only if every term is; f64, so that it cannot overflow.
        let sums = part.f_flatten(1, -1)?.f_sum_dim_intlist(
            Some([1i64].as_slice()),
            false,
            Kind::Double,
        )?;
        if let Some(row) = first_index(&sums.f_isfinite()?.f_logical_not()?)? {
            return Err(TipError::NotFinite {
                thing,
                row: start + row,
            });
        }
        start += CHECK_ROWS;
    }
    Ok(())
}

fn row_norms(rows: &Tensor) -> Result<Tensor, TipError> {
    Ok(rows.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), false)?)
}

fn first_where(values: &Tensor, mask: &Tensor) -> Result<Option<(i64, f64)>, TipError> {
    Ok(match first_index(mask)? {
        None => None,
        Some(row) => Some((row, values.f_double_value(&[row])?)),
    })
}

fn first_index(mask: &Tensor) -> Result<Option<i64>, TipError> {
    let at = mask.f_nonzero()?;
    Ok(if at.numel() == 0 {
        None
    } else {
        Some(at.f_int64_value(&[0, 0])?)
    })
}

fn shape(thing: &'static str, got: Vec<i64>, expected: &str) -> TipError {
    TipError::Shape {
        thing,
        got,
        expected: expected.to_owned(),
    }
}

fn kind(thing: &'static str, got: &Tensor, expected: &'static str) -> TipError {
    TipError::Kind {
        thing,
        got: format!("{:?}", got.kind()),
        expected,
    }
}
