//! Which format a file has, by its first bytes; those that are not read are
//! named, with what to do.

use image::ImageFormat;

use super::foreign;
use crate::picture::PictureError;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
    Bmp,
    Tiff,
    Pnm,
}

impl Format {
    /// The format's name, as errors and logs have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
        }
    }
}

/// Finds the format.
///
/// # Errors
/// [`PictureError::Unsupported`] for a format that is known and not read,
/// [`PictureError::Unrecognised`] for anything else.
pub(super) fn sniff(bytes: &[u8]) -> Result<Format, PictureError> {
    if let Some(what) = foreign::name(bytes) {
        return Err(PictureError::Unsupported { what: what.into() });
    }
    // BigTIFF; the image crate knows only the classic kind.
    if bytes.starts_with(b"II\x2B\0\x08\0\0\0") || bytes.starts_with(b"MM\0\x2B\0\x08\0\0") {
        return Ok(Format::Tiff);
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
        Ok(ImageFormat::Png) => Ok(Format::Png),
        Ok(ImageFormat::Gif) => Ok(Format::Gif),
        Ok(ImageFormat::WebP) => Ok(Format::WebP),
        Ok(ImageFormat::Bmp) => Ok(Format::Bmp),
        Ok(ImageFormat::Tiff) => Ok(Format::Tiff),
        Ok(ImageFormat::Pnm) => Ok(Format::Pnm),
        Ok(other) => Err(PictureError::Unsupported {
            what: format!("{other:?} (convert it to JPEG or PNG)"),
        }),
        Err(_) => Err(PictureError::Unrecognised {
            head: bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>()
                .join(" "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_not_read_are_refused() {
        let error = sniff(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").expect_err("HEIC");
        assert!(matches!(error, PictureError::Unsupported { .. }), "{error}");
        assert!(error.to_string().starts_with("HEIC (convert it"), "{error}");
        for bytes in [&b"\0\0\0\0ftyp"[..], b"\0\0\0", b"hello"] {
            let error = sniff(bytes).expect_err("no picture");
            assert!(
                matches!(error, PictureError::Unrecognised { .. }),
                "{error}"
            );
        }
    }
}
