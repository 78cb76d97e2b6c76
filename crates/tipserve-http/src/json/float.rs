//! 32-bit floats as lists of them have them: `-0.0123456789`, or `0.012345678955888748`
//! from a program that prints 64 bits. Neither a digit nor the number of digits
//! costs a branch, which would be guessed wrong at most numbers' ends.

use super::decimal::{Decimal, TENS, WHOLE_TENS, from_middle, united};

/// Digits that are read together.
const BLOCK: usize = 8;

/// The nearest float to the number that a text begins with, and that number's
/// length; none if it begins with none, or with one beyond all floats.
#[inline]
pub fn read(text: &[u8]) -> Option<(f32, usize)> {
    quickly(text).or_else(|| any(text))
}

/// A number of whatever form.
#[cold]
#[inline(never)]
fn any(text: &[u8]) -> Option<(f32, usize)> {
    let number = Decimal::parse(text)?;
    let value = number.to_f32();
    value.is_finite().then_some((value, number.text.len()))
}

/// A number of one digit, a point and one to twenty-three more digits, with as many
/// bytes after it as are looked at together.
///
/// What follows the sixteenth of them moves the value by less than one in the
/// last place of `digits`, which from 2⁴⁴ on is less than 2⁹ units of the last of
/// 53 bits: it is left out if that cannot change what is rounded to.
#[inline]
fn quickly(text: &[u8]) -> Option<(f32, usize)> {
    /// How far from the middle between two floats it is safe to round to one of
    /// them, see [`Decimal::to_f32`].
    const MARGIN: u64 = 8;
    const MARGIN_CUT: u64 = MARGIN + (1 << 9);
    const LEAST_CUT: u64 = 1 << 44;
    let is_negative = text.first() == Some(&b'-');
    let unsigned = text.get(usize::from(is_negative)..)?;
    let ([whole, b'.'], fraction) = unsigned.split_first_chunk()? else {
        return None;
    };
    let whole = whole.wrapping_sub(b'0');
    let fraction = fraction.first_chunk::<{ 3 * BLOCK }>()?;
    let ([first, second, third], []) = fraction.as_chunks() else {
        return None;
    };
    let [first, second, third] = [first, second, third].map(Digits::of);
    // Programs write about as many digits to every number: each of these branches
    // goes the same way for a whole list.
    let (digits, count, margin) = if first.count < BLOCK {
        (first.value(), first.count, MARGIN)
    } else if second.count < BLOCK {
        let digits = first.value() * WHOLE_TENS.get(second.count)? + second.value();
        (digits, BLOCK + second.count, MARGIN)
    } else {
        let digits = first.value() * 100_000_000 + second.value();
        (digits, 2 * BLOCK, MARGIN_CUT)
    };
    let digits = u64::from(whole) * WHOLE_TENS.get(count)? + digits;
    let length = match count == 2 * BLOCK {
        true => count + third.count,
        false => count,
    };
    let is_cut_short = length > count && digits < LEAST_CUT;
    if whole > 9 || length == 0 || length == 3 * BLOCK || is_cut_short {
        return None;
    }
    if matches!(fraction.get(length), None | Some(b'e' | b'E')) {
        return None;
    }
    let value = digits as f64 / TENS.get(count)?;
    if from_middle(value) <= margin {
        return None;
    }
    let sign = u32::from(is_negative) << 31;
    let value = f32::from_bits((value as f32).to_bits() | sign);
    Some((value, usize::from(is_negative) + 2 + length))
}

/// Eight characters that may begin with digits.
#[derive(Clone, Copy)]
struct Digits {
    /// What the characters are worth, the first in the lowest byte.
    worth: u64,
    /// How many are digits before the first that is none.
    count: usize,
}

impl Digits {
    #[inline]
    fn of(text: &[u8; BLOCK]) -> Digits {
        const ZEROS: u64 = u64::from_le_bytes([b'0'; BLOCK]);
        // Sets the top bit of all that is over 9.
        const CARRY: u64 = u64::from_le_bytes([0x80 - 10; BLOCK]);
        const TOP: u64 = u64::from_le_bytes([0x80; BLOCK]);
        let worth = u64::from_le_bytes(*text) ^ ZEROS;
        // What is carried on goes to characters after one that is no digit.
        let others = (worth.wrapping_add(CARRY) | worth) & TOP;
        Digits {
            worth,
            count: (others.trailing_zeros() / 8) as usize,
        }
    }

    /// The number that they make; 0 if there are none.
    #[inline]
    fn value(self) -> u64 {
        // To the end, with zeros before them.
        let last = self.worth.checked_shl((8 * (BLOCK - self.count)) as u32);
        united(last.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// What is read of a number, whatever follows it.
    fn check(number: &str, after: &str) {
        let wanted: f32 = number.parse().expect("a float");
        let text = format!("{number}{after}");
        let (value, length) = read(text.as_bytes()).expect("a number");
        assert_eq!(value.to_bits(), wanted.to_bits(), "{text}");
        assert_eq!(length, number.len(), "{text}");
    }

    #[test]
    fn floats_are_the_nearest_however_they_are_written_and_followed() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..100_000 {
            let one =
                chance.random_range(-9.999..9.999_f32) / 10_f32.powi(chance.random_range(0..7));
            let next = f32::from_bits(one.to_bits() + 1);
            let middle = f64::midpoint(one.into(), next.into());
            let near = middle
                .to_bits()
                .wrapping_add_signed(chance.random_range(-9..10));
            let count = chance.random_range(1..26);
            let digits: String = (0..count).map(|_| chance.random_range('0'..='9')).collect();
            let whole = chance.random_range(0..10);
            let after = match chance.random_range(0..4) {
                0 => ", 0.12345678901234567890123".to_owned(),
                1 => ",-1.5e3,12345678901234567890123".to_owned(),
                2 => "]".repeat(chance.random_range(0..40)),
                // Bytes of which none goes on with a number.
                _ => (0..chance.random_range(0..40))
                    .map(|_| char::from(chance.random_range(b':'..b'E')))
                    .collect(),
            };
            for number in [
                format!("{one}"),
                format!("{}", f64::from(one)),
                format!("{middle}"),
                format!("{}", f64::from_bits(near)),
                format!("{one:e}"),
                format!("{whole}.{digits}"),
                format!("-{whole}.{digits}"),
                format!("{whole}.{digits}e-{whole}"),
                format!("{}", f64::from(whole)),
                "0.0".to_owned(),
                "-0.0".to_owned(),
            ] {
                check(&number, &after);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        let rest = "0, 0.5, 0.25, 0.125, 0.0625";
        for text in [
            "", ".", "-.", "1.,", "-1.e", ":.", "/.", "x.5", "01.5", "--1.5", "+1.5", "1e99",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
            let more = format!("{text},{rest}");
            assert_eq!(read(more.as_bytes()), None, "{more}");
        }
    }
}
