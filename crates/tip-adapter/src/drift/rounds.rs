//! One shot of every class at a time.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::error::TipError;

/// The rounds of M examples: in round j the j-th shot of every class is left out, of
/// classes with fewer shots the (j mod shots)-th.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Of each example, which shot of its class it is, and how many the class has.
    places: Vec<(i64, i64)>,
}

impl Rounds {
    /// The rounds of examples of these classes, one entry an example. (Give those
    /// with several classes each the same one.)
    pub fn of(classes: &[i64]) -> Rounds {
        let mut shots: BTreeMap<i64, i64> = BTreeMap::new();
        let ranks: Vec<i64> = (classes.iter())
            .map(|class| {
                let count = shots.entry(*class).or_default();
                *count += 1;
                *count - 1
            })
            .collect();
        let places = ranks.into_iter().zip(classes);
        Rounds {
            places: places
                .map(|(rank, class)| (rank, shots.get(class).copied().unwrap_or(1)))
                .collect(),
        }
    }

    /// The cosine of the nearest example that is not left out in a round, of those
    /// found for a picture, the nearest first. None if all of them are left out, or
    /// if it is the only shot of its class.
    pub fn nearest(&self, found: &[(usize, f32)], round: u64) -> Option<f64> {
        let (key, cosine) = found
            .iter()
            .find(|(key, _)| !self.leaves_out(*key, round))?;
        let key = i64::try_from(*key).ok()?;
        self.repeats(key).then_some(f64::from(*cosine))
    }

    /// Bytes of memory that they take.
    pub fn size_bytes(&self) -> usize {
        self.places.len() * size_of::<(i64, i64)>()
    }

    fn leaves_out(&self, key: usize, round: u64) -> bool {
        self.places.get(key).is_some_and(|&(rank, shots)| {
            let shots = u64::try_from(shots).unwrap_or(1).max(1);
            shots > 1 && i64::try_from(round % shots) == Ok(rank)
        })
    }

    /// Whether an example's class has a second shot.
    pub(super) fn repeats(&self, key: i64) -> bool {
        let place = usize::try_from(key).ok().and_then(|at| self.places.get(at));
        place.is_some_and(|(_, shots)| *shots > 1)
    }

    /// Ranks and shots, i64 [M].
    pub(super) fn tensors(&self) -> Result<(Tensor, Tensor), TipError> {
        let (ranks, shots): (Vec<i64>, Vec<i64>) = self.places.iter().copied().unzip();
        Ok((Tensor::f_from_slice(&ranks)?, Tensor::f_from_slice(&shots)?))
    }
}
