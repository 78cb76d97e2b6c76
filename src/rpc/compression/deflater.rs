//! Deflating, a little at a time.

use std::io::{self, Write as _};

use bytes::{Buf as _, Bytes};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use zstd::stream::write::Encoder as ZstdEncoder;

use super::{Encoding, TURN};

/// Quick rather than small: answers are made for networks that are slower than
/// one core, and by servers that have other work for it.
const ZSTD_LEVEL: i32 = 1;

/// Compresses one message or body.
pub(super) enum Deflater {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Zstd(Box<ZstdEncoder<'static, Vec<u8>>>),
}

impl Deflater {
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(encoding: Encoding) -> io::Result<Deflater> {
        Ok(match encoding {
            Encoding::Gzip => Deflater::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Encoding::Deflate => {
                Deflater::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast()))
            }
            Encoding::Zstd => Deflater::Zstd(Box::new(ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?)),
        })
    }

    /// Takes a turn's worth of the input.
    ///
    /// # Errors
    /// None that a buffer in memory has.
    pub fn step(&mut self, input: &mut Bytes) -> io::Result<()> {
        let now = input.split_to(input.remaining().min(TURN));
        match self {
            Deflater::Gzip(encoder) => encoder.write_all(&now),
            Deflater::Deflate(encoder) => encoder.write_all(&now),
            Deflater::Zstd(encoder) => encoder.write_all(&now),
        }
    }

    /// What has been made and not been taken yet.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Deflater::Gzip(encoder) => encoder.get_mut(),
            Deflater::Deflate(encoder) => encoder.get_mut(),
            Deflater::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// The end of it.
    ///
    /// # Errors
    /// None that a buffer in memory has.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Deflater::Gzip(encoder) => encoder.finish(),
            Deflater::Deflate(encoder) => encoder.finish(),
            Deflater::Zstd(encoder) => encoder.finish(),
        }
    }
}
