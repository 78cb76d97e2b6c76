//! How a picture is to be turned (EXIF's orientation, 1 to 8), as Pillow's
//! `ImageOps.exif_transpose` finds it.

use super::{chunks, tiff::Directories};

/// The tag, in EXIF and in TIFF.
const ORIENTATION: usize = 274;

/// The orientation in EXIF data, with or without its prefix.
pub(super) fn of_exif(exif: &[u8]) -> Option<u8> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let file = Directories::open(exif)?;
    let values = file.numbers(file.first()?, ORIENTATION).ok()??;
    known(values.first().and_then(|value| u8::try_from(*value).ok())?)
}

/// The orientation in an XMP packet, which Pillow takes if EXIF has none.
pub(super) fn of_xmp(xmp: &[u8]) -> Option<u8> {
    const TAG: &[u8] = b"tiff:Orientation";
    memchr::memmem::find_iter(xmp, TAG).find_map(|at| {
        let value = xmp.get(at + TAG.len()..)?;
        let value = value
            .strip_prefix(b"=\"")
            .or_else(|| value.strip_prefix(b">"))?;
        known(value.first()?.checked_sub(b'0')?)
    })
}

fn known(orientation: u8) -> Option<u8> {
    (1..=8).contains(&orientation).then_some(orientation)
}

/// The orientation of a PNG: its `eXIf` chunk, else its XMP text.
pub(super) fn of_png(bytes: &[u8]) -> Option<u8> {
    let find = |read: fn(&[u8; 4], &[u8]) -> Option<u8>| {
        chunks::png(bytes).find_map(|chunk| read(chunk.kind, chunk.data))
    };
    find(|kind, data| (kind == b"eXIf").then(|| of_exif(data)).flatten()).or_else(|| {
        find(|kind, data| {
            let text = (kind == b"iTXt").then_some(data)?;
            of_xmp(text.strip_prefix(b"XML:com.adobe.xmp\0\0")?)
        })
    })
}

/// The orientation of a WebP: its `EXIF` chunk, else its `XMP ` chunk.
pub(super) fn of_webp(bytes: &[u8]) -> Option<u8> {
    let find = |wanted: &[u8; 4]| chunks::riff(bytes).find(|chunk| chunk.kind == wanted);
    find(b"EXIF")
        .and_then(|chunk| of_exif(chunk.data))
        .or_else(|| of_xmp(find(b"XMP ")?.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmp_names_the_orientation_in_two_ways() {
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"6\"/>"), Some(6));
        assert_eq!(of_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"9\"/>"), None);
        assert_eq!(of_xmp(b"<x tiff:Orientation"), None);
    }
}
