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
    let value = file.last_value(first, ORIENTATION)?;
    let whole = value.fract() == 0.0 && (1.0..=8.0).contains(&value);
    whole.then_some(value as u8)
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
    // Of several, Pillow has the last.
    let exif = chunks::png(bytes).filter(|chunk| chunk.kind == b"eXIf");
    exif.last()
        .and_then(|chunk| of_exif(chunk.data))
        .or_else(|| of_raw_profile(bytes))
        .or_else(|| of_xmp(&xmp_of_png(bytes)?))
}

/// A PNG's XMP packet: the text of that keyword, compressed or not, after two empty ones (its
/// language, and the keyword in that).
fn xmp_of_png(png: &[u8]) -> Option<Vec<u8>> {
    const KEYWORD: &[u8] = b"XML:com.adobe.xmp\0";
    // Only the first, as above.
    let chunk =
        chunks::png(png).find(|chunk| chunk.kind == b"iTXt" && chunk.data.starts_with(KEYWORD))?;
    let (&compressed, text) = chunk.data.strip_prefix(KEYWORD)?.split_first()?;
    let text = text.strip_prefix(b"\0")?;
    if compressed == 0 {
        return Some(text.to_vec());
    }
    let mut parts = text.splitn(3, |byte| *byte == 0);
    inflated(parts.nth(2)?, XMP_BYTES)
}

/// As much of a compressed XMP packet as is looked at.
const XMP_BYTES: usize = 1 << 20;

fn inflated(compressed: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut inflated = Vec::new();
    ZlibDecoder::new(compressed)
        .take(most as u64)
        .read_to_end(&mut inflated)
        .ok()?;
    Some(inflated)
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
        b"zTXt" => inflated(text.strip_prefix(b"\0")?, RAW_PROFILE_BYTES)?,
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

/// The orientation of a WebP: its `EXIF` chunk, else its `XMP ` chunk. Both are there if the
/// first chunk says so, as libwebp has it.
pub(super) fn of_webp(bytes: &[u8]) -> Option<u8> {
    const EXIF: u8 = 8;
    const XMP: u8 = 4;
    let first = chunks::riff(bytes).next()?;
    let flags = (first.kind == b"VP8X").then(|| first.data.first().copied())??;
    let find = |wanted: &[u8; 4], flag: u8| {
        let mut chunks = chunks::riff(bytes).filter(|_| flags & flag != 0);
        chunks.find(|chunk| chunk.kind == wanted)
    };
    find(b"EXIF", EXIF)
        .and_then(|chunk| of_exif(chunk.data))
        .or_else(|| of_xmp(find(b"XMP ", XMP)?.data))
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
        // FLOAT; RATIONAL and DOUBLE, whose 8 bytes stand elsewhere.
        let mut float = exif(11, 0);
        drop(float.splice(24..28, 6_f32.to_le_bytes()));
        assert_eq!(of_exif(&float), Some(6));
        for (kind, bytes) in [(5, [6, 0, 0, 0, 1, 0, 0, 0]), (12, 6_f64.to_le_bytes())] {
            let mut wide = exif(kind, 26);
            wide.extend([0; 2]);
            wide.truncate(6 + 26);
            wide.extend(bytes);
            assert_eq!(of_exif(&wide), Some(6), "{kind}");
        }
        // Of two tags the last one counts.
        let mut twice = exif(3, 6);
        drop(twice.splice(14..16, [2, 0]));
        twice.truncate(28);
        twice.extend([0x12, 1, 3, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(of_exif(&twice), Some(3));
        // BYTE, ASCII, UNDEFINED.
        for kind in [1, 2, 7] {
            assert_eq!(of_exif(&exif(kind, 6)), None, "{kind}");
        }
    }

    fn exif_of(orientation: u8) -> Vec<u8> {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    #[test]
    fn a_png_has_it_in_its_last_exif_or_its_xmp() {
        let png = |chunks: &[(&[u8; 4], &[u8])]| {
            let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
            for (kind, data) in chunks {
                file.extend((data.len() as u32).to_be_bytes());
                file.extend(*kind);
                file.extend(*data);
                file.extend([0; 4]);
            }
            file
        };
        let (three, six) = (exif_of(3), exif_of(6));
        assert_eq!(of_png(&png(&[(b"eXIf", &six), (b"eXIf", &three)])), Some(3));
        let packet = b"<x tiff:Orientation=\"8\"/>";
        let plain = [&b"XML:com.adobe.xmp\0\0\0\0\0"[..], packet].concat();
        let mut encoder =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, packet).expect("in memory");
        let packed = encoder.finish().expect("in memory");
        let packed = [&b"XML:com.adobe.xmp\0\x01\0en\0\0"[..], &packed].concat();
        for xmp in [&plain, &packed] {
            assert_eq!(of_png(&png(&[(b"iTXt", xmp)])), Some(8));
            assert_eq!(of_png(&png(&[(b"iTXt", xmp), (b"eXIf", &six)])), Some(6));
        }
        assert_eq!(
            of_png(&png(&[(b"iTXt", &packed[..packed.len() / 2])])),
            None
        );
    }

    #[test]
    fn a_webp_has_it_if_its_first_chunk_says_so() {
        let webp = |flags: u8| {
            let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
            file.extend([flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            file.extend(b"EXIF\x1a\0\0\0");
            file.extend(exif_of(6));
            file.extend(b"XMP \x18\0\0\0tiff:Orientation=\"3\"    ");
            file
        };
        assert_eq!(of_webp(&webp(8)), Some(6));
        assert_eq!(of_webp(&webp(4)), Some(3));
        assert_eq!(of_webp(&webp(12)), Some(6));
        assert_eq!(of_webp(&webp(0)), None);
    }

    #[test]
    fn xmp_names_the_orientation_in_two_ways() {
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"6\"/>"), Some(6));
        assert_eq!(of_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(of_xmp(b"<x tiff:Orientation=\"9\"/>"), None);
        assert_eq!(of_xmp(b"<x tiff:Orientation"), None);
    }
}
