//! Energies `log Σ exp(logits/T)` of one head, as another would have them.
//!
//! Examples that are left out in folds are scored by heads that have learnt from
//! fewer shots, which find pictures more or less familiar than the head that serves.
//! Where both are known of the same pictures, or of pictures that are alike to both,
//! energies are moved and stretched from the mean and standard deviation by the one
//! head to those by the other.

use tch::{Kind, Tensor};

use super::error::TipError;

/// Mean and standard deviation of a head's energies of some pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    mean: f64,
    spread: f64,
}

impl Level {
    /// Of logits over their temperature, [Q, N].
    pub fn of_logits(logits: &Tensor) -> Result<Self, TipError> {
        let logits = logits.f_to_kind(Kind::Double)?;
        Self::of(&logits.f_logsumexp([1i64].as_slice(), false)?)
    }

    /// Of energies, f64 [Q].
    pub fn of(energies: &Tensor) -> Result<Self, TipError> {
        Ok(Self {
            mean: energies.f_mean(Kind::Double)?.f_double_value(&[])?,
            spread: energies.f_std(false)?.f_double_value(&[])?,
        })
    }

    /// Energies f64 [Q] on this level, on another one.
    pub fn moved(self, energies: &Tensor, to: Self) -> Result<Tensor, TipError> {
        // Of pictures that are all alike only the place is known.
        let stretch = match self.spread > 0.0 && to.spread > 0.0 {
            true => to.spread / self.spread,
            false => 1.0,
        };
        let off = energies.f_sub_scalar(self.mean)?;
        Ok(off.f_mul_scalar(stretch)?.f_add_scalar(to.mean)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energies_take_the_place_and_the_spread_of_the_others() {
        let from = Tensor::from_slice(&[1.0, 2.0, 3.0, 6.0]);
        let to = Tensor::from_slice(&[11.0, 7.0, 9.0, 5.0]);
        let (from_level, to_level) = (Level::of(&from).expect("it"), Level::of(&to).expect("it"));
        let moved = from_level.moved(&from, to_level).expect("it");
        let level = Level::of(&moved).expect("it");
        assert!((level.mean - 8.0).abs() < 1e-9);
        assert!((level.spread - 5.0_f64.sqrt()).abs() < 1e-9);
        // Nothing varies: only the place is known.
        let same = Level::of(&Tensor::from_slice(&[4.0, 4.0])).expect("it");
        let moved = same.moved(&Tensor::from_slice(&[3.0, 6.0]), to_level);
        let moved = Vec::<f64>::try_from(moved.expect("it")).expect("it");
        assert_eq!(moved, [7.0, 10.0]);
    }
}
