//! The run lengths of BMPs with 16 or 256 colours.

use super::errors::truncated;
use crate::picture::PictureError;

/// The indices, one byte each, row by row as they are stored. What runs leave out of a row is
/// index 0; where rows are missing, the picture is.
pub(super) fn indices(
    mut data: &[u8],
    width: usize,
    height: usize,
    bits: usize,
) -> Result<Vec<u8>, PictureError> {
    let mut canvas = Canvas {
        indices: vec![0; width * height],
        width,
        at: 0,
        row: 0,
        bits,
    };
    // Whatever follows the last pixel is not looked at, the end mark included.
    while canvas.row < height && !(canvas.row == height - 1 && canvas.at >= width) {
        let [count, value] = *data.split_off_first_pair().ok_or_else(truncated)?;
        match (count, value) {
            (1.., _) => canvas.run(usize::from(count), value),
            (0, 0) => canvas.end_row(),
            (0, 1) => return Err(truncated()),
            (0, 2) => {
                let [right, down] = *data.split_off_first_pair().ok_or_else(truncated)?;
                canvas.at += usize::from(right);
                canvas.row += usize::from(down);
            }
            (0, count) => {
                let count = usize::from(count);
                let length = (count * bits).div_ceil(8);
                let literal = data.get(..length).ok_or_else(truncated)?;
                canvas.literal(literal, count);
                data = data.get(length.next_multiple_of(2)..).unwrap_or_default();
            }
        }
    }
    Ok(canvas.indices)
}

struct Canvas {
    indices: Vec<u8>,
    width: usize,
    /// The column and row of the next pixel.
    at: usize,
    row: usize,
    bits: usize,
}

impl Canvas {
    /// Pixels beyond the row's end are dropped.
    fn put(&mut self, index: u8) {
        if self.at < self.width {
            let place = self.row * self.width + self.at;
            if let Some(place) = self.indices.get_mut(place) {
                *place = index;
            }
            self.at += 1;
        }
    }

    /// One index `count` times; of four bits two, by turns.
    fn run(&mut self, count: usize, value: u8) {
        for number in 0..count {
            self.put(self.part(value, number));
        }
    }

    fn literal(&mut self, bytes: &[u8], count: usize) {
        let in_byte = 8 / self.bits;
        for number in 0..count {
            let byte = bytes.get(number / in_byte).copied().unwrap_or(0);
            self.put(self.part(byte, number));
        }
    }

    fn part(&self, byte: u8, number: usize) -> u8 {
        match (self.bits, number % 2) {
            (4, 0) => byte >> 4,
            (4, _) => byte & 0x0F,
            _ => byte,
        }
    }

    fn end_row(&mut self) {
        self.row += 1;
        self.at = 0;
    }
}

/// Takes the first two bytes off.
trait Pairs {
    fn split_off_first_pair(&mut self) -> Option<&[u8; 2]>;
}

impl Pairs for &[u8] {
    fn split_off_first_pair(&mut self) -> Option<&[u8; 2]> {
        let (pair, rest) = self.split_first_chunk::<2>()?;
        *self = rest;
        Some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_literals_and_steps_fill_the_rows() {
        // A run, a literal of three and its padding, the end of the row; a step; no end mark.
        let data = [2, 7, 0, 3, 1, 2, 3, 0, 0, 0, 0, 2, 3, 0, 2, 9];
        let found = indices(&data, 5, 2, 8).expect("whole");
        assert_eq!(found, [7, 7, 1, 2, 3, 0, 0, 0, 9, 9]);
        let data = [3, 0x12, 0, 3, 0x34, 0x50];
        assert_eq!(indices(&data, 6, 1, 4).expect("whole"), [1, 2, 1, 3, 4, 5]);
        let short_rows = [2, 7, 0, 0, 2, 8, 0, 0];
        assert_eq!(
            indices(&short_rows, 3, 2, 8).expect("whole"),
            [7, 7, 0, 8, 8, 0]
        );
    }

    #[test]
    fn a_picture_without_all_its_rows_is_truncated() {
        for data in [
            &[3, 7, 0, 0, 0, 1][..],
            &[3, 7, 0, 0],
            &[3, 7, 0, 0, 0, 3, 1],
            &[3],
        ] {
            assert!(indices(data, 3, 2, 8).is_err(), "{data:?}");
        }
    }
}
