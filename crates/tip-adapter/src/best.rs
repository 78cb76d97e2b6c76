//! The best classes of a row of logits, and how probable they are.
//!
//! There are two ways to the same answer: [`best`] reads logits that lie in
//! host memory, [`choose`] runs in torch's operators where the logits are, so
//! that a card sends the best classes to the host and not the logits of all.
//! Both order by [`f32::total_cmp`] and, of equals, by the lower class; both
//! take probabilities as softmax(logits / temperature), summed in float64.

use std::cmp::Ordering;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};

use super::head::HeadError;
use crate::dimensions::column_count;

/// A class with its score in one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The class's index, in 0..N.
    pub class: usize,
    /// Its logit, not divided by the temperature.
    pub logit: f32,
    /// Its softmax over all classes of the row.
    pub probability: f64,
}

/// A top-k request: how many of a row's best classes, and at which temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    /// k, the classes to give: all of them, if there are no more.
    pub classes: usize,
    /// What logits are divided by before they become probabilities.
    pub temperature: f64,
}

/// The largest logit; of none, −∞.
fn largest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// exp((logit − largest) / temperature): a probability before it is divided by
/// the sum.
fn share(logit: f32, largest: f32, temperature: f64) -> f64 {
    (f64::from(logit - largest) / temperature).exp()
}

/// softmax(logits / temperature), in f64.
pub fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
    let most = largest(logits);
    let mut shares: Vec<f64> = logits
        .iter()
        .map(|&logit| share(logit, most, temperature))
        .collect();
    let sum: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

/// Indices of the `k` largest logits, largest first; of equals the lower
/// index first.
fn top(logits: &[f32], k: usize) -> Vec<usize> {
    let k = k.min(logits.len());
    let by_logit = |a: &usize, b: &usize| -> Ordering {
        let logit = |i: &usize| logits.get(*i).copied().unwrap_or(f32::NEG_INFINITY);
        logit(b).total_cmp(&logit(a)).then(a.cmp(b))
    };
    let mut order: Vec<usize> = (0..logits.len()).collect();
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, by_logit);
    }
    order.truncate(k);
    order.sort_unstable_by(by_logit);
    order
}

/// The best classes of a row, best first.
pub fn best(logits: &[f32], top_k: TopK) -> Vec<Scored> {
    let most = largest(logits);
    let share = |logit: f32| share(logit, most, top_k.temperature);
    let partition: f64 = logits.iter().map(|&logit| share(logit)).sum();
    top(logits, top_k.classes)
        .into_iter()
        .filter_map(|class| {
            let logit = *logits.get(class)?;
            Some(Scored {
                class,
                logit,
                probability: share(logit) / partition,
            })
        })
        .collect()
}

/// The best classes of each row of `logits` (f32 [B, C], on any device), best
/// first: row b has `widths[b]` classes in its first columns, of which it gives
/// what `requests[b]` asks for. One copy to the host carries (largest k + 1) · 8
/// bytes a row.
///
/// # Errors
/// Torch's own.
pub fn choose(
    logits: &Tensor,
    widths: &[usize],
    requests: &[TopK],
) -> Result<Vec<Vec<Scored>>, HeadError> {
    let columns = column_count(logits)?;
    let largest = requests
        .iter()
        .map(|top_k| top_k.classes)
        .max()
        .unwrap_or(0);
    if requests.is_empty() || columns == 0 {
        return Ok(requests.iter().map(|_| Vec::new()).collect());
    }
    let k = i64::try_from(largest).unwrap_or(columns).clamp(1, columns);
    let device = logits.device();
    let beyond = if widths.iter().all(|&width| width as i64 == columns) {
        None
    } else {
        let widths: Vec<i64> = widths.iter().map(|&width| width as i64).collect();
        let widths = Tensor::f_from_slice(&widths)?.f_to_device(device)?;
        let columns = Tensor::f_arange(columns, (Kind::Int64, device))?;
        Some(columns.f_ge_tensor(&widths.f_unsqueeze(1)?)?)
    };

    let mut keys = order_keys(logits)?;
    if let Some(beyond) = &beyond {
        keys = keys.f_masked_fill_(beyond, i64::MIN)?;
    }
    let (keys, _) = keys.f_topk(k, 1, true, true)?;

    let logits = match &beyond {
        Some(beyond) => logits.f_masked_fill(beyond, f64::NEG_INFINITY)?,
        None => logits.shallow_clone(),
    };
    // The difference in f32 and the rest in f64, as `share` has it.
    let mut shares = logits
        .f_sub(&logits.f_amax([1i64].as_slice(), true)?)?
        .f_to_kind(Kind::Double)?;
    let mut shares = match requests {
        [first, rest @ ..] if rest.iter().all(|it| it.temperature == first.temperature) => {
            shares.f_div_scalar_(first.temperature)?
        }
        _ => {
            let own: Vec<f64> = requests.iter().map(|top_k| top_k.temperature).collect();
            let own = Tensor::f_from_slice(&own)?.f_to_device(device)?;
            shares.f_div_(&own.f_unsqueeze(1)?)?
        }
    };
    let partition = shares
        .f_exp_()?
        .f_sum_dim_intlist([1i64].as_slice(), true, Kind::Double)?;

    // Both as 64 bits, side by side: one copy to the host, and one wait.
    let down = Tensor::f_cat(&[keys, partition.f_view_dtype(Kind::Int64)?], 1)?;
    let down = down.f_to_device(Device::Cpu)?.f_contiguous()?;
    let down = Vec::<i64>::try_from(down.f_flatten(0, -1)?)?;
    let rows = down.chunks_exact(k as usize + 1).zip(widths).zip(requests);
    Ok(rows
        .map(|((row, &width), top_k)| read(row, columns, width, *top_k))
        .collect())
}

