//! Numbers as JSON writes them.

/// The largest power of ten that a 64-bit float holds exactly.
const EXACT_TENS: usize = 22;
pub const TENS: [f64; EXACT_TENS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// The same as whole numbers, as far as 64 bits hold any sixteen digits of them.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler evaluates it, and refuses an index out of bounds"
)]
pub const WHOLE_TENS: [u64; 17] = {
    let mut tens = [1; 17];
    let mut n = 1;
    while n < tens.len() {
        tens[n] = 10 * tens[n - 1];
        n += 1;
    }
    tens
};

/// A number, as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decimal<'a> {
    /// The number as written, sign and exponent included.
    pub text: &'a [u8],
    /// Whether it has neither fraction nor exponent.
    pub is_integer: bool,
    is_negative: bool,
    /// Its digits, if 64 bits hold them.
    digits: Option<u64>,
    /// The power of ten that they are multiplied by.
    exponent: i32,
}

impl<'a> Decimal<'a> {
    /// The number that a text begins with; none if it begins with none, or with
    /// one that JSON would write in another way ("01", "1.", "+1").
    pub fn parse(text: &'a [u8]) -> Option<Decimal<'a>> {
        let is_negative = text.first() == Some(&b'-');
        let mut rest = text.get(usize::from(is_negative)..)?;
        let mut digits = Digits::default();
        // Most numbers of an embedding begin so, and no digit follows the 0 of another.
        if let Some((b'0', after)) = rest.split_first() {
            rest = after;
            if rest.first().is_some_and(u8::is_ascii_digit) {
                return None;
            }
        } else if digits.read(&mut rest) == 0 {
            return None;
        }
        let mut exponent: i32 = 0;
        let mut is_integer = true;
        if let Some((b'.', after)) = rest.split_first() {
            rest = after;
            let fraction = digits.read(&mut rest);
            if fraction == 0 {
                return None;
            }
            is_integer = false;
            exponent = -i32::try_from(fraction).ok()?;
        }
        if let Some((b'e' | b'E', after)) = rest.split_first() {
            rest = after;
            is_integer = false;
            exponent = exponent.saturating_add(power(&mut rest)?);
        }
        let length = text.len() - rest.len();
        Some(Decimal {
            text: text.get(..length)?,
            is_integer,
            is_negative,
            digits: (!digits.are_too_many).then_some(digits.value),
            exponent,
        })
    }

    /// The nearest 32-bit float; an infinity if it is beyond all of them.
    ///
    /// Digits and power of ten, each in 64 bits, give the value but for two
    /// roundings: less than 3 units in the last of 53 bits. Rounding that to 24
    /// bits gives the nearest unless it is about as near to the middle between
    /// two of them, which is left to the standard library, as is what is very
    /// large or small.
    pub fn to_f32(self) -> f32 {
        self.quickly().unwrap_or_else(|| {
            let text = str::from_utf8(self.text).ok();
            text.and_then(|text| text.parse().ok()).unwrap_or(f32::NAN)
        })
    }

    fn quickly(self) -> Option<f32> {
        const MARGIN: u64 = 8;
        let digits = self.digits?;
        let sign = if self.is_negative { -1.0_f32 } else { 1.0 };
        if digits == 0 {
            return Some(0.0 * sign);
        }
        let tens = *TENS.get(self.exponent.unsigned_abs() as usize)?;
        let value = match self.exponent < 0 {
            true => digits as f64 / tens,
            false => digits as f64 * tens,
        };
        let is_safe = from_middle(value) > MARGIN && (1e-37..1e38).contains(&value);
        is_safe.then_some(value as f32 * sign)
    }

    /// The nearest 64-bit float; an infinity if it is beyond all of them.
    pub fn to_f64(self) -> f64 {
        let text = str::from_utf8(self.text).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
    }

    /// As an integer from 0, if it is written as one.
    pub fn to_u64(self) -> Option<u64> {
        let text = str::from_utf8(self.text).ok().filter(|_| self.is_integer)?;
        text.parse().ok()
    }

    /// As an integer, if it is written as one.
    pub fn to_i64(self) -> Option<i64> {
        let text = str::from_utf8(self.text).ok().filter(|_| self.is_integer)?;
        text.parse().ok()
    }
}

/// How far a number is from the middle between two 32-bit floats, in units of its
/// last bit.
#[inline]
pub fn from_middle(value: f64) -> u64 {
    const DROPPED: u64 = (1 << 29) - 1;
    const MIDDLE: u64 = 1 << 28;
    (value.to_bits() & DROPPED).abs_diff(MIDDLE)
}

/// Decimal digits as they are read.
#[derive(Default)]
struct Digits {
    value: u64,
    are_too_many: bool,
}

impl Digits {
    /// Reads on; gives how many there were.
    fn read(&mut self, rest: &mut &[u8]) -> usize {
        let before = rest.len();
        while let Some(eight) = rest.first_chunk::<8>() {
            let (count, digits) = leading_digits(*eight);
            self.add(count, digits);
            *rest = rest.get(count..).unwrap_or_default();
            if count < 8 {
                return before - rest.len();
            }
        }
        while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
            self.add(1, u64::from(digit - b'0'));
            *rest = after;
        }
        before - rest.len()
    }

