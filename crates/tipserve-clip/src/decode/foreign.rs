//! Kinds of file that are known and not read: each by its name, with what to do.

/// What a file is, if it begins as one of these.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    signed(bytes)
        .or_else(|| brands(bytes)?.find_map(of_brand))
        .or_else(|| riff(bytes))
        .or_else(|| text(bytes))
}

const HEIC: &str = "HEIC (convert it to JPEG, e.g. with `heif-convert`; iPhones take JPEG \
    pictures with Settings › Camera › Formats › Most Compatible)";
const AVIF: &str = "AVIF (convert it to JPEG or PNG, e.g. with `avifdec`)";
const JPEG_XL: &str = "JPEG XL (convert it to JPEG or PNG with `djxl`)";
const JPEG_2000: &str = "JPEG 2000 (convert it to JPEG or PNG, e.g. with `opj_decompress`)";
pub(super) const RAW: &str = "a camera's raw file (convert it to JPEG, e.g. with `darktable-cli`, or take the \
    JPEG that the camera writes beside it)";
const VIDEO: &str = "a video (send its frames as JPEG or PNG, e.g. from `ffmpeg -i FILE -vf fps=1 \
    %04d.jpg`)";
const ARCHIVE: &str = "an archive (unpack it, and send the pictures in it)";
const ARRAY: &str = "a file of arrays (send its pixels, or an embedding, not the file)";

/// By the bytes at a place: where, what, and the name.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"\xFF\x0A", JPEG_XL),
    (0, b"\0\0\0\x0CJXL \x0D\x0A\x87\x0A", JPEG_XL),
    (0, b"\0\0\0\x0CjP  \x0D\x0A\x87\x0A", JPEG_2000),
    (0, b"\xFF\x4F\xFF\x51", JPEG_2000),
    (
        0,
        b"II\xBC\x01",
        "JPEG XR (convert it to JPEG or PNG with `JxrDecApp`)",
    ),
    // A TIFF otherwise, whose first picture is not the photograph.
    (8, b"CR\x02\0", RAW),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"MMOR", RAW),
    (0, b"IIU\0", RAW),
    (0, b"FOVb", RAW),
    (0, b"8BPS", "Photoshop's PSD (save it as JPEG or PNG)"),
    (0, b"gimp xcf", "GIMP's XCF (export it as JPEG or PNG)"),
    (
        0,
        b"%PDF",
        "PDF (convert its pages to PNG, e.g. with `pdftoppm -png`)",
    ),
    (
        0,
        b"%!PS",
        "PostScript (convert it to PNG, e.g. with `gs -sDEVICE=png16m`)",
    ),
    (
        0,
        b"\xC5\xD0\xD3\xC6",
        "PostScript (convert it to PNG, e.g. with `gs -sDEVICE=png16m`)",
    ),
    (0, b"\xD7\xCD\xC6\x9A", "WMF (convert it to PNG)"),
    (40, b" EMF", "EMF (convert it to PNG)"),
    (
        128,
        b"DICM",
        "DICOM (convert it to PNG: which levels are black and white is yours to say)",
    ),
    (
        0,
        b"SIMPLE  =",
        "FITS (convert it to PNG: which levels are black and white is yours to say)",
    ),
    (0, b"\0\0\x01\0", "an icon, ICO (convert it to PNG)"),
    (0, b"icns", "an icon, ICNS (convert it to PNG)"),
    (0, b"DDS ", "DDS (convert it to PNG)"),
    (0, b"\xABKTX ", "KTX (convert it to PNG)"),
    (0, b"qoif", "QOI (convert it to PNG)"),
    (0, b"BPG\xFB", "BPG (convert it to PNG with `bpgdec`)"),
    (0, b"FLIF", "FLIF (convert it to PNG with `flif -d`)"),
    (
        0,
        b"AT&TFORM",
        "DjVu (convert it to PNG, e.g. with `ddjvu`)",
    ),
    (0, b"\x01\xDA", "SGI (convert it to PNG)"),
    (0, b"\x0A\x05\x01", "PCX (convert it to PNG)"),
    (0, b"\x8AMNG", "MNG (convert it to PNG)"),
    (
        0,
        b"PF\x0A",
        "PFM (convert it to 8 bits: where white is, is yours to say)",
    ),
    (
        0,
        b"Pf\x0A",
        "PFM (convert it to 8 bits: where white is, is yours to say)",
    ),
    (
        0,
        b"\x76\x2F\x31\x01",
        "OpenEXR (convert it to 8 bits: where white is, is yours to say)",
    ),
    (
        0,
        b"#?R",
        "Radiance HDR (convert it to 8 bits: where white is, is yours to say)",
    ),
    (0, b"\x1A\x45\xDF\xA3", VIDEO),
    (0, b"\0\0\x01\xBA", VIDEO),
    (0, b"PK\x03\x04", ARCHIVE),
    (0, b"\x1F\x8B", ARCHIVE),
    (0, b"7z\xBC\xAF\x27\x1C", ARCHIVE),
    (0, b"Rar!", ARCHIVE),
    (0, b"BZh", ARCHIVE),
    (0, b"\xFD7zXZ\0", ARCHIVE),
    (0, b"\x28\xB5\x2F\xFD", ARCHIVE),
    (257, b"ustar", ARCHIVE),
    (0, b"\x93NUMPY", ARRAY),
    (0, b"\x89HDF", ARRAY),
    (0, b"PAR1", ARRAY),
    (
        0,
        b"\0\x05\x16\x07",
        "what macOS keeps beside a file (its name begins with ._); the picture is the file without that",
    ),
    (
        0,
        b"\x89PNG\x0A",
        "a PNG whose line ends were changed on its way (fetch it again, as a binary file)",
    ),
];

