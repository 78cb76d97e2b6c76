//! Strips and tiles unpacked to the bytes that their samples take.

use std::io::Read as _;

use flate2::{Decompress, FlushDecompress, Status};
use lzma_rust2::{Lzma2Reader, filter::delta::DeltaReader};
use weezl::{BitOrder, LzwStatus};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::{
    errors::{truncated, undecodable, unsupported},
    fax,
    page::{Compression, Page},
};
use crate::picture::PictureError;

/// Fills `out`, which is zero, with a chunk's bytes.
pub(super) fn unpack(page: &Page, data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
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
        Compression::Lzma => lzma(data, out),
        Compression::Fax(coding) => {
            let height = out.len() / page.row_bytes().max(1);
            fax::decode(coding, data, page.chunk.0 as u32, out).map_err(|row| {
                undecodable(format!(
                    "its CCITT data breaks off in row {row} of {height}"
                ))
            })
        }
        // Decoded to levels at once.
        Compression::Jpeg | Compression::WebP => Ok(()),
    }
}

/// Bytes that a decompressor holds beside its output, of which a chunk has `unpacked`.
pub(super) fn decompressor_bytes(compression: Compression, unpacked: u64) -> u64 {
    match compression {
        Compression::Zstd => (1 << ZSTD_WINDOW_LOG) + (1 << 20),
        // The window grows as it fills, and is there twice while it moves to more room.
        Compression::Lzma => unpacked.saturating_mul(2).saturating_add(1 << 20),
        _ => 0,
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
    // Until 1988 codes stood in bytes from the lowest bit on, and became wider
    // one later, as in GIF. libtiff knows them by their first code, too.
    let mut decoder = match data {
        [0, second, ..] if second & 1 == 1 => weezl::decode::Decoder::new(BitOrder::Lsb, 8),
        _ => weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8),
    };
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

/// The first block of an .xz stream, which is what libtiff writes. As with
/// Deflate, checksums after the last sample are not looked at.
fn lzma(data: &[u8], out: &mut [u8]) -> Result<(), PictureError> {
    let block = XzBlock::read(data).ok_or_else(truncated)??;
    // The file may ask for 4 GiB, but nothing is repeated from before the chunk.
    let dictionary = u32::try_from(out.len().max(4096)).unwrap_or(u32::MAX);
    let lzma2 = Lzma2Reader::new(block.lzma2, dictionary, None);
    let result = match block.delta {
        Some(distance) => DeltaReader::new(lzma2, distance).read_exact(out),
        None => { lzma2 }.read_exact(out),
    };
    result.map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => truncated(),
        _ => undecodable(error),
    })
}

/// The data of a block, and the filter that it went through before.
struct XzBlock<'a> {
    lzma2: &'a [u8],
    delta: Option<usize>,
}

impl<'a> XzBlock<'a> {
    /// Reads the headers (the .xz format, 2.1.1 and 3.1); none if they break off.
    fn read(data: &'a [u8]) -> Option<Result<Self, PictureError>> {
        const MAGIC: &[u8] = b"\xFD7zXZ\0";
        const STREAM_HEADER: usize = 12;
        const LZMA2: usize = 0x21;
        const DELTA: usize = 3;
        if !data.starts_with(MAGIC) {
            return Some(Err(undecodable("its LZMA data does not begin as .xz")));
        }
        let data = data.get(STREAM_HEADER..)?;
        let length = (usize::from(*data.first()?) + 1) * 4;
        let (header, lzma2) = data.split_at_checked(length)?;
        let (&flags, mut header) = header.get(1..)?.split_first()?;
        for stated in [0x40, 0x80] {
            if flags & stated != 0 {
                number(&mut header)?; // a size, packed and unpacked
            }
        }
        let mut delta = None;
        for _ in 0..=flags & 3 {
            let filter = number(&mut header)?;
            let length = number(&mut header)?;
            let properties = header.split_off(..length)?;
            match (filter, properties) {
                (LZMA2, _) => return Some(Ok(Self { lzma2, delta })),
                (DELTA, &[distance]) if delta.is_none() => delta = Some(usize::from(distance) + 1),
                _ => return Some(Err(unsupported(format!("with LZMA's filter {filter:#x}")))),
            }
        }
        Some(Err(undecodable("its LZMA data has no coder")))
    }
}

/// A number of seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..56).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
