//! The classes that can be told: all if there is text, else those that have
//! examples.

use tch::{Device, Kind, Tensor};

use super::{error::TipError, gda::NEVER, material::Material};
use crate::dimensions::row_count;

/// Labels and logits of the classes that can be told: all if there is text,
/// else those with examples.
#[derive(Debug)]
pub(super) struct Told {
    /// int64, ascending; none for all.
    pub columns: Option<Tensor>,
}

impl Told {
    pub fn of(material: &Material) -> Result<Self, TipError> {
        let present = material.counts()?.f_gt(0)?;
        let all = present.f_all()?.f_int64_value(&[])? != 0;
        Ok(Self {
            columns: if all || material.text.is_some() {
                None
            } else {
                Some(present.f_nonzero()?.f_squeeze_dim(1)?)
            },
        })
    }

    /// The columns of these classes, [.., classes that can be told].
    pub fn logits(&self, logits: &Tensor) -> Result<Tensor, TipError> {
        Ok(match &self.columns {
            None => logits.shallow_clone(),
            Some(columns) => logits.f_index_select(1, columns)?,
        })
    }

    /// Logits of all classes from those of the ones that can be told; the others
    /// come last.
    pub fn all_classes(&self, logits: &Tensor, classes: i64) -> Result<Tensor, TipError> {
        let Some(columns) = &self.columns else {
            return Ok(logits.shallow_clone());
        };
        let rows = row_count(logits)?;
        let all = Tensor::f_full([rows, classes], NEVER, (Kind::Double, Device::Cpu))?;
        Ok(all.f_index_copy(1, columns, logits)?)
    }

    /// Which of some classes can be told, bool.
    pub fn is_among(&self, labels: &Tensor) -> Result<Tensor, TipError> {
        Ok(match &self.columns {
            None => labels.f_ones_like()?.f_to_kind(Kind::Bool)?,
            Some(columns) => labels
                .f_unsqueeze(1)?
                .f_eq_tensor(&columns.f_unsqueeze(0)?)?
                .f_any_dim(1, false)?,
        })
    }

    /// Classes' places among those that can be told.
    pub fn labels(&self, labels: &Tensor) -> Result<Tensor, TipError> {
        Ok(match &self.columns {
            None => labels.shallow_clone(),
            Some(columns) => {
                labels.f_searchsorted(columns, false, false, "left", None::<Tensor>)?
            }
        })
    }
}