    fn add(&mut self, count: usize, digits: u64) {
        let tens = WHOLE_TENS.get(count).copied().unwrap_or_default();
        let value = self.value.checked_mul(tens);
        match value.and_then(|value| value.checked_add(digits)) {
            Some(value) => self.value = value,
            None => self.are_too_many = true,
        }
    }
}

/// How many of eight characters are digits before the first that is none, and
/// the number that these make. All are looked at together, and three
/// multiplications add them up (Lemire, "Number parsing at a gigabyte per second",
/// 2021): a branch for each would be guessed wrong at each number's end.
#[inline]
pub fn leading_digits(text: [u8; 8]) -> (usize, u64) {
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let bytes = u64::from_le_bytes(text);
    // Nothing is left of a digit: its upper half is 3, and still is with 6 more.
    let carried = bytes.wrapping_add(0x0606_0606_0606_0606);
    let others = ((bytes & HIGH) ^ ZEROS) | ((carried & HIGH) ^ ZEROS);
    let count = others.trailing_zeros() / 8;
    if count == 0 {
        return (0, 0);
    }
    // To the end, with nothing before them: so they are the last of eight.
    let values = (bytes << (64 - 8 * count)) & 0x0F0F_0F0F_0F0F_0F0F;
    (count as usize, united(values))
}

/// The number that eight digits make: the values 0 to 9, the first in the lowest
/// byte.
#[inline]
pub fn united(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let odd = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let even = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    odd.wrapping_add(even) >> 32
}

/// An exponent, without its letter.
fn power(rest: &mut &[u8]) -> Option<i32> {
    let sign = match rest.first() {
        Some(b'-') => -1,
        _ => 1,
    };
    if let Some((b'-' | b'+', after)) = rest.split_first() {
        *rest = after;
    }
    let mut power: i32 = 0;
    let before = rest.len();
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        power = power
            .saturating_mul(10)
            .saturating_add(i32::from(digit - b'0'));
        *rest = after;
    }
    (rest.len() < before).then_some(sign * power)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn read(text: &str) -> f32 {
        let decimal = Decimal::parse(text.as_bytes()).expect("a number");
        assert_eq!(decimal.text, text.as_bytes());
        decimal.to_f32()
    }

    /// Where rounding twice would go wrong: at, and close to, the middle between
    /// two floats; beside random digits of all lengths and powers.
    #[test]
    fn floats_are_the_nearest_to_the_last_bit() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..100_000 {
            let one = f32::from_bits(chance.random_range(0..0x7f7f_ffff));
            let next = f32::from_bits(one.to_bits() + 1);
            let middle = f64::midpoint(one.into(), next.into());
            let near = f64::from_bits(
                middle
                    .to_bits()
                    .wrapping_add_signed(chance.random_range(-9..10)),
            );
            let count = chance.random_range(1..24);
            let digits: String = (0..count).map(|_| chance.random_range('0'..='9')).collect();
            let power = chance.random_range(-60..50);
            for text in [
                format!("{one}"),
                format!("{one:e}"),
                format!("{middle}"),
                format!(
                    "{middle}{}1",
                    if middle.fract() == 0.0 { ".00" } else { "00" }
                ),
                format!("{near:e}"),
                format!("-{}", f64::from(one)),
                format!("0.{digits}"),
                format!("1{digits}.5e{power}"),
                format!("-0.{digits}E{power}"),
            ] {
                let wanted: f32 = text.parse().expect("a float");
                assert_eq!(read(&text).to_bits(), wanted.to_bits(), "{text}");
            }
        }
    }

    #[test]
    fn integers_are_kept_whole() {
        for (text, unsigned, signed) in [
            ("0", Some(0), Some(0)),
            ("-0", None, Some(0)),
            ("18446744073709551615", Some(u64::MAX), None),
            ("-9223372036854775808", None, Some(i64::MIN)),
            ("18446744073709551616", None, None),
            ("1e3", None, None),
            ("1.0", None, None),
        ] {
            let decimal = Decimal::parse(text.as_bytes()).expect("a number");
            assert_eq!(
                (decimal.to_u64(), decimal.to_i64()),
                (unsigned, signed),
                "{text}"
            );
        }
    }

    #[test]
    fn what_json_does_not_write_is_no_number() {
        for text in [
            "", "-", "+1", "01", "-01", ".5", "1.", "1.e5", "1e", "1e+", "inf", "NaN", "x",
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
        let decimal = Decimal::parse(b"12,").expect("a number");
        assert_eq!(decimal.text, b"12");
    }
}
