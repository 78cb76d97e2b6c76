//! A JPEG's markers, walked before anything is decoded: size, components,
//! scans, orientation, and whether every pixel's data is there.

use super::errors::{truncated, undecodable, unsupported};
use crate::{decode::orientation, picture::PictureError};

/// What the headers say about size, coding and orientation.
#[derive(Debug)]
pub(super) struct Frame {
    pub width: u32,
    pub height: u32,
    pub components: Vec<Component>,
    pub scans: u64,
    /// Coefficients are held until the last scan.
    pub multi_scan: bool,
    /// EXIF's orientation, 1 to 8; XMP's if there is no EXIF.
    pub orientation: Option<u8>,
    /// Where entropy-coded data breaks off without an end mark.
    pub ends_at: Option<usize>,
}

/// One component of the picture.
#[derive(Debug)]
pub(super) struct Component {
    id: u8,
    /// Sampling factors, 1 to 4.
    pub across: u64,
    pub down: u64,
    /// A bit for each of the 64 coefficients that some scan has completed.
    complete: u64,
}

impl Frame {
    /// Walks all markers to the end of the picture. A picture that breaks off
    /// is refused here unless all its data may be there: decoders fill what
    /// is missing with grey.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PictureError> {
        let mut walk = Markers {
            bytes,
            at: 2,
            in_scan: false,
        };
        let mut frame: Option<Frame> = None;
        let mut exif = None;
        let mut xmp = None;
        let ends_at = loop {
            let (marker, segment) = match walk.next()? {
                Step::Segment(marker, segment) => (marker, segment),
                Step::End => break None,
                Step::BreaksOff(at) => break Some(at),
            };
            match marker {
                0xC0..=0xC2 if frame.is_none() => frame = Some(start_of_frame(marker, segment)?),
                0xC0..=0xC2 => return Err(unsupported("of several frames".into())),
                0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                    return Err(unsupported(
                        "in lossless, hierarchical or arithmetic coding".into(),
                    ));
                }
                0xF7 if frame.is_none() => return Err(unsupported("in JPEG-LS".into())),
                0xDA => {
                    let frame = frame
                        .as_mut()
                        .ok_or_else(|| undecodable("a scan comes before its frame"))?;
                    frame.add_scan(segment);
                }
                0xE1 if segment.starts_with(b"Exif\0\0") => {
                    exif = exif.or_else(|| orientation::of_exif(segment));
                }
                0xE1 if segment.starts_with(b"http://ns.adobe.com/xap/1.0/\0") => {
                    xmp = xmp.or_else(|| orientation::of_xmp(segment));
                }
                _ => {}
            }
        };
        let mut frame = frame.ok_or_else(|| undecodable("it has no frame"))?;
        if frame.width == 0 || frame.height == 0 {
            return Err(unsupported("with a side of 0".into()));
        }
        frame.orientation = exif.or(xmp);
        if ends_at.is_some() && !frame.is_complete() {
            return Err(truncated());
        }
        frame.ends_at = ends_at;
        Ok(frame)
    }

    /// Notes which coefficients of which components a scan completes. What is
    /// malformed is the decoder's to refuse.
    fn add_scan(&mut self, segment: &[u8]) {
        self.scans += 1;
        let Some((&count, rest)) = segment.split_first() else {
            return;
        };
        let (selectors, rest) = rest.split_at(rest.len().min(2 * usize::from(count)));
        let &[first, last, precision, ..] = rest else {
            return;
        };
        if self.scans == 1 && usize::from(count) < self.components.len() {
            self.multi_scan = true;
        }
        // The low half is the bit down to which the coefficients are known.
        let known_to = precision & 0x0F;
        let whole = known_to == 0 && first <= last && last < 64;
        for selector in selectors.chunks_exact(2) {
            for component in &mut self.components {
                if whole && selector.first() == Some(&component.id) {
                    component.complete |= (first..=last).fold(0, |bits, at| bits | 1 << at);
                }
            }
        }
    }

    /// Whether the scans' headers cover every coefficient of every component.
    fn is_complete(&self) -> bool {
        self.components
            .iter()
            .all(|component| component.complete == u64::MAX)
    }
}

fn start_of_frame(marker: u8, segment: &[u8]) -> Result<Frame, PictureError> {
    let &[precision, h1, h0, w1, w0, count, ref components @ ..] = segment else {
        return Err(undecodable("its frame header is too short"));
    };
    if precision != 8 {
        return Err(unsupported(format!("of {precision} bits a sample")));
    }
    if !matches!(count, 1 | 3 | 4) {
        return Err(unsupported(format!("of {count} components")));
    }
    let components: Vec<Component> = components
        .as_chunks::<3>()
        .0
        .iter()
        .take(count.into())
        .map(|&[id, sampling, _]| Component {
            id,
            across: u64::from(sampling >> 4).clamp(1, 4),
            down: u64::from(sampling & 0x0F).clamp(1, 4),
            complete: 0,
        })
        .collect();
    if components.len() != usize::from(count) {
        return Err(undecodable("its frame header is too short"));
    }
    Ok(Frame {
        width: u32::from(u16::from_be_bytes([w1, w0])),
        height: u32::from(u16::from_be_bytes([h1, h0])),
        components,
        scans: 0,
        multi_scan: marker == 0xC2,
        orientation: None,
        ends_at: None,
    })
}

/// Walks a JPEG's marker segments, over entropy-coded data.
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A scan has begun: what is no marker is its data.
    in_scan: bool,
}

/// What a walk comes to.
enum Step<'a> {
    Segment(u8, &'a [u8]),
    /// The end mark, EOI.
    End,
    /// The file ends in a scan's data; this is where the data does.
    BreaksOff(usize),
}

impl<'a> Markers<'a> {
    fn next(&mut self) -> Result<Step<'a>, PictureError> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let found = memchr::memchr(0xFF, rest);
            let Some((skip, &marker)) = found.and_then(|at| Some((at, rest.get(at + 1)?))) else {
                // A last 0xFF is half a marker or half a stuffed byte.
                let end = self.at + found.unwrap_or(rest.len());
                return match self.in_scan {
                    true => Ok(Step::BreaksOff(end)),
                    false => Err(truncated()),
                };
            };
            match marker {
                // A fill byte: the marker may begin with the next one.
                0xFF => self.at += skip + 1,
                // A stuffed 0xFF in the data, a restart, or a bare marker.
                0x00 | 0x01 | 0xD0..=0xD8 => self.at += skip + 2,
                0xD9 => return Ok(Step::End),
                _ => {
                    let Some(&[high, low]) = rest.get(skip + 2..skip + 4) else {
                        return Err(truncated());
                    };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    let Some(segment) = rest.get(skip + 4..skip + 2 + length.max(2)) else {
                        return Err(truncated());
                    };
                    self.at += skip + 2 + length.max(2);
                    self.in_scan |= marker == 0xDA;
                    return Ok(Step::Segment(marker, segment));
                }
            }
        }
    }
}