fn signed(bytes: &[u8]) -> Option<&'static str> {
    SIGNATURES
        .iter()
        .find(|(at, begins, _)| {
            bytes
                .get(*at..)
                .is_some_and(|rest| rest.starts_with(begins))
        })
        .map(|(.., name)| *name)
}

fn of_brand(brand: &[u8; 4]) -> Option<&'static str> {
    match brand {
        b"avif" | b"avis" => Some(AVIF),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => Some(HEIC),
        b"jxl " => Some(JPEG_XL),
        b"jp2 " | b"jpx " | b"jph " => Some(JPEG_2000),
        b"crx " => Some(RAW),
        b"qt  " | b"isom" | b"mp41" | b"mp42" | b"M4V " | b"avc1" | b"iso2" | b"3gp4" | b"3gp5" => {
            Some(VIDEO)
        }
        b"mif1" | b"msf1" => Some("HEIF (convert it to JPEG, e.g. with `heif-convert`)"),
        _ => None,
    }
}

/// The brands of an ISO base media file: the major one, then the compatible
/// ones. Those that name a codec come before those that name the container.
fn brands(bytes: &[u8]) -> Option<impl Iterator<Item = &[u8; 4]>> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let file_type = rest.strip_prefix(b"ftyp")?;
    let length = (u32::from_be_bytes(*size) as usize).saturating_sub(8);
    let file_type = file_type.get(..length.min(file_type.len()))?;
    let (brands, _) = file_type.as_chunks::<4>();
    // The second is the version of the first.
    let named = || {
        let numbered = brands.iter().enumerate();
        numbered.filter_map(|(index, brand)| (index != 1).then_some(brand))
    };
    let container = |brand: &&[u8; 4]| {
        matches!(
            **brand,
            [b'm', b'i' | b's', b'f', b'1'] | [b'i', b's', b'o', _]
        )
    };
    Some(
        named()
            .filter(move |brand| !container(brand))
            .chain(named().filter(container)),
    )
}

fn riff(bytes: &[u8]) -> Option<&'static str> {
    let rest = bytes.strip_prefix(b"RIFF")?.get(4..)?;
    rest.starts_with(b"AVI ").then_some(VIDEO)
}

/// Texts that come where a picture was expected.
fn text(bytes: &[u8]) -> Option<&'static str> {
    const SVG: &str = "SVG (convert it to PNG, e.g. with `rsvg-convert`)";
    const LOOKED_AT: usize = 1024;
    let head = bytes.get(..LOOKED_AT.min(bytes.len()))?;
    let head = head
        .strip_prefix(b"\xEF\xBB\xBF")
        .unwrap_or(head)
        .trim_ascii_start();
    let begins = |with: &[u8]| {
        head.get(..with.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(with))
    };
    if begins(b"<svg") || (begins(b"<?xml") && memchr::memmem::find(head, b"<svg").is_some()) {
        return Some(SVG);
    }
    if begins(b"<!doctype html") || begins(b"<html") {
        return Some("a page of HTML (an error that was saved under a picture's name, perhaps)");
    }
    if begins(b"version https://git-lfs") {
        return Some("Git LFS's pointer to a file (fetch the file: `git lfs pull`)");
    }
    if begins(b"data:image/") || begins(b"/9j/") || begins(b"iVBORw0KGgo") {
        return Some("a picture in Base64 (decode it, and send the bytes)");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn kinds_that_are_not_read_are_named() {
        for (bytes, begins) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "HEIC"),
            (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "HEIF"),
            (b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"\xFF\x0A\0\0", "JPEG XL"),
            (b"\0\0\0\x0CJXL \x0D\x0A\x87\x0A", "JPEG XL"),
            (b"\0\0\0\x0CjP  \x0D\x0A\x87\x0A", "JPEG 2000"),
            (b"\xFF\x4F\xFF\x51\0", "JPEG 2000"),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "a camera's raw"),
            (b"II*\0\x10\0\0\0CR\x02\0", "a camera's raw"),
            (b"FUJIFILMCCD-RAW 0201", "a camera's raw"),
            (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
            (b"RIFF\0\0\0\0AVI LIST", "a video"),
            (b"8BPS\0\x01", "Photoshop"),
            (b"%PDF-1.7", "PDF"),
            (b"<?xml version=\"1.0\"?>\n<svg/>", "SVG"),
            (b"\xEF\xBB\xBF  <svg/>", "SVG"),
            (b"<!DOCTYPE html><html>", "a page of HTML"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
            (b"/9j/4AAQSkZJRg", "a picture in Base64"),
            (b"PK\x03\x04", "an archive"),
            (b"\0\0\x01\0\x01\0", "an icon"),
            (b"\x93NUMPY\x01\0", "a file of arrays"),
        ] {
            let found = name(bytes).unwrap_or("nothing");
            assert!(found.starts_with(begins), "{found}, not {begins}");
            assert!(found.contains('('), "{found} says not what to do");
        }
        for bytes in [
            &b"\xFF\xD8\xFF\xE0"[..],
            b"\x89PNG\r\n\x1A\n",
            b"GIF89a",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"BM\0\0",
            b"II*\0\x08\0\0\0",
            b"MM\0*\0\0\0\x08",
            b"P6 1 1 255\n",
            b"P1\n",
            b"\0\0\0\0ftyp",
            b"hello",
            b"",
        ] {
            assert_eq!(name(bytes), None, "{bytes:?}");
        }
    }
}
