//! Why a BMP is refused.

use crate::picture::PictureError;

pub(super) fn truncated() -> PictureError {
    PictureError::Truncated {
        format: "BMP",
        detail: "the data ends before the picture does".into(),
    }
}

pub(super) fn undecodable(detail: impl Into<String>) -> PictureError {
    PictureError::Undecodable {
        format: "BMP",
        detail: detail.into(),
    }
}
