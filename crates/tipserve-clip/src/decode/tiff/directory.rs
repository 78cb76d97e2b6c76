//! TIFF's directories (one a page) and the values of their tags, in classic
//! TIFF and in BigTIFF.

use super::errors::{truncated, undecodable};
use crate::picture::{PictureError, PictureLimits};

/// Tags from here on are metadata, which is not read.
const METADATA: usize = 700;

/// What a value takes once it is read, bytes.
const VALUE_BYTES: u64 = size_of::<u64>() as u64;

/// A TIFF file whose header has been read.
pub(in crate::decode) struct Directories<'a> {
    bytes: &'a [u8],
    little_endian: bool,
    /// BigTIFF, whose fields are wider.
    big: bool,
}

/// One tag of a directory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: usize,
    /// The type of its values, by TIFF's number.
    kind: usize,
    /// Bytes that one value takes.
    size: usize,
    /// How many values the tag has.
    count: usize,
    /// Where the values, or the offset of the values, stand in the file.
    at: usize,
}

impl<'a> Directories<'a> {
    pub(in crate::decode) fn open(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = match bytes.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let mut file = Self {
            bytes,
            little_endian,
            big: false,
        };
        file.big = match file.number(2, 2)? {
            42 => false,
            43 => true,
            _ => return None,
        };
        Some(file)
    }

    /// Whether samples of several bytes begin with the least significant one.
    pub(super) fn little_endian(&self) -> bool {
        self.little_endian
    }

    fn number(&self, at: usize, size: usize) -> Option<usize> {
        let field = self.bytes.get(at..at.checked_add(size)?)?;
        let digit = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        Some(match self.little_endian {
            true => field.iter().rev().fold(0, digit),
            false => field.iter().fold(0, digit),
        })
    }

    /// Sizes of an offset, of a directory's count of entries, and of an entry.
    fn sizes(&self) -> (usize, usize, usize) {
        match self.big {
            false => (4, 2, 12),
            true => (8, 8, 20),
        }
    }

    /// Where the first directory is; 0 if there is none.
    pub(in crate::decode) fn first(&self) -> Option<usize> {
        let (wide, ..) = self.sizes();
        self.number(wide, wide)
    }

    /// How many entries a directory has.
    pub(in crate::decode) fn entries(&self, directory: usize) -> Option<usize> {
        self.number(directory, self.sizes().1)
    }

    fn position(&self, directory: usize, index: usize) -> Option<usize> {
        let (_, count, entry) = self.sizes();
        index
            .checked_mul(entry)?
            .checked_add(count)?
            .checked_add(directory)
    }

    /// Where the directory after that one is; 0 after the last.
    pub(in crate::decode) fn after(&self, directory: usize, entries: usize) -> Option<usize> {
        self.number(self.position(directory, entries)?, self.sizes().0)
    }

    fn entry(&self, directory: usize, index: usize) -> Option<Entry> {
        let at = self.position(directory, index)?;
        let (wide, ..) = self.sizes();
        let kind = self.number(at.checked_add(2)?, 2)?;
        let size = match kind {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        Some(Entry {
            tag: self.number(at, 2)?,
            kind,
            size,
            count: self.number(at.checked_add(4)?, wide)?,
            at: at.checked_add(4 + wide)?,
        })
    }

    /// The bytes of an entry's values: in the entry itself if they fit.
    fn values(&self, entry: Entry) -> Option<&'a [u8]> {
        let length = entry.count.checked_mul(entry.size)?;
        let (wide, ..) = self.sizes();
        let start = if length <= wide {
            entry.at
        } else {
            self.number(entry.at, wide)?
        };
        self.bytes.get(start..start.checked_add(length)?)
    }

    /// Refuses a page whose tags are not all there, or claim more values than the file has bytes
    /// for, or more than fit the memory limit once read.
    pub(super) fn check(
        &self,
        directory: usize,
        limits: &PictureLimits,
    ) -> Result<(), PictureError> {
        let entries = self
            .entries(directory)
            .ok_or_else(|| undecodable("it has no directory"))?;
        // Without its last tags it may be another picture.
        let end = self.position(directory, entries);
        if end.is_none_or(|end| end > self.bytes.len()) {
            return Err(truncated());
        }
        let entries = (0..entries).map_while(|index| self.entry(directory, index));
        for Entry {
            tag, size, count, ..
        } in entries.filter(|entry| entry.tag < METADATA)
        {
            if count.saturating_mul(size) > self.bytes.len() {
                return Err(undecodable(format!(
                    "its tag {tag} claims {count} values in a file of {} bytes",
                    self.bytes.len()
                )));
            }
            limits.check_decoder((count as u64).saturating_mul(VALUE_BYTES))?;
        }
        Ok(())
    }

