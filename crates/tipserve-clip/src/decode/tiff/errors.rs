//! Why a TIFF is refused.

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
pub(super) fn unsupported(what: String) -> PictureError {
    PictureError::Unsupported {
        what: format!(
            "a TIFF {what} (convert it to 8 bits, or to PNG: where black and white lie is the \
             sender's to say)"
        ),
    }
}
