//! PNM (PBM, PGM, PPM) and PAM, by the `image` crate's decoder where white is 1 or 255; other
//! scales as Pillow rounds them.

use std::io::Cursor;

use image::{
    ImageDecoder as _, ImageFormat,
    codecs::pnm::{PnmDecoder, PnmHeader, PnmSubtype, SampleEncoding},
};

use super::{
    format::Format,
    samples::{buffer, grey, to_rgb},
    still,
};
use crate::picture::{Picture, PictureError, PictureLimits};

const NAME: &str = Format::Pnm.name();

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    if let Some(plain) = without_comments(bytes) {
        return limits.beside(bytes.len() as u64, |limits| decode(&plain, limits));
    }
    let decoder = PnmDecoder::new(Cursor::new(bytes)).map_err(refuse)?;
    let channels = usize::from(decoder.color_type().channel_count());
    // Its reader stands where the samples begin.
    let (reader, header) = decoder.into_inner();
    let white = header.maximal_sample();
    if matches!(white, 1 | 255) {
        return still::decode(bytes, ImageFormat::Pnm, Format::Pnm, 0, limits);
    }
    if white == u32::from(u16::MAX) && channels < 3 {
        return Err(PictureError::Unsupported {
            what: "a 16-bit grey PNM (convert it to 8 bits: where to put white is the sender's to \
                   say)"
                .into(),
        });
    }
    let start = usize::try_from(reader.position()).unwrap_or(usize::MAX);
    let data = bytes.get(start..).unwrap_or_default();
    scaled(&header, channels, data, limits)
}

/// The picture of samples that are not yet levels of 8 bits.
fn scaled(
    header: &PnmHeader,
    channels: usize,
    data: &[u8],
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let (width, height) = (header.width(), header.height());
    if width == 0 || height == 0 {
        return Err(undecodable("a side is 0"));
    }
    limits.check_dimensions(width, height)?;
    // Grey is copied to RGB, colour is converted in place.
    let copied = if channels < 3 { 3 } else { 0 };
    let pixels = u64::from(width) * u64::from(height);
    limits.check_decoder(pixels * (channels as u64 + copied))?;
    let mut levels = buffer(width, height, channels as u64, limits)?;
    let white = header.maximal_sample();
    let is_text = matches!(
        header.subtype(),
        PnmSubtype::Graymap(SampleEncoding::Ascii) | PnmSubtype::Pixmap(SampleEncoding::Ascii)
    );
    if is_text {
        let mut numbers = data
            .split(|byte| byte.is_ascii_whitespace() || *byte == b'\x0b')
            .filter(|number| !number.is_empty());
        for level in &mut levels {
            let number = numbers.next().ok_or_else(|| still::truncated(NAME))?;
            *level = level_of(sample_of(number, white)?, white);
        }
    } else {
        let size = if white > 255 { 2 } else { 1 };
        let mut samples = data.chunks_exact(size);
        for level in &mut levels {
            let sample = samples.next().ok_or_else(|| still::truncated(NAME))?;
            let sample = sample
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            *level = level_of(sample, white);
        }
    }
    let rgb = match channels {
        1 | 2 => grey(&levels, channels),
        3 => levels,
        _ => {
            to_rgb(&mut levels, |&[red, green, blue, _]| [red, green, blue]);
            levels
        }
    };
    Ok(Picture::new(width, height, rgb))
}

/// A number that is written as text.
fn sample_of(number: &[u8], white: u32) -> Result<u32, PictureError> {
    let digits = Some(number).filter(|number| number.iter().all(u8::is_ascii_digit));
    let text = digits.and_then(|number| str::from_utf8(number).ok());
    let sample = text.and_then(|text| text.parse::<u32>().ok());
    let sample = sample.ok_or_else(|| undecodable("a sample is no number"))?;
    if sample > white {
        return Err(undecodable(format!(
            "a sample is {sample}, and white is {white}"
        )));
    }
    Ok(sample)
}

/// The level of a sample, with Python's arithmetic and rounding: half to even.
fn level_of(sample: u32, white: u32) -> u8 {
    (f64::from(sample) / f64::from(white) * 255.0).round_ties_even() as u8
}

/// A PNM whose pixels are text, without its comments, which the decoder knows in the header
/// alone. None for all else.
fn without_comments(bytes: &[u8]) -> Option<Vec<u8>> {
    if !matches!(bytes, [b'P', b'1'..=b'3', ..]) || memchr::memchr(b'#', bytes).is_none() {
        return None;
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    let kept = lines.map(|line| {
        let end = memchr::memchr(b'#', line).unwrap_or(line.len());
        line.get(..end).unwrap_or_default()
    });
    Some(kept.collect::<Vec<_>>().join(&b'\n'))
}

fn refuse(error: image::ImageError) -> PictureError {
    still::refuse(error, NAME)
}

fn undecodable(detail: impl Into<String>) -> PictureError {
    PictureError::Undecodable {
        format: NAME,
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(file: &[u8]) -> Result<Vec<u8>, PictureError> {
        Ok(decode(file, &PictureLimits::default())?.rgb().to_vec())
    }

    #[test]
    fn white_may_be_any_level() {
        let found = levels(b"P6 1 1 2\n\0\x01\x02").expect("levels of 2");
        assert_eq!(found, [0, 128, 255]);
        let found = levels(b"P6 1 1 1000\n\0\0\x01\xF4\x03\xE8").expect("levels of 1000");
        assert_eq!(found, [0, 128, 255]);
        let found = levels(b"P5 1 1 4095\n\x0F\xFF").expect("grey of 12 bits");
        assert_eq!(found, [255; 3]);
        let found = levels(b"P2 2 1 15\n7\n15").expect("grey in text");
        assert_eq!(found, [119, 119, 119, 255, 255, 255]);
        let pam = b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 3\nTUPLTYPE RGB_ALPHA\nENDHDR\n\x01\x02\x03\x00";
        assert_eq!(levels(pam).expect("RGBA"), [85, 170, 255]);
        // What is above white is white, as in Pillow.
        assert_eq!(levels(b"P5 1 1 100\n\xFF").expect("too light"), [255; 3]);
    }

    #[test]
    fn what_is_missing_or_no_level_is_refused() {
        for (file, says) in [
            (&b"P6 1 1 100\n\0\x01"[..], "truncated"),
            (b"P6 1 1 1000\n\0\0\0\0\0", "truncated"),
            (b"P3 1 1 7\n1 2", "truncated"),
            (b"P3 1 1 7\n1 2 x", "no number"),
            (b"P3 1 1 7\n1 2 +3", "no number"),
            (b"P3 1 1 7\n1 2 8", "8, and white is 7"),
            (b"P5 1 1 65535\n\0\0", "16-bit grey PNM"),
            (b"P5 0 1 7\n", "a side is 0"),
            (b"P5 1 1 0\n\0", "zero"),
        ] {
            let error = levels(file).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
