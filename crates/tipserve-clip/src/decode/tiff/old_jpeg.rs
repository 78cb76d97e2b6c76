//! Old-style JPEG (compression 6, TIFF 6.0's first way): as one JPEG stream of
//! the whole picture, which some writers put in whole, and of which others have
//! the tables and the coded data in places of their own.

use super::{
    errors::{truncated, undecodable, unsupported},
    tags::Tags,
};
use crate::{decode::jpeg, picture::PictureError};

/// What the stream must be.
pub(super) struct Shape<'a> {
    pub width: u32,
    pub height: u32,
    /// Components: 1 or 3.
    pub samples: usize,
    /// Rows of a strip.
    pub rows: usize,
    pub strips: &'a [(usize, Option<usize>)],
}

/// The stream, as JPEG.
pub(super) fn stream(tags: &Tags, bytes: &[u8], shape: &Shape) -> Result<Vec<u8>, PictureError> {
    let first = shape.strips.first().map(|(offset, _)| *offset);
    let begins = [tags.one(513)?, first];
    for stream in begins.iter().flatten().filter_map(|at| bytes.get(*at..)) {
        if jpeg::is_whole(stream, (shape.width, shape.height), shape.samples) {
            return Ok(stream.to_vec());
        }
    }
    let mut stream = header(tags, bytes, shape)?;
    // Strips of a hostile file may all be the same bytes.
    let most = stream.len() + bytes.len() + 2 * shape.strips.len();
    for (number, (offset, length)) in shape.strips.iter().enumerate() {
        if number > 0 {
            stream.extend([0xFF, 0xD0 + ((number - 1) % 8) as u8]);
        }
        let strip = bytes.get(*offset..).ok_or_else(truncated)?;
        let strip = strip.get(..length.unwrap_or(strip.len()).min(strip.len()));
        let strip = strip.unwrap_or_default();
        let strip = strip.strip_suffix(&[0xFF, 0xD9]).unwrap_or(strip);
        if stream.len() + strip.len() > most {
            return Err(undecodable("its strips are longer than the file"));
        }
        stream.extend(strip);
    }
    stream.extend([0xFF, 0xD9]);
    Ok(stream)
}

/// The markers before the coded data, of the tables that the tags point at.
fn header(tags: &Tags, bytes: &[u8], shape: &Shape) -> Result<Vec<u8>, PictureError> {
    const BASELINE: usize = 1;
    if tags.or(512, BASELINE)? != BASELINE {
        return Err(unsupported("with lossless old-style JPEG compression"));
    }
    let places = |tag| {
        let places = tags.all(tag)?.unwrap_or_default();
        if places.len() < shape.samples {
            return Err(unsupported("with old-style JPEG compression in pieces"));
        }
        Ok(places)
    };
    let mut header = vec![0xFF, 0xD8];
    for (number, place) in (0..shape.samples as u8).zip(places(519)?) {
        let table = bytes.get(place..).and_then(|bytes| bytes.get(..64));
        segment(&mut header, 0xDB, [&[number], table.ok_or_else(truncated)?]);
    }
    for (class, tag) in [(0, 520), (0x10, 521)] {
        for (number, place) in (0..shape.samples as u8).zip(places(tag)?) {
            let bytes = bytes.get(place..).unwrap_or_default();
            let counts = bytes.first_chunk::<16>().ok_or_else(truncated)?;
            let codes = counts
                .iter()
                .map(|count| usize::from(*count))
                .sum::<usize>();
            let table = bytes.get(..16 + codes).ok_or_else(truncated)?;
            segment(&mut header, 0xC4, [&[class | number], table]);
        }
    }
    let (across, down) = match shape.samples {
        1 => (1, 1),
        _ => subsampling(tags)?,
    };
    if shape.strips.len() > 1 {
        // Each strip begins anew, as libtiff has it.
        let units = (shape.width as usize).div_ceil(8 * across) * (shape.rows / (8 * down)).max(1);
        let units = u16::try_from(units)
            .map_err(|_| undecodable("its strips of old-style JPEG are too large"))?;
        segment(&mut header, 0xDD, [&units.to_be_bytes(), &[]]);
    }
    let side = |side: u32| u16::try_from(side).map(u16::to_be_bytes);
    let (Ok([h1, h2]), Ok([w1, w2])) = (side(shape.height), side(shape.width)) else {
        return Err(undecodable("it is too large for JPEG"));
    };
    let count = shape.samples as u8;
    let mut frame = vec![8, h1, h2, w1, w2, count];
    let mut scan = vec![count];
    for number in 0..count {
        let factors = match number {
            0 => (across << 4 | down) as u8,
            _ => 0x11,
        };
        frame.extend([number + 1, factors, number]);
        scan.extend([number + 1, number << 4 | number]);
    }
    scan.extend([0, 63, 0]);
    segment(&mut header, 0xC0, [&frame, &[]]);
    segment(&mut header, 0xDA, [&scan, &[]]);
    Ok(header)
}

/// How many pixels share their chroma, across and down; TIFF's default is two.
pub(super) fn subsampling(tags: &Tags) -> Result<(usize, usize), PictureError> {
    let found = tags.all(530)?.unwrap_or_else(|| vec![2, 2]);
    match *found {
        [across @ (1 | 2 | 4), down @ (1 | 2 | 4)] => Ok((across, down)),
        _ => Err(undecodable(format!(
            "its chroma is subsampled by {found:?}, not by 1, 2 or 4"
        ))),
    }
}

fn segment(header: &mut Vec<u8>, marker: u8, parts: [&[u8]; 2]) {
    let length = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    header.extend([0xFF, marker]);
    header.extend((length as u16).to_be_bytes());
    header.extend(parts.concat());
}