/// Reads a row that was copied to the host: keys, best first, and the sum of
/// all shares.
fn read(row: &[i64], columns: i64, width: usize, top_k: TopK) -> Vec<Scored> {
    let Some((&partition, keys)) = row.split_last() else {
        return Vec::new();
    };
    let partition = f64::from_bits(partition.cast_unsigned());
    let most = keys.first().map_or(f32::NEG_INFINITY, |&key| logit_of(key));
    keys.iter()
        .take(top_k.classes.min(width))
        .map(|&key| {
            let logit = logit_of(key);
            Scored {
                class: (columns - 1 - (key & LOW)) as usize,
                logit,
                probability: share(logit, most, top_k.temperature) / partition,
            }
        })
        .collect()
}

/// The lower half of a key.
const LOW: i64 = 0xffff_ffff;
/// Masks all bits of a number but its sign.
const UNSIGNED: i64 = 0x7fff_ffff;

/// For each logit a number that is unique in its row and orders as
/// [`f32::total_cmp`] does and, of equals, the lower column first: int64 [B,
/// C]. torch's top-k does not order equals; these keys have none.
///
/// The upper half is the logit's bits, all but the sign flipped where it is
/// negative, the lower half counts the columns down.
fn order_keys(logits: &Tensor) -> Result<Tensor, HeadError> {
    let columns = column_count(logits)?;
    let bits = logits
        .f_contiguous()?
        .f_view_dtype(Kind::Int)?
        .f_to_kind(Kind::Int64)?;
    let flipped = bits.f_bitwise_xor(UNSIGNED)?;
    let mut ordered = flipped.f_where_self(&bits.f_lt(0)?, &bits)?;
    let down = Tensor::f_arange_start_step(columns - 1, -1, -1, (Kind::Int64, logits.device()))?;
    Ok(ordered.f_mul_scalar_(1i64 << 32)?.f_add_(&down)?)
}

/// The logit of a key.
fn logit_of(key: i64) -> f32 {
    let ordered = key >> 32;
    let bits = if ordered < 0 {
        ordered ^ UNSIGNED
    } else {
        ordered
    };
    f32::from_bits(bits as u32)
}

/// Whether [`choose`] gives on a device what [`best`] gives: for logits drawn
/// here, many of them equal, of several shapes.
///
/// # Errors
/// What differs, or torch's message.
pub fn verify(device: Device) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(1);
    for (rows, columns, most) in [(1, 1, 1), (5, 3, 9), (64, 1000, 5), (9, 4099, 100)] {
        let widths: Vec<usize> = (0..rows)
            .map(|row| match row % 3 {
                0 => columns,
                _ => rng.random_range(1..=columns),
            })
            .collect();
        let requests: Vec<TopK> = (0..rows)
            .map(|_| TopK {
                classes: rng.random_range(0..=most),
                temperature: rng.random_range(0.2..3.0),
            })
            .collect();
        let logits: Vec<f32> = (0..rows * columns)
            .map(|_| match rng.random_range(0..4) {
                0 => rng.random_range(-40.0..40.0),
                1 => [0.0, -0.0, 40.0][rng.random_range(0..3)],
                _ => rng.random_range(-20..=20) as f32,
            })
            .collect();
        let chosen = Tensor::f_from_slice(&logits)
            .and_then(|it| it.f_view([rows as i64, columns as i64]))
            .and_then(|it| it.f_to_device(device))
            .map_err(HeadError::from)
            .and_then(|it| choose(&it, &widths, &requests))
            .map_err(|error| error.to_string())?;
        for ((row, &width), (top_k, chosen)) in logits
            .chunks_exact(columns)
            .zip(&widths)
            .zip(requests.iter().zip(&chosen))
        {
            let expected = best(row.get(..width).unwrap_or(row), *top_k);
            if !agree(&expected, chosen) {
                return Err(format!(
                    "of {width} classes in {columns} columns, {top_k:?}: {chosen:?} were chosen \
                     where {expected:?} are the best"
                ));
            }
        }
    }
    Ok(())
}

/// The same classes and logits, and probabilities up to the rounding of a sum
/// in another order.
fn agree(a: &[Scored], b: &[Scored]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.class == b.class
                && a.logit.to_bits() == b.logit.to_bits()
                && (a.probability - b.probability).abs() <= 1e-9 * a.probability
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_of_equals_the_lower_index() {
        assert_eq!(top(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
        assert_eq!(top(&[1.0, 3.0], 9), [1, 0]);
        assert!(top(&[], 3).is_empty());
    }

    #[test]
    fn probabilities_survive_large_logits() {
        let shares = probabilities(&[1000.0, 999.0], 1.0);
        assert!((shares[0] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_key_gives_its_logit_back() {
        for logit in [
            0.0,
            -0.0,
            1.5,
            -1.5,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            f32::NEG_INFINITY,
            f32::INFINITY,
        ] {
            let keys = order_keys(&Tensor::from_slice(&[logit]).view([1, 1])).expect("keys");
            let key = keys.int64_value(&[0, 0]);
            assert_eq!(logit_of(key).to_bits(), logit.to_bits(), "{logit}");
            assert_eq!(key & LOW, 0);
        }
    }
}
