//! CCITT's codings of one bit a pixel: modified Huffman, T.4 (Group 3) in one
//! and in two dimensions, and T.6 (Group 4). The tables of codes are the `fax`
//! crate's; its decoders know neither the first nor the third.

use fax::{
    BitReader,
    maps::{Mode, black, mode, white},
};

/// How rows are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Runs alone; each row begins with a byte, or with a word of 16 bits.
    ModifiedHuffman { words: bool },
    /// Rows end with a code; in two dimensions a bit after it says whether the
    /// next one is coded by the one before it.
    Group3 { two_dimensions: bool },
    /// Each row is coded by the one before it.
    Group4,
}

/// Rows of packed bits, 1 for black, into `out`, which is all white.
///
/// # Errors
/// The number of the row that is damaged or missing.
pub(super) fn decode(coding: Coding, data: &[u8], width: u32, out: &mut [u8]) -> Result<(), usize> {
    let mut rows = Rows {
        bits: Bits { data, at: 0 },
        width,
        before: Vec::new(),
        changes: Vec::new(),
    };
    let row_bytes = (width as usize).div_ceil(8).max(1);
    for (number, row) in out.chunks_exact_mut(row_bytes).enumerate() {
        match rows.next(coding) {
            Some(Row::Drawn) => rows.draw(row),
            // What an end mark leaves is white: some writers stop after the
            // last row that is not.
            Some(Row::End) if number > 0 => return Ok(()),
            Some(Row::End) | None => return Err(number),
        }
    }
    Ok(())
}

/// Bits from the highest of each byte on; zeros after the last.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl BitReader for Bits<'_> {
    type Error = ();

    fn peek(&self, bits: u8) -> Option<u16> {
        let from = self.data.get(self.at / 8..).unwrap_or_default();
        let bytes = (0..3).fold(0_u32, |sum, at| {
            sum << 8 | u32::from(from.get(at).copied().unwrap_or(0))
        });
        let bits = u32::from(bits.min(16));
        let shifted = bytes >> (24 - bits - (self.at % 8) as u32);
        Some((shifted & ((1 << bits) - 1)) as u16)
    }

    fn consume(&mut self, bits: u8) -> Result<(), ()> {
        self.at += usize::from(bits);
        if self.at > self.data.len() * 8 {
            return Err(());
        }
        Ok(())
    }

    fn bits_to_byte_boundary(&self) -> u8 {
        (self.at.next_multiple_of(8) - self.at) as u8
    }
}

enum Row {
    Drawn,
    End,
}

struct Rows<'a> {
    bits: Bits<'a>,
    width: u32,
    /// Where the colour changes in the row before, in ascending order; the
    /// first is from white to black.
    before: Vec<u32>,
    changes: Vec<u32>,
}

