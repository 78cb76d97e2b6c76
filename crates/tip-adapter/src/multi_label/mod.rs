//! Versions whose examples have any number of classes: independent
//! probabilities `p_c = σ(logit_c)`.
//!
//! The outputs are those of one kernel ridge regression on the labels, one
//! column for each class (β 1.7 and λ 0.1, β 1 on standardised features: if
//! those of the keys vary alike or the bundle has statistics). Each column
//! becomes a logit by Platt scaling on outputs for examples that were left out
//! (exactly, one at a time), or on validation examples. Slope and offset are
//! folded into V and b, so that the same head serves as for all methods.
//!
//! A class belongs to an answer from its threshold on: that with the highest F1
//! on the same examples, or one for a named precision
//! ([`crate::precision`]).

mod platt;
mod thresholds;

use tch::{Device, Kind, Tensor};

use super::{
    error::TipError,
    grid::{PROKER_BETA, PROKER_LAMBDA},
    head::{HeadTensors, StandardisedPart, Values},
    kernel_ridge::KernelRidge,
    material::check_features,
    precision::PrecisionCurve,
    proker::check_keys,
    request::HeadRequest,
    spec::{HeadSpec, Method, Selection, SelectionSource, Standardised},
    standardise::{Standardise, Statistics},
    watch::{Progress, Watch},
};
use crate::dimensions::{as_count, column_count, row_count};
use platt::Platt;

/// β on standardised features.
const STANDARDISED_BETA: f64 = 1.0;

/// Most outputs that slopes and thresholds are fitted on.
const CELLS: i64 = 1 << 22;

/// Features whose cosine exceeds 1 minus this are copies: an example and its
/// copy are never left out separately.
const COPY: f64 = 1e-5;

/// Examples with any number of classes each, on the CPU.
#[derive(Debug)]
pub struct MultiLabelMaterial {
    /// f32 [M, D], unit rows.
    pub keys: Tensor,
    /// 1 if a key is of a class, else 0: f32 [M, N].
    pub labels: Tensor,
    /// Validation examples, never keys: features f32 [Q, D] and labels [Q, N].
    pub validation: Option<(Tensor, Tensor)>,
    /// s, the bundle's logit scale; only recorded.
    pub logit_scale: f64,
    /// The bundle's statistics, if it has some.
    pub statistics: Option<Statistics>,
}

/// A head of independent probabilities.
#[derive(Debug)]
pub struct MultiLabelMade {
    /// What the manifest records; its temperature is 1.
    pub spec: HeadSpec,
    /// The head's tensors, f32, on the CPU.
    pub tensors: HeadTensors,
    /// The least probability at which each class is in an answer, [N].
    pub thresholds: Vec<f64>,
    /// How often each class's answers were right; empty if nothing could be
    /// left out.
    pub curves: Vec<PrecisionCurve>,
}

impl MultiLabelMaterial {
    /// The number of keys, M; 0 of a scalar, which [`Self::check`] refuses.
    pub fn key_count(&self) -> i64 {
        row_count(&self.keys).unwrap_or(0)
    }

    /// The number of classes, N; 0 of labels that are no table, which
    /// [`Self::check`] refuses.
    pub fn classes(&self) -> i64 {
        column_count(&self.labels).unwrap_or(0)
    }

    /// Checks shapes, values and unit length.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self) -> Result<(), TipError> {
        let (keys, classes) = (self.key_count(), self.classes());
        if classes == 0 {
            return Err(TipError::NoClasses);
        }
        if keys == 0 {
            return Err(TipError::NoExamples);
        }
        check_keys(keys)?;
        check_features("key", &self.keys)?;
        check_labels("labels of keys", &self.labels, [keys, classes])?;
        if let Some((features, labels)) = &self.validation {
            let count = row_count(features)?;
            if features.size().get(1) != self.keys.size().get(1) {
                return Err(shape("validation features", features, "[Q, D]"));
            }
            check_features("validation example", features)?;
            check_labels("labels of validation examples", labels, [count, classes])?;
        }
        match &self.statistics {
            Some(statistics) => statistics.check(column_count(&self.keys)?),
            None => Ok(()),
        }
    }
}

