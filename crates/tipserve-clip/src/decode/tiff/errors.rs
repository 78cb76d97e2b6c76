//! Why a TIFF is refused.

use std::fmt::Display;

use crate::picture::PictureError;

pub(super) fn truncated() -> PictureError {
    PictureError::Truncated {
        format: "TIFF",
        detail: "the data ends before the picture does".into(),
    }
}

pub(super) fn undecodable(detail: impl ToString) -> PictureError {
    PictureError::Undecodable {
        format: "TIFF",
        detail: detail.to_string(),
    }
}

/// A kind of TIFF that is not read, with what to do.
pub(super) fn unsupported(what: impl Display) -> PictureError {
    PictureError::Unsupported {
        what: format!(
            "a TIFF {what} (save it as PNG, or as a TIFF of 8 bits with LZW or Deflate \
             compression)"
        ),
    }
}

/// A TIFF whose black and white nothing tells.
pub(super) fn unclear_levels(what: impl Display) -> PictureError {
    PictureError::Unsupported {
        what: format!(
            "a TIFF {what} (convert it to 8 bits, or to PNG: where black and white lie is the \
             sender's to say)"
        ),
    }
}
