//! How a picture is to be turned (EXIF's orientation, 1 to 8), as Pillow's
//! `ImageOps.exif_transpose` finds it.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::{chunks, tiff::Directories};

/// The tag, in EXIF and in TIFF.
const ORIENTATION: usize = 274;

/// The orientation in EXIF data, with or without its prefix.
pub(super) fn of_exif(exif: &[u8]) -> Option<u8> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let file = Directories::open(exif)?;
    let first = file.first()?;
    // Pillow gives bytes as bytes, which name no orientation.
    if !file.is_numeric(first, ORIENTATION) {
        return None;
    }
    let values = file.numbers(first, ORIENTATION).ok()??;
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

/// The orientation of a PNG: its `eXIf` chunk, else what ImageMagick wrote before
/// that chunk was standard, else its XMP text.
pub(super) fn of_png(bytes: &[u8]) -> Option<u8> {
    let find = |read: fn(&[u8; 4], &[u8]) -> Option<u8>| {
        chunks::png(bytes).find_map(|chunk| read(chunk.kind, chunk.data))
    };
    find(|kind, data| (kind == b"eXIf").then(|| of_exif(data)).flatten())
        .or_else(|| of_raw_profile(bytes))
        .or_else(|| {
            find(|kind, data| {
                let text = (kind == b"iTXt").then_some(data)?;
                of_xmp(text.strip_prefix(b"XML:com.adobe.xmp\0\0")?)
            })
        })
}

/// The keyword of a text chunk that holds EXIF data in hexadecimal digits.
const RAW_PROFILE: &[u8] = b"Raw profile type exif\0";

/// As much of such a chunk's text as is looked at: the first directory comes first.
const RAW_PROFILE_BYTES: usize = 128 << 10;

/// The orientation in a PNG's text chunk of EXIF data: a line break, the profile's name, its
/// length, and its bytes in hexadecimal digits over many lines.
fn of_raw_profile(png: &[u8]) -> Option<u8> {
    // Only the first: inflating thousands of them would be worth an attack.
    let chunk = chunks::png(png).find(|chunk| chunk.data.starts_with(RAW_PROFILE))?;
    let text = chunk.data.strip_prefix(RAW_PROFILE)?;
    let text = match chunk.kind {
        b"tEXt" => text.get(..RAW_PROFILE_BYTES.min(text.len()))?.to_vec(),
        // A byte for the method of compression comes first: there is one, 0.
        b"zTXt" => {
            let mut inflated = Vec::new();
            let compressed = text.strip_prefix(b"\0")?;
            ZlibDecoder::new(compressed)
                .take(RAW_PROFILE_BYTES as u64)
                .read_to_end(&mut inflated)
                .ok()?;
            inflated
        }
        _ => return None,
    };
    let digits: Vec<u8> = text
        .splitn(4, |byte| *byte == b'\n')
        .nth(3)?
        .iter()
        .filter_map(|byte| char::from(*byte).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    let (pairs, _) = digits.as_chunks::<2>();
    let exif: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    of_exif(&exif)
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
    fn exif_names_the_orientation_as_a_number() {
        let exif = |kind: u8, value: u8| {
            let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01".to_vec();
            exif.extend([kind, 0, 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0]);
            exif
        };
        // SHORT, LONG, SBYTE, SSHORT, SLONG, IFD.
        for kind in [3, 4, 6, 8, 9, 13] {
            assert_eq!(of_exif(&exif(kind, 6)), Some(6), "{kind}");
            assert_eq!(of_exif(&exif(kind, 9)), None, "{kind}");
        }
        // BYTE, ASCII, UNDEFINED.
        for kind in [1, 2, 7] {
            assert_eq!(of_exif(&exif(kind, 6)), None, "{kind}");
        }
    }

    #[test]
    fn xmp_names_the_orientation_in_two_ways() {
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"6\"/>"), Some(6));
        assert_eq!(of_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"9\"/>"), None);
        assert_eq!(of_xmp(b"<x tiff:Orientation"), None);
    }
}
