//! Which format a file has, by its first bytes; those that are not read are
//! named, with what to do.

use image::ImageFormat;

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
    pub(super) fn name(self) -> &'static str {
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
    if let Some(what) = not_read(bytes) {
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
            what: format!("the format {other:?} (convert it to JPEG or PNG)"),
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

const HEIC: &str = "HEIC (convert it to JPEG, e.g. with `heif-convert`; iPhones take JPEG \
    pictures with Settings › Camera › Formats › Most Compatible)";
const AVIF: &str = "AVIF (convert it to JPEG or PNG, e.g. with `avifdec`)";
const JPEG_XL: &str = "JPEG XL (convert it to JPEG or PNG with `djxl`)";
const JPEG_2000: &str = "JPEG 2000 (convert it to JPEG or PNG, e.g. with `opj_decompress`)";

/// The name of a format that is known and not read.
fn not_read(bytes: &[u8]) -> Option<&'static str> {
    const BOX: &[u8] = b"\0\0\0\x0C";
    if bytes.starts_with(b"\xFF\x0A") {
        return Some(JPEG_XL);
    }
    if bytes.starts_with(b"\xFF\x4F\xFF\x51") {
        return Some(JPEG_2000);
    }
    if let Some(kind) = bytes.strip_prefix(BOX) {
        if kind.starts_with(b"JXL \x0D\x0A\x87\x0A") {
            return Some(JPEG_XL);
        }
        if kind.starts_with(b"jP  \x0D\x0A\x87\x0A") {
            return Some(JPEG_2000);
        }
    }
    brands(bytes)?.find_map(|brand| match brand {
        b"avif" | b"avis" => Some(AVIF),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => Some(HEIC),
        b"jxl " => Some(JPEG_XL),
        b"jp2 " | b"jpx " | b"jph " => Some(JPEG_2000),
        _ => None,
    })
}

/// The brands of an ISO base media file: the major one, then the compatible
/// ones.
fn brands(bytes: &[u8]) -> Option<impl Iterator<Item = &[u8; 4]>> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let file_type = rest.strip_prefix(b"ftyp")?;
    let length = (u32::from_be_bytes(*size) as usize).saturating_sub(8);
    let file_type = file_type.get(..length.min(file_type.len()))?;
    let (brands, _) = file_type.as_chunks::<4>();
    // The second is the version of the first.
    let numbered = brands.iter().enumerate();
    Some(numbered.filter_map(|(index, brand)| (index != 1).then_some(brand)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_not_read_are_named() {
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "HEIC"),
            (b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"\xFF\x0A\0\0", "JPEG XL"),
            (b"\0\0\0\x0CJXL \x0D\x0A\x87\x0A", "JPEG XL"),
            (b"\0\0\0\x0CjP  \x0D\x0A\x87\x0A", "JPEG 2000"),
            (b"\xFF\x4F\xFF\x51\0", "JPEG 2000"),
        ] {
            let error = sniff(bytes).expect_err(name);
            assert!(matches!(error, PictureError::Unsupported { .. }), "{error}");
            let text = error.to_string();
            assert!(text.starts_with(name) && text.contains("convert"), "{text}");
        }
        for bytes in [
            &b"\0\0\0\x18ftypqt  \0\0\0\0qt  "[..],
            b"\0\0\0\0ftyp",
            b"\0\0\0",
        ] {
            let error = sniff(bytes).expect_err("no picture");
            assert!(
                matches!(error, PictureError::Unrecognised { .. }),
                "{error}"
            );
        }
    }
}
