//! TIFF's directories, looked at before a decoder reads them.

use super::{PictureError, PictureLimits};

/// Tags from here on are metadata, which the decoder does not read.
const METADATA: usize = 700;
/// What the decoder takes for each of a tag's values, bytes.
const VALUE_BYTES: u64 = 32;

/// A file's directories, one a page.
pub(super) struct Directories<'a> {
    bytes: &'a [u8],
    little: bool,
    /// BigTIFF, whose fields are wider.
    big: bool,
}

impl<'a> Directories<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        let mut file = Self {
            bytes,
            little: bytes.starts_with(b"II"),
            big: false,
        };
        file.big = match file.number(2, 2)? {
            42 => false,
            43 => true,
            _ => return None,
        };
        Some(file)
    }

    fn number(&self, at: usize, size: usize) -> Option<usize> {
        let field = self.bytes.get(at..at.checked_add(size)?)?;
        let digit = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        Some(match self.little {
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

    /// Where the first directory is; 0 where there is none.
    pub(super) fn first(&self) -> Option<usize> {
        let (wide, ..) = self.sizes();
        self.number(wide, wide)
    }

    /// How many entries a directory has.
    pub(super) fn entries(&self, directory: usize) -> Option<usize> {
        self.number(directory, self.sizes().1)
    }

    fn entry(&self, directory: usize, index: usize) -> Option<usize> {
        let (_, count, entry) = self.sizes();
        index
            .checked_mul(entry)?
            .checked_add(count)?
            .checked_add(directory)
    }

    /// Where the directory after that one is; 0 after the last.
    pub(super) fn after(&self, directory: usize, entries: usize) -> Option<usize> {
        self.number(self.entry(directory, entries)?, self.sizes().0)
    }

    /// The tag, the type and the number of values of an entry.
    fn values(&self, directory: usize, index: usize) -> Option<(usize, usize, usize)> {
        let at = self.entry(directory, index)?;
        let (wide, ..) = self.sizes();
        Some((
            self.number(at, 2)?,
            self.number(at.checked_add(2)?, 2)?,
            self.number(at.checked_add(4)?, wide)?,
        ))
    }
}

/// Refuses a first page whose tags claim more than the file holds, or values
/// that take more than the limit: the decoder allocates what they claim, up to
/// a limit of its own, before it can be told one. What is no TIFF at all is
/// the decoder's to refuse.
pub(super) fn check(bytes: &[u8], limits: &PictureLimits) -> Result<(), PictureError> {
    let Some(file) = Directories::open(bytes) else {
        return Ok(());
    };
    let Some((directory, entries)) = file.first().and_then(|at| Some((at, file.entries(at)?)))
    else {
        return Ok(());
    };
    for (tag, kind, count) in (0..entries).map_while(|index| file.values(directory, index)) {
        if tag >= METADATA {
            continue;
        }
        let value = match kind {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        if count.saturating_mul(value) > bytes.len() {
            return Err(PictureError::Undecodable {
                format: "TIFF",
                detail: format!(
                    "its tag {tag} claims {count} values in a file of {} bytes",
                    bytes.len()
                ),
            });
        }
        limits.check_decoder((count as u64).saturating_mul(VALUE_BYTES))?;
    }
    Ok(())
}
