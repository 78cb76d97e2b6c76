//! The tags of one directory, by their numbers.

use super::{directory::Directories, errors::undecodable};
use crate::picture::PictureError;

/// The tags of one directory.
pub(super) struct Tags<'f, 'a> {
    pub file: &'f Directories<'a>,
    pub directory: usize,
}

impl<'a> Tags<'_, 'a> {
    /// All values of a tag; none if the page does not have it.
    pub(super) fn all(&self, tag: usize) -> Result<Option<Vec<usize>>, PictureError> {
        self.file.numbers(self.directory, tag)
    }

    /// The first value of a tag.
    pub(super) fn one(&self, tag: usize) -> Result<Option<usize>, PictureError> {
        Ok(self.all(tag)?.and_then(|values| values.first().copied()))
    }

    /// The first value of a tag, or what counts where it is missing.
    pub(super) fn or(&self, tag: usize, default: usize) -> Result<usize, PictureError> {
        Ok(self.one(tag)?.unwrap_or(default))
    }

    /// A number of pixels, which must be there.
    pub(super) fn side(&self, tag: usize, name: &str) -> Result<u32, PictureError> {
        let side = self
            .one(tag)?
            .ok_or_else(|| undecodable(format!("its {name} is missing")))?;
        u32::try_from(side).map_err(|_| undecodable(format!("its {name} is {side}")))
    }

    /// The `N` fractions of a tag, or those that count where it is missing.
    pub(super) fn fractions<const N: usize>(
        &self,
        tag: usize,
        default: [f32; N],
    ) -> Result<[f32; N], PictureError> {
        let Some(fractions) = self.file.fractions(self.directory, tag)? else {
            return Ok(default);
        };
        fractions
            .try_into()
            .map_err(|_| undecodable(format!("its tag {tag} does not have {N} values")))
    }

    /// The bytes of a tag.
    pub(super) fn raw(&self, tag: usize) -> Option<&'a [u8]> {
        self.file.raw(self.directory, tag)
    }
}
