//! 32-bit floats as lists of them have them: `-0.0123456789`, or `0.012345678955888748`
//! from a program that prints 64 bits. Neither a digit nor the number of digits
//! costs a branch, which would be guessed wrong at most numbers' ends.

use super::decimal::{Decimal, TENS, from_middle, leading_digits, united};

/// Digits after the point that are read at once.
const BLOCK: usize = 16;

/// The nearest float to the number that a text begins with, and that number's
/// length; none if it begins with none, or with one beyond all floats.
#[inline]
pub fn read(text: &[u8]) -> Option<(f32, usize)> {
    quickly(text).or_else(|| any(text))
}

/// A number of whatever form.
#[cold]
fn any(text: &[u8]) -> Option<(f32, usize)> {
    let number = Decimal::parse(text)?;
    let value = number.to_f32();
    value.is_finite().then_some((value, number.text.len()))
}

/// 10ⁿ for n up to 16: all of these are whole and far below 2⁶⁴.
#[inline]
fn whole_ten(n: usize) -> Option<u64> {
    TENS.get(..=BLOCK)?.get(n).map(|&ten| ten as u64)
}

/// A number of one digit, a point and one to twenty-two more digits, with as many
/// bytes after it as are looked at together.
#[inline]
fn quickly(text: &[u8]) -> Option<(f32, usize)> {
    /// How far from the middle between two floats it is safe to round to one of
    /// them, see [`Decimal::to_f32`].
    const MARGIN: u64 = 8;
    let is_negative = text.first() == Some(&b'-');
    let unsigned = text.get(usize::from(is_negative)..)?;
    let ([whole, b'.'], fraction) = unsigned.split_first_chunk::<2>()? else {
        return None;
    };
    let whole = whole.wrapping_sub(b'0');
    let (mut count, digits) = first_digits(*fraction.first_chunk()?);
    if whole > 9 || count == 0 {
        return None;
    }
    // At most seventeen digits.
    let mut digits = u64::from(whole) * whole_ten(count)? + digits;
    if count == BLOCK {
        let (more, least) = leading_digits(*fraction.get(BLOCK..)?.first_chunk()?);
        digits = digits.checked_mul(whole_ten(more)?)?.checked_add(least)?;
        count += more;
    }
    let tens = TENS.get(count)?;
    if matches!(fraction.get(count), None | Some(b'e' | b'E' | b'0'..=b'9')) {
        return None;
    }
    let value = digits as f64 / tens;
    if from_middle(value) <= MARGIN {
        return None;
    }
    let sign = u32::from(is_negative) << 31;
    let value = f32::from_bits((value as f32).to_bits() | sign);
    Some((value, usize::from(is_negative) + 2 + count))
}

/// How many of sixteen characters are digits before the first that is none, and
/// the number that these make.
#[inline]
fn first_digits(text: [u8; BLOCK]) -> (usize, u64) {
    const ZEROS: u128 = u128::from_le_bytes([b'0'; BLOCK]);
    // Sets the top bit of all that is over 9.
    const CARRY: u128 = u128::from_le_bytes([0x80 - 10; BLOCK]);
    const TOP: u128 = u128::from_le_bytes([0x80; BLOCK]);
    let values = u128::from_le_bytes(text) ^ ZEROS;
    // What is carried on goes to characters after one that is no digit.
    let others = (values.wrapping_add(CARRY) | values) & TOP;
    let count = others.trailing_zeros() / 8;
    // To the end, with zeros before them; nothing, if there are none.
    let last = values
        .checked_shl(u128::BITS - 8 * count)
        .unwrap_or_default();
    let upper = united(last as u64) * 100_000_000;
    (count as usize, upper + united((last >> 64) as u64))
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