    fn find(&self, directory: usize, tag: usize) -> Option<Entry> {
        let entries = self.entries(directory)?;
        (0..entries)
            .map_while(|index| self.entry(directory, index))
            .find(|entry| entry.tag == tag)
    }

    /// The unsigned numbers of a tag; none if the page does not have it.
    pub(in crate::decode) fn numbers(
        &self,
        directory: usize,
        tag: usize,
    ) -> Result<Option<Vec<usize>>, PictureError> {
        let Some(entry) = self.find(directory, tag) else {
            return Ok(None);
        };
        let values = self
            .values(entry)
            .ok_or_else(|| undecodable(format!("the values of its tag {tag} are missing")))?;
        let digit = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        let number = |value: &[u8]| match self.little_endian {
            true => value.iter().rev().fold(0, digit),
            false => value.iter().fold(0, digit),
        };
        Ok(Some(values.chunks_exact(entry.size).map(number).collect()))
    }

    /// The fractions of a tag; none if the page does not have it. One without a
    /// denominator is 0, as libtiff has it.
    pub(super) fn fractions(
        &self,
        directory: usize,
        tag: usize,
    ) -> Result<Option<Vec<f32>>, PictureError> {
        const RATIONAL: usize = 5;
        const FLOAT: usize = 11;
        let kind = self.find(directory, tag).map(|entry| entry.kind);
        let Some(numbers) = self.numbers(directory, tag)? else {
            return Ok(None);
        };
        let fraction = |number: usize| match kind {
            Some(RATIONAL) => {
                // Read as one number of 8 bytes: which half comes first follows their order.
                let (high, low) = ((number >> 32) as u32, number as u32);
                let (above, below) = if self.little_endian {
                    (low, high)
                } else {
                    (high, low)
                };
                if below == 0 {
                    0.0
                } else {
                    above as f32 / below as f32
                }
            }
            Some(FLOAT) => f32::from_bits(number as u32),
            _ => number as f32,
        };
        Ok(Some(numbers.into_iter().map(fraction).collect()))
    }

    /// The first value of the last tag of this number: EXIF's readers have the last.
    pub(in crate::decode) fn last_value(&self, directory: usize, tag: usize) -> Option<f64> {
        const RATIONAL: usize = 5;
        const SIGNED_RATIONAL: usize = 10;
        const FLOAT: usize = 11;
        const DOUBLE: usize = 12;
        let entries = self.entries(directory)?;
        let entry = (0..entries)
            .map_while(|index| self.entry(directory, index))
            .filter(|entry| entry.tag == tag)
            .last()?;
        let value = self.values(entry)?.get(..entry.size)?;
        let whole = |value: &[u8]| {
            let digit = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
            match self.little_endian {
                true => value.iter().rev().fold(0, digit),
                false => value.iter().fold(0, digit),
            }
        };
        Some(match entry.kind {
            RATIONAL | SIGNED_RATIONAL => {
                let (above, below) = value.split_at(4);
                whole(above) as f64 / whole(below) as f64
            }
            FLOAT => f32::from_bits(whole(value) as u32).into(),
            DOUBLE => f64::from_bits(whole(value)),
            _ => whole(value) as f64,
        })
    }

    /// Whether a tag's values are numbers, and not bytes or characters.
    pub(in crate::decode) fn is_numeric(&self, directory: usize, tag: usize) -> bool {
        const BYTE: usize = 1;
        const ASCII: usize = 2;
        const UNDEFINED: usize = 7;
        let entry = self.find(directory, tag);
        entry.is_some_and(|entry| !matches!(entry.kind, BYTE | ASCII | UNDEFINED))
    }

    /// The bytes of a tag; none if the page does not have it.
    pub(super) fn raw(&self, directory: usize, tag: usize) -> Option<&'a [u8]> {
        self.values(self.find(directory, tag)?)
    }
}
