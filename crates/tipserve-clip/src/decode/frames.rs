//! How many frames an animation has, counted by walking its blocks: nothing is
//! decoded, and the walk is over after the file's last byte at the latest.

use std::collections::HashSet;

use super::{chunks, format::Format, tiff::Directories};

/// Frames of a file; 1 of a picture that is not animated. What cannot be
/// walked to its end counts as far as it goes: the decoder says what is wrong
/// with it. Counting ends once there are more than `enough`.
pub(super) fn count(bytes: &[u8], format: Format, enough: u64) -> u64 {
    let found = match format {
        Format::Gif => gif(bytes),
        Format::Png => Some(png(bytes)),
        Format::WebP => Some(webp(bytes)),
        Format::Tiff => tiff(bytes, enough),
        _ => None,
    };
    found.unwrap_or(1).max(1)
}

/// What is left after `count` bytes.
fn skip(bytes: &[u8], count: usize) -> Option<&[u8]> {
    bytes.get(count..)
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// GIF89a: image descriptors (0x2C) among extensions, each followed by its
/// table of colours and its data in sub-blocks.
fn gif(bytes: &[u8]) -> Option<u64> {
    let colours = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let mut rest = skip(bytes, 13 + colours(byte(bytes, 10)?))?;
    let mut frames = 0;
    loop {
        let data = match byte(rest, 0) {
            Some(0x2c) => {
                frames += 1;
                byte(rest, 9).and_then(|flags| skip(rest, 11 + colours(flags)))
            }
            Some(0x21) => skip(rest, 2),
            _ => return Some(frames),
        };
        let Some(mut data) = data else {
            return Some(frames);
        };
        loop {
            match byte(data, 0).map(usize::from) {
                Some(0) => break,
                Some(size) => match skip(data, size + 1) {
                    Some(after) => data = after,
                    None => return Some(frames),
                },
                None => return Some(frames),
            }
        }
        rest = skip(data, 1)?;
    }
}

/// PNG: an `fcTL` chunk for each frame of an animation.
fn png(bytes: &[u8]) -> u64 {
    let frames = chunks::png(bytes).filter(|chunk| chunk.kind == b"fcTL");
    frames.count() as u64
}

/// WebP: an `ANMF` chunk for each frame of an animation.
fn webp(bytes: &[u8]) -> u64 {
    let frames = chunks::riff(bytes).filter(|chunk| chunk.kind == b"ANMF");
    frames.count() as u64
}

/// TIFF: a chain of directories, one a page. A chain that leads back into
/// itself ends there.
fn tiff(bytes: &[u8], enough: u64) -> Option<u64> {
    let file = Directories::open(bytes)?;
    let mut directory = file.first()?;
    let mut pages = 0;
    let mut seen = HashSet::new();
    while directory != 0 && pages <= enough && seen.insert(directory) {
        let Some(entries) = file.entries(directory) else {
            break;
        };
        pages += 1;
        match file.after(directory, entries) {
            Some(next) => directory = next,
            None => break,
        }
    }
    Some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gif_of(frames: usize, own_colours: bool) -> Vec<u8> {
        let mut file = Vec::new();
        let palette = [0, 0, 0, 255, 255, 255];
        let mut encoder = gif::Encoder::new(&mut file, 40, 30, &palette).expect("a GIF");
        for index in 0..frames {
            let mut frame = gif::Frame {
                width: 40,
                height: 30,
                buffer: (0..1200).map(|i| ((i * index) % 2) as u8).collect(),
                ..gif::Frame::default()
            };
            if own_colours {
                frame.palette = Some(palette.to_vec());
            }
            encoder.write_frame(&frame).expect("a frame");
        }
        drop(encoder);
        file
    }

    fn png_of(frames: u32) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 4, 4);
        encoder.set_color(png::ColorType::Rgb);
        if frames > 0 {
            encoder.set_animated(frames, 0).expect("an animation");
        }
        let mut writer = encoder.write_header().expect("a PNG");
        for _ in 0..frames.max(1) {
            writer.write_image_data(&[7; 48]).expect("a frame");
        }
        writer.finish().expect("a PNG");
        file
    }

    fn webp_of(frames: usize) -> Vec<u8> {
        let mut chunks = b"VP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        for _ in 0..frames {
            // An odd size, and its padding.
            chunks.extend(b"ANMF\x03\0\0\0abc\0");
        }
        let mut file = b"RIFF".to_vec();
        file.extend((chunks.len() as u32 + 4).to_le_bytes());
        file.extend(b"WEBP");
        file.extend(chunks);
        file
    }

    fn tiff_of(pages: usize, ring: bool) -> Vec<u8> {
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        for page in 0..pages {
            let next = match page + 1 == pages {
                true if ring => 8,
                true => 0,
                false => file.len() as u32 + 18,
            };
            file.extend([1, 0]);
            file.extend([0; 12]);
            file.extend(next.to_le_bytes());
        }
        file
    }

    #[test]
    fn frames_are_counted() {
        for frames in [1, 2, 17] {
            for own in [false, true] {
                assert_eq!(count(&gif_of(frames, own), Format::Gif, 99), frames as u64);
            }
            assert_eq!(
                count(&png_of(frames as u32), Format::Png, 99),
                frames as u64
            );
            assert_eq!(count(&webp_of(frames), Format::WebP, 99), frames as u64);
            assert_eq!(
                count(&tiff_of(frames, false), Format::Tiff, 99),
                frames as u64
            );
        }
        assert_eq!(count(&png_of(0), Format::Png, 99), 1);
        assert_eq!(count(&webp_of(0), Format::WebP, 99), 1);
        assert_eq!(count(&tiff_of(3, true), Format::Tiff, 99), 3, "a ring ends");
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let files = [
            (gif_of(3, true), Format::Gif),
            (png_of(3), Format::Png),
            (webp_of(3), Format::WebP),
            (tiff_of(3, true), Format::Tiff),
        ];
        for (file, format) in files {
            for end in 0..file.len() {
                assert!(count(&file[..end], format, 9) <= 10);
                let mut broken = file.clone();
                broken[end] = 0xff;
                assert!(count(&broken, format, 9) <= 99);
            }
        }
    }
}
