//! A strip or tile: its bytes unpacked, and its samples as levels of 8 bits.

use flate2::{Decompress, FlushDecompress, Status};
use weezl::{BitOrder, LzwStatus};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::{
    errors::{truncated, undecodable, unsupported},
    page::{Colour, Compression, Page},
};
use crate::{
    decode::jpeg,
    picture::{PictureError, PictureLimits},
};

/// Samples of a chunk, one byte each, row by row.
pub(super) struct Levels {
    pub levels: Vec<u8>,
    /// Samples in a row of the chunk.
    pub row: usize,
}

/// Decodes a strip or tile of `rows` rows.
pub(super) fn decode(
    page: &Page,
    data: &[u8],
    rows: usize,
    limits: &PictureLimits,
) -> Result<Levels, PictureError> {
    let row = page.chunk.0 * page.interleaved();
    if page.compression == Compression::Jpeg {
        let levels = jpeg_levels(page, data, rows, limits)?;
        return Ok(Levels { levels, row });
    }
    let reversed: Vec<u8>;
    let data = if page.reversed_bits {
        reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
        &reversed
    } else {
        data
    };
    let mut packed = vec![0; page.row_bytes() * rows];
    unpack(page, data, &mut packed)?;
    let levels = match page.bits {
        8 => {
            if page.differences {
                for row in packed.chunks_exact_mut(row) {
                    add_up(row, page.interleaved());
                }
            }
            packed
        }
        16 => high_bytes(page, &packed, row),
        bits => spread(page, &packed, row, bits),
    };
    Ok(Levels { levels, row })
}

fn unpack(page: &Page, data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    match page.compression {
        Compression::None => {
            let whole = data.get(..out.len()).ok_or_else(truncated)?;
            out.copy_from_slice(whole);
            Ok(())
        }
        Compression::PackBits => pack_bits(data, out),
        Compression::Lzw => lzw(data, out),
        Compression::Deflate => deflate(data, out),
        Compression::Zstd => zstandard(data, out),
        Compression::Fax3 | Compression::Fax4 => fax(page, data, out),
        // Decoded to levels at once.
        Compression::Jpeg => Ok(()),
    }
}

/// A count, then as many bytes, or one byte that often.
fn pack_bits(mut data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    let mut filled = 0;
    while filled < out.len() {
        let (&count, rest) = data.split_first().ok_or_else(truncated)?;
        let room = out.get_mut(filled..).unwrap_or_default();
        match count {
            0..128 => {
                let length = usize::from(count) + 1;
                let bytes = rest.get(..length).ok_or_else(truncated)?;
                let length = length.min(room.len());
                for (place, byte) in room.iter_mut().zip(bytes) {
                    *place = *byte;
                }
                filled += length;
                data = rest.get(bytes.len()..).unwrap_or_default();
            }
            128 => data = rest,
            129.. => {
                let (&byte, rest) = rest.split_first().ok_or_else(truncated)?;
                let length = (257 - usize::from(count)).min(room.len());
                if let Some(run) = room.get_mut(..length) {
                    run.fill(byte);
                }
                filled += length;
                data = rest;
            }
        }
    }
    Ok(())
}

/// As libtiff: what comes after the last sample, the end code included, is
/// not looked at.
fn lzw(mut data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    if let [0, second, ..] = data
        && second & 1 == 1
    {
        return Err(unsupported("with LZW codes of before 1988".into()));
    }
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut filled = 0;
    while filled < out.len() {
        let room = out.get_mut(filled..).unwrap_or_default();
        let step = decoder.decode_bytes(data, room);
        filled += step.consumed_out;
        data = data.get(step.consumed_in..).unwrap_or_default();
        match step.status {
            _ if filled == out.len() => break,
            Ok(LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) => return Err(truncated()),
            Err(error) => return Err(undecodable(error)),
        }
    }
    Ok(())
}

fn deflate(mut data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    let mut decoder = Decompress::new(true);
    let mut filled = 0;
    while filled < out.len() {
        let room = out.get_mut(filled..).unwrap_or_default();
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let status = decoder
            .decompress(data, room, FlushDecompress::None)
            .map_err(undecodable)?;
        let read = (decoder.total_in() - read) as usize;
        let written = (decoder.total_out() - written) as usize;
        filled += written;
        data = data.get(read..).unwrap_or_default();
        let stuck = read + written == 0;
        if filled < out.len() && (stuck || status == Status::StreamEnd) {
            return Err(truncated());
        }
    }
    Ok(())
}

/// Of the window that a Zstandard stream may ask for, the logarithm: 8 MiB, as much as
/// every level but the "ultra" ones uses.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Bytes that the Zstandard decoder holds beside its output.
pub(super) const ZSTD_BYTES: u64 = (1 << ZSTD_WINDOW_LOG) + (1 << 20);

fn zstandard(data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    let mut decoder = ZstdDecoder::new().map_err(undecodable)?;
    decoder
        .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
        .map_err(undecodable)?;
    let mut input = InBuffer::around(data);
    let mut output = OutBuffer::around(out);
    loop {
        let before = (input.pos(), output.pos());
        let hint = decoder.run(&mut input, &mut output).map_err(undecodable)?;
        if output.pos() == output.capacity() {
            return Ok(());
        }
        let stuck = before == (input.pos(), output.pos());
        if hint == 0 || stuck {
            return Err(truncated());
        }
    }
}