/// Makes a head. `watch` is called between the larger steps; once it returns
/// `false`, the work ends with [`TipError::Cancelled`].
///
/// # Errors
/// Invalid material; too many keys to solve for.
pub fn make(
    material: &MultiLabelMaterial,
    request: &HeadRequest,
    watch: &dyn Fn(Progress) -> bool,
) -> Result<MultiLabelMade, TipError> {
    let _no_grad = tch::no_grad_guard();
    material.check()?;
    let watch = Watch(watch);
    watch.step(Method::Stack, 0, 3)?;
    let (whose, by) = scale(material)?;
    let seen = |rows: &Tensor| match &by {
        Some(by) => by.apply(rows),
        None => rows.f_contiguous(),
    };
    let keys = seen(&material.keys)?;
    let beta = match whose {
        Some(_) => STANDARDISED_BETA,
        None => PROKER_BETA,
    };
    let ridge = KernelRidge::new(&keys, &material.labels)?.factorise(beta, PROKER_LAMBDA)?;
    watch.step(Method::Stack, 1, 3)?;
    let held = match &material.validation {
        Some((features, labels)) if features.numel() > 0 => Held {
            outputs: ridge.predictions(&seen(features)?)?,
            labels: labels.f_to_kind(Kind::Double)?,
            source: SelectionSource::Validation,
        },
        _ => left_out(material, &ridge.one_out_predictions()?)?,
    };
    let held = held.some()?;
    let platt = if held.labels.numel() == 0 {
        let labels = material.labels.f_to_kind(Kind::Double)?;
        platt::by_rate(&ridge.one_out_predictions()?, &labels)?
    } else {
        platt::fit(&held.outputs, &held.labels)?
    };
    watch.step(Method::Stack, 2, 3)?;
    let logits = held.outputs.f_mul(&platt.slope)?.f_add(&platt.offset)?;
    let (thresholds, curves, f1) = thresholds::choose(&logits.f_sigmoid()?, &held.labels)?;
    let values = (ridge.coefficients()?.f_to_kind(Kind::Double)?)
        .f_mul(&platt.slope)?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?;
    Ok(MultiLabelMade {
        spec: HeadSpec {
            method: Method::Stack,
            alpha: 0.0,
            beta,
            lambda: PROKER_LAMBDA,
            logit_scale: material.logit_scale,
            class_balance: request.class_balance,
            temperature: 1.0,
            key_dtype: request.key_dtype,
            standardised: whose,
            selection: selection(&held, &platt, f1)?,
            unseen: None,
            unlabelled: None,
        },
        tensors: HeadTensors {
            classes: as_count(material.classes())?,
            linear: None,
            bias: Some(platt.offset.f_to_kind(Kind::Float)?.f_contiguous()?),
            cache: Some((keys, Values::Dense(values))),
            standardised: by.map(|by| StandardisedPart { by, linear: None }),
        },
        thresholds,
        curves,
    })
}

/// Outputs for unseen examples, with their labels.
struct Held {
    /// The outputs of each class, f64 [Q, N].
    outputs: Tensor,
    /// f64 [Q, N].
    labels: Tensor,
    source: SelectionSource,
}

impl Held {
    /// At most [`CELLS`] of them, evenly spread.
    fn some(self) -> Result<Self, TipError> {
        let count = row_count(&self.labels)?;
        let classes = column_count(&self.labels)?.max(1);
        let most = (CELLS / classes).max(1);
        if count <= most {
            return Ok(self);
        }
        let rows: Vec<i64> = (0..most).map(|i| i * count / most).collect();
        let rows = Tensor::f_from_slice(&rows)?;
        Ok(Self {
            outputs: self.outputs.f_index_select(0, &rows)?,
            labels: self.labels.f_index_select(0, &rows)?,
            source: self.source,
        })
    }
}

