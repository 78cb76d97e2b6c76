//! Why a JPEG is refused.

use crate::picture::PictureError;

pub(super) fn truncated() -> PictureError {
    PictureError::Truncated {
        format: "JPEG",
        detail: "the data ends before the picture does".into(),
    }
}

pub(super) fn undecodable(detail: impl ToString) -> PictureError {
    PictureError::Undecodable {
        format: "JPEG",
        detail: detail.to_string(),
    }
}

pub(super) fn unsupported(what: String) -> PictureError {
    PictureError::Unsupported {
        what: format!("a JPEG {what} (save it again as baseline JPEG, or as PNG)"),
    }
}
