//! GIF: the first frame on its screen, as Pillow paints it.

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, MemoryLimit};

use super::samples::buffer;
use crate::picture::{Picture, PictureError, PictureLimits};

pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(
        limits
            .decoder_bytes
            .try_into()
            .map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut decoder = options.read_info(bytes).map_err(refuse)?;
    let screen = (decoder.width(), decoder.height());
    limits.check_dimensions(screen.0.into(), screen.1.into())?;
    let frame = decoder
        .next_frame_info()
        .map_err(refuse)?
        .ok_or_else(|| undecodable("it has no frame".into()))?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (frame_width, frame_height) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    if frame_width == 0 || frame_height == 0 {
        return Err(undecodable("its first frame has a side of 0".into()));
    }
    // Pillow widens the screen to hold the frame.
    let width = u32::from(screen.0).max(left + frame_width);
    let height = u32::from(screen.1).max(top + frame_height);
    limits.check_dimensions(width, height)?;
    let mut indices = buffer(frame_width, frame_height, 1, limits)?;
    decoder.read_into_buffer(&mut indices).map_err(refuse)?;
    let colours = colours(&decoder);

    // Around the frame, Pillow puts the transparent index, else index 0.
    let colour = |index: u8| colours.get(usize::from(index)).copied().unwrap_or_default();
    let around = colour(transparent.unwrap_or(0));
    let pixels = u64::from(width) * u64::from(height);
    limits.check_decoder(pixels * 3 + indices.len() as u64)?;
    let mut rgb = around.repeat(pixels as usize);
    let pitch = width as usize * 3;
    let rows = rgb.chunks_exact_mut(pitch).skip(top as usize);
    for (row, indices) in rows.zip(indices.chunks_exact(frame_width as usize)) {
        let row = row.chunks_exact_mut(3).skip(left as usize);
        for (pixel, &index) in row.zip(indices) {
            pixel.copy_from_slice(&colour(index));
        }
    }
    Ok(Picture::new(width, height, rgb))
}

/// The palette; black beyond its end. Without any, a ramp of greys.
fn colours(decoder: &Decoder<&[u8]>) -> [[u8; 3]; 256] {
    let mut colours = [[0; 3]; 256];
    match decoder.palette() {
        Ok(palette) => {
            for (colour, entry) in colours.iter_mut().zip(palette.chunks_exact(3)) {
                colour.copy_from_slice(entry);
            }
        }
        Err(_) => {
            for (colour, level) in colours.iter_mut().zip(0..=255) {
                *colour = [level; 3];
            }
        }
    }
    colours
}

fn undecodable(detail: String) -> PictureError {
    PictureError::Undecodable {
        format: "GIF",
        detail,
    }
}

fn refuse(error: DecodingError) -> PictureError {
    let ended = match &error {
        DecodingError::UnexpectedEof => true,
        DecodingError::Io(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    };
    if ended {
        PictureError::Truncated {
            format: "GIF",
            detail: "the data ends before the first frame does".into(),
        }
    } else {
        undecodable(error.to_string())
    }
}