/// Leave-one-out outputs of the keys that are not copies of others.
fn left_out(material: &MultiLabelMaterial, outputs: &Tensor) -> Result<Held, TipError> {
    let keys = &material.keys;
    let count = material.key_count();
    let mut alone: Vec<i64> = Vec::new();
    // In slices: all cosines at once may not fit into memory.
    for start in (0..count).step_by(2048) {
        let length = (count - start).min(2048);
        let near = keys.f_narrow(0, start, length)?.f_matmul(&keys.f_tr()?)?;
        let copies = near.f_gt(1.0 - COPY)?.f_sum_dim_intlist(
            Some([1i64].as_slice()),
            false,
            Kind::Int64,
        )?;
        let rows = Vec::<i64>::try_from(copies)?.into_iter().enumerate();
        alone.extend(
            rows.filter(|(_, copies)| *copies <= 1)
                .map(|(row, _)| start + row as i64),
        );
    }
    let rows = Tensor::f_from_slice(&alone)?;
    Ok(Held {
        outputs: outputs.f_index_select(0, &rows)?,
        labels: material
            .labels
            .f_index_select(0, &rows)?
            .f_to_kind(Kind::Double)?,
        source: SelectionSource::LeaveOneOut,
    })
}

/// The standardisation of features: by the bundle's statistics, or by the keys'
/// own if their dimensions vary alike.
fn scale(
    material: &MultiLabelMaterial,
) -> Result<(Option<Standardised>, Option<Standardise>), TipError> {
    let (whose, statistics) = match &material.statistics {
        Some(statistics) => (Standardised::Bundle, statistics.shallow_clone()),
        None => {
            let own = Statistics::of(&material.keys)?;
            if !own.is_even(material.key_count())? {
                return Ok((None, None));
            }
            (Standardised::Own, own)
        }
    };
    let by = Standardise::by(&statistics)?;
    Ok((by.as_ref().map(|_| whose), by))
}

fn selection(held: &Held, platt: &Platt, f1: f64) -> Result<Selection, TipError> {
    let count = row_count(&held.labels)?;
    let reason = if count == 0 {
        format!(
            "kernel ridge regression, one column a class, at a slope of {:.2} and the classes' \
             share of the labels: every example is a copy of another, and none could be left out.",
            platt.common
        )
    } else {
        format!(
            "kernel ridge regression, one column a class, each calibrated on {count} examples \
             that it had not seen (common slope {:.2}): micro F1 {:.3} there.",
            platt.common, f1
        )
    };
    Ok(Selection {
        source: held.source,
        example_count: as_count(count)?,
        score: "cross-entropy of each class, slopes held near a common one with the strength of \
                five examples; thresholds by F1"
            .to_owned(),
        grid: "none".to_owned(),
        candidates: Vec::new(),
        reason,
    })
}

fn check_labels(thing: &'static str, labels: &Tensor, size: [i64; 2]) -> Result<(), TipError> {
    if labels.size() != size {
        return Err(shape(thing, labels, &format!("{size:?}")));
    }
    let binary = labels.f_eq(0)?.f_logical_or(&labels.f_eq(1)?)?;
    if binary.f_all()?.f_int64_value(&[])? == 0 {
        return Err(TipError::Kind {
            thing,
            got: "other values".to_owned(),
            expected: "0 or 1",
        });
    }
    Ok(())
}

fn shape(thing: &'static str, got: &Tensor, expected: &str) -> TipError {
    TipError::Shape {
        thing,
        got: got.size(),
        expected: expected.to_owned(),
    }
}

/// Rows of zeros and ones, f32 [M, N], of each example's classes.
///
/// # Errors
/// A class index of N or more.
pub fn label_rows(classes: usize, of: &[impl AsRef<[usize]>]) -> Result<Tensor, TipError> {
    let n = i64::try_from(classes).unwrap_or(i64::MAX);
    let mut at: Vec<i64> = Vec::new();
    for (row, labels) in of.iter().enumerate() {
        for &label in labels.as_ref() {
            if label >= classes {
                return Err(TipError::Label {
                    thing: "label of example",
                    row: row as i64,
                    label: i64::try_from(label).unwrap_or(i64::MAX),
                    classes,
                });
            }
            at.push(row as i64 * n + label as i64);
        }
    }
    let rows = Tensor::f_zeros([of.len() as i64 * n], (Kind::Float, Device::Cpu))?;
    let ones = Tensor::f_ones([at.len() as i64], (Kind::Float, Device::Cpu))?;
    let rows = rows.f_index_put(&[Some(Tensor::f_from_slice(&at)?)], &ones, false)?;
    Ok(rows.f_reshape([of.len() as i64, n])?)
}