impl Rows<'_> {
    /// Reads the next row's changes; none if it is damaged or missing.
    fn next(&mut self, coding: Coding) -> Option<Row> {
        std::mem::swap(&mut self.before, &mut self.changes);
        self.changes.clear();
        match coding {
            Coding::ModifiedHuffman { words } => {
                self.runs()?;
                let unit = if words { 16 } else { 8 };
                self.bits.at = self.bits.at.next_multiple_of(unit);
                Some(Row::Drawn)
            }
            Coding::Group3 { two_dimensions } => {
                let marked = self.end_of_line()?;
                if marked && self.at_end_of_line() {
                    return None; // six in a row end the picture
                }
                let by_runs = !two_dimensions || {
                    let bit = self.bits.peek(1)?;
                    self.bits.consume(1).ok()?;
                    bit == 1
                };
                if by_runs {
                    self.runs()?;
                    return Some(Row::Drawn);
                }
                self.by_row_before()
            }
            Coding::Group4 => self.by_row_before(),
        }
    }

    /// Whether an end of line is next: no run begins with so many zeros.
    fn at_end_of_line(&self) -> bool {
        self.bits.peek(11) == Some(0)
    }

    /// Passes over an end of line and the zeros before it, if it is there.
    fn end_of_line(&mut self) -> Option<bool> {
        if !self.at_end_of_line() {
            return Some(false);
        }
        while self.bits.peek(1) == Some(0) {
            self.bits.consume(1).ok()?;
        }
        self.bits.consume(1).ok()?;
        Some(true)
    }

    /// A row of runs, white and black in turn.
    fn runs(&mut self) -> Option<()> {
        let (mut at, mut is_black) = (0, false);
        while at < self.width {
            at = self.run(at, is_black)?;
            self.change(at);
            is_black = !is_black;
        }
        Some(())
    }

    /// Where a run that begins at `from` ends.
    fn run(&mut self, from: u32, is_black: bool) -> Option<u32> {
        let mut to = from;
        loop {
            let length = if is_black {
                black::decode(&mut self.bits)?
            } else {
                white::decode(&mut self.bits)?
            };
            to += u32::from(length);
            if to > self.width {
                return None;
            }
            if length < 64 {
                return Some(to);
            }
        }
    }

    /// A row that is coded by the one before it (T.6, 2.2).
    fn by_row_before(&mut self) -> Option<Row> {
        // None: before the row's first pixel.
        let mut from: Option<u32> = None;
        let (mut is_black, mut index) = (false, 0);
        while from.is_none_or(|at| at < self.width) {
            let at = from.unwrap_or(0);
            match mode::decode(&mut self.bits)? {
                Mode::Pass => {
                    index = self.opposite(index, from, is_black);
                    from = Some(self.change_before(index + 1));
                }
                Mode::Horizontal => {
                    for colour in [is_black, !is_black] {
                        let end = self.run(from.unwrap_or(0), colour)?;
                        self.change(end);
                        from = Some(end);
                    }
                }
                Mode::Vertical(by) => {
                    index = self.opposite(index, from, is_black);
                    let end = self
                        .change_before(index)
                        .checked_add_signed(i32::from(by))
                        .filter(|end| (at..=self.width).contains(end))?;
                    self.change(end);
                    from = Some(end);
                    is_black = !is_black;
                }
                Mode::EOF if from.is_none() => return Some(Row::End),
                // Uncompressed mode, which no known writer uses.
                Mode::EOF | Mode::Extension => return None,
            }
        }
        Some(Row::Drawn)
    }

    /// The row before's first change right of `from` to the colour that the
    /// row does not have there; `index` is where the last one was found.
    fn opposite(&self, mut index: usize, from: Option<u32>, is_black: bool) -> usize {
        let right = |index: usize| {
            let change = self.before.get(index);
            change.is_none_or(|change| from.is_none_or(|from| *change > from))
        };
        while index > 0 && right(index - 1) {
            index -= 1;
        }
        while !right(index) {
            index += 1;
        }
        // Changes to black have even numbers.
        index + usize::from((index % 2 == 1) != is_black)
    }

    /// Where the row before changes; after its last change, its end.
    fn change_before(&self, index: usize) -> u32 {
        self.before.get(index).copied().unwrap_or(self.width)
    }

    /// Notes a change of colour. Two at one place are none.
    fn change(&mut self, at: u32) {
        if self.changes.last() == Some(&at) {
            self.changes.pop();
        } else if at < self.width {
            self.changes.push(at);
        }
    }

    /// Sets the row's black bits.
    fn draw(&self, row: &mut [u8]) {
        for run in self.changes.chunks(2) {
            let (from, to) = match *run {
                [from, to] => (from as usize, to as usize),
                [from] => (from as usize, self.width as usize),
                _ => continue,
            };
            let (first, last) = (from / 8, (to - 1) / 8);
            let left = 0xFF_u8 >> (from % 8);
            let right = 0xFF_u8 << (7 - (to - 1) % 8);
            for (at, byte) in row.iter_mut().enumerate().take(last + 1).skip(first) {
                let mut mask = 0xFF;
                if at == first {
                    mask &= left;
                }
                if at == last {
                    mask &= right;
                }
                *byte |= mask;
            }
        }
    }
}