/// One bit a pixel, 1 for black: what libtiff gives.
fn fax(page: &Page, data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    let width = u16::try_from(page.chunk.0)
        .map_err(|_| unsupported("with CCITT rows of over 65535 pixels".into()))?;
    let height = out.len() / page.row_bytes().max(1);
    let height = u16::try_from(height)
        .map_err(|_| unsupported("with CCITT strips of over 65535 rows".into()))?;
    let mut rows = out.chunks_exact_mut(page.row_bytes());
    let mut done = 0;
    let mut short = false;
    let group_3 = page.compression == Compression::Fax3;
    let mut draw = |changes: &[u16]| {
        if let Some(row) = rows.next() {
            // Group 3 ends each row with the change at its end.
            short |= group_3 && changes.last() != Some(&width);
            for (at, pixel) in fax::decoder::pels(changes, width).enumerate() {
                if let (fax::Color::Black, Some(byte)) = (pixel, row.get_mut(at / 8)) {
                    *byte |= 0x80 >> (at % 8);
                }
            }
            done += 1;
        }
    };
    let bytes = data.iter().copied();
    let ended = if group_3 {
        // Many writers, libtiff among them, leave out the six end-of-line
        // codes after the last row, without which the decoder drops it.
        const RETURN_TO_CONTROL: [u8; 9] = [0x00, 0x10, 0x01, 0x00, 0x10, 0x01, 0x00, 0x10, 0x01];
        fax::decoder::decode_g3(bytes.chain(RETURN_TO_CONTROL), &mut draw)
    } else {
        fax::decoder::decode_g4(bytes, width, Some(height), &mut draw)
    };
    if short || done < height || (ended.is_none() && !group_3) {
        return Err(undecodable(format!(
            "its CCITT data breaks off in row {done} of {height}"
        )));
    }
    Ok(())
}

/// Undoes predictor 2: each sample is a difference to the one `stride` before.
fn add_up(row: &mut [u8], stride: usize) {
    for at in stride..row.len() {
        let left = row.get(at - stride).copied().unwrap_or(0);
        if let Some(sample) = row.get_mut(at) {
            *sample = sample.wrapping_add(left);
        }
    }
}

/// The high bytes of 16-bit samples; predictor 2 undone.
fn high_bytes(page: &Page, packed: &[u8], row: usize) -> Vec<u8> {
    let stride = page.interleaved();
    let mut left = vec![0_u16; stride];
    let mut levels = Vec::with_capacity(packed.len() / 2);
    for packed in packed.chunks_exact(row * 2) {
        left.fill(0);
        for pixel in packed.chunks_exact(stride * 2) {
            for (sample, left) in pixel.chunks_exact(2).zip(&mut left) {
                let Some(&bytes) = sample.first_chunk::<2>() else {
                    continue;
                };
                let mut value = match page.little_endian {
                    true => u16::from_le_bytes(bytes),
                    false => u16::from_be_bytes(bytes),
                };
                if page.differences {
                    value = value.wrapping_add(*left);
                    *left = value;
                }
                levels.push((value >> 8) as u8);
            }
        }
    }
    levels
}

/// Samples of less than a byte: levels of grey are spread over 0 to 255,
/// indices into a palette stay.
fn spread(page: &Page, packed: &[u8], row: usize, bits: usize) -> Vec<u8> {
    let most = (1_u8 << bits) - 1;
    let factor = match page.colour {
        Colour::Palette(_) => 1,
        _ => 255 / most,
    };
    let in_byte = 8 / bits;
    let mut levels = Vec::with_capacity(packed.len() * in_byte);
    for packed in packed.chunks_exact(page.row_bytes()) {
        let samples = packed.iter().flat_map(|&byte| {
            (1..=in_byte).map(move |number| (byte >> (8 - number * bits)) & most)
        });
        levels.extend(samples.take(row).map(|sample| sample * factor));
    }
    levels
}

/// A JPEG stream of its own, but for tables that all of them share.
fn jpeg_levels(
    page: &Page,
    data: &[u8],
    rows: usize,
    limits: &PictureLimits,
) -> Result<Vec<u8>, PictureError> {
    let body = data
        .strip_prefix(&[0xFF, 0xD8])
        .ok_or_else(|| undecodable("a JPEG strip or tile does not begin as one"))?;
    let mut stream = vec![0xFF, 0xD8];
    // Says which colours the three components are: TIFF's word counts, not
    // what a decoder would guess.
    if page.samples == 3 && !has_application_marker(body) {
        let transform = u8::from(page.colour == Colour::YCbCr);
        stream.extend(b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0");
        stream.push(transform);
    }
    if let Some(tables) = page.jpeg_tables {
        let tables = tables.strip_prefix(&[0xFF, 0xD8]).unwrap_or(tables);
        stream.extend(tables.strip_suffix(&[0xFF, 0xD9]).unwrap_or(tables));
    }
    stream.extend(body);
    let (width, height, mut levels) = jpeg::decode_levels(&stream, page.samples, limits)?;
    if width as usize != page.chunk.0 || (height as usize) < rows {
        return Err(undecodable(format!(
            "a JPEG strip or tile is {width}×{height}, not {}×{rows}",
            page.chunk.0
        )));
    }
    levels.truncate(page.chunk.0 * page.samples * rows);
    Ok(levels)
}

/// Whether a JPEG stream names its colours itself (JFIF or Adobe).
fn has_application_marker(body: &[u8]) -> bool {
    matches!(body, [0xFF, 0xE0 | 0xEE, ..])
}
