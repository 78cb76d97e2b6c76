//! Inflating, in steps whose output is bounded.

use std::{collections::VecDeque, io, io::Write as _};

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status, write::MultiGzDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer};

use super::Encoding;

/// Bytes of gzip that are inflated in one step: at deflate's highest ratio,
/// 1032, they are 264 KB.
const GZIP_STEP: usize = 256;
/// Most bytes that one step of the others makes.
const SCRATCH: usize = 64 << 10;
/// Pieces that inflated bytes are handed on in.
const PIECE: usize = 64 << 10;
/// The largest window that every decoder of zstd should have (RFC 8878, section
/// 3.1.1.1.2), as a power of two: 8 MiB.
const WINDOW_LOG: u32 = 23;
/// zstd's own bound on windows: 128 MiB.
const LARGEST_WINDOW_LOG: u32 = 27;

/// Why bytes cannot be inflated.
#[derive(Debug)]
pub(in crate::rpc) enum Fault {
    /// They would be more than the limit.
    TooLarge,
    /// They are not of their encoding, or end too early.
    Malformed(String),
}

impl Fault {
    fn malformed(error: &io::Error) -> Fault {
        Fault::Malformed(error.to_string())
    }
}

/// Inflates what one encoder has made.
pub(in crate::rpc) struct Inflater(Decoder);

enum Decoder {
    Gzip(Box<MultiGzDecoder<Inflated>>),
    Deflate {
        decoder: Decompress,
        whole: bool,
        out: Scratch,
    },
    Zstd {
        decoder: ZstdDecoder<'static>,
        /// Whether the last frame is whole.
        whole: bool,
        out: Scratch,
    },
}

/// Where a step's output goes, and what it adds to.
struct Scratch {
    step: Vec<u8>,
    /// The last step filled its buffer: there may be more without more input.
    more: bool,
    inflated: Inflated,
}

/// The inflated bytes, in pieces.
#[derive(Default)]
struct Inflated {
    pieces: VecDeque<Bytes>,
    last: BytesMut,
    total: usize,
    limit: usize,
    over: bool,
}

impl io::Write for Inflated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.total {
            self.over = true;
            return Err(io::Error::other("over the limit"));
        }
        self.total += bytes.len();
        for piece in bytes.chunks(PIECE) {
            if self.last.len() + piece.len() > PIECE {
                self.pieces.push_back(self.last.split().freeze());
            }
            self.last.extend_from_slice(piece);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Scratch {
    fn new(limit: usize) -> Scratch {
        Scratch {
            step: vec![0; SCRATCH],
            more: false,
            inflated: Inflated::up_to(limit),
        }
    }

    /// The first `made` bytes of the buffer were made.
    fn made(&mut self, made: usize) -> Result<(), Fault> {
        self.more = made == self.step.len();
        let made = self.step.get(..made).unwrap_or_default();
        let kept = self.inflated.write_all(made);
        kept.map_err(|_| Fault::TooLarge)
    }
}

impl Inflated {
    fn up_to(limit: usize) -> Inflated {
        Inflated {
            limit,
            ..Inflated::default()
        }
    }
}

impl Inflater {
    /// Inflates `encoding` to at most `limit` bytes.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(encoding: Encoding, limit: usize) -> Result<Inflater, Fault> {
        let decoder = match encoding {
            Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(Inflated::up_to(limit)))),
            Encoding::Deflate => Decoder::Deflate {
                decoder: Decompress::new(true),
                whole: false,
                out: Scratch::new(limit),
            },
            Encoding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|error| Fault::malformed(&error))?;
                // A frame that says its size has a window of that size.
                let window = limit.checked_next_power_of_two().map_or(0, usize::ilog2);
                let window = window.clamp(WINDOW_LOG, LARGEST_WINDOW_LOG);
                decoder
                    .set_parameter(DParameter::WindowLogMax(window))
                    .map_err(|error| Fault::malformed(&error))?;
                Decoder::Zstd {
                    decoder,
                    whole: false,
                    out: Scratch::new(limit),
                }
            }
        };
        Ok(Inflater(decoder))
    }

    fn inflated(&mut self) -> &mut Inflated {
        match &mut self.0 {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate { out, .. } | Decoder::Zstd { out, .. } => &mut out.inflated,
        }
    }

    /// How many bytes have been inflated so far.
    pub fn total(&mut self) -> usize {
        self.inflated().total
    }

    /// Whether a step makes sense without more input.
    pub fn has_more(&self) -> bool {
        match &self.0 {
            Decoder::Gzip(_) => false,
            Decoder::Deflate { out, .. } | Decoder::Zstd { out, .. } => out.more,
        }
    }

    /// Takes some of the input, and inflates what is a step's work.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn step(&mut self, input: &mut Bytes) -> Result<(), Fault> {
        match &mut self.0 {
            Decoder::Gzip(decoder) => {
                let now = input.split_to(input.len().min(GZIP_STEP));
                let written = decoder.write_all(&now);
                written.map_err(|error| match decoder.get_ref().over {
                    true => Fault::TooLarge,
                    false => Fault::malformed(&error),
                })
            }
            Decoder::Deflate {
                decoder,
                whole,
                out,
            } => {
                if *whole {
                    return Err(Fault::Malformed("bytes follow its end".to_owned()));
                }
                let (read, made) = (decoder.total_in(), decoder.total_out());
                let status = decoder
                    .decompress(input, &mut out.step, FlushDecompress::None)
                    .map_err(|error| Fault::Malformed(error.to_string()))?;
                *whole = status == Status::StreamEnd;
                let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
                let (read, made) = (
                    count(decoder.total_in(), read),
                    count(decoder.total_out(), made),
                );
                input.advance(read);
                out.made(made)?;
                out.more &= !*whole;
                moved(read, made, input)
            }
            Decoder::Zstd {
                decoder,
                whole,
                out,
            } => {
                let mut from = InBuffer::around(input);
                // (Of a vector it would be the capacity that counts.)
                let mut to = OutBuffer::around(out.step.as_mut_slice());
                let hint = decoder
                    .run(&mut from, &mut to)
                    .map_err(|error| Fault::malformed(&error))?;
                let (read, made) = (from.pos(), to.pos());
                *whole = hint == 0;
                input.advance(read);
                out.made(made)?;
                out.more &= !*whole;
                moved(read, made, input)
            }
        }
    }

    /// There is no more input.
    ///
    /// # Errors
    /// Where it ends too early.
    pub fn finish(&mut self) -> Result<(), Fault> {
        let whole = match &mut self.0 {
            Decoder::Gzip(decoder) => {
                let finished = decoder.try_finish();
                return finished.map_err(|error| match decoder.get_ref().over {
                    true => Fault::TooLarge,
                    false => Fault::malformed(&error),
                });
            }
            Decoder::Deflate { whole, .. } | Decoder::Zstd { whole, .. } => *whole,
        };
        match whole {
            true => Ok(()),
            false => Err(Fault::Malformed("it ends too early".to_owned())),
        }
    }

    /// Whole pieces of what has been inflated.
    pub fn pieces(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.inflated().pieces.drain(..)
    }

    /// All that is left of it.
    pub fn rest(&mut self) -> VecDeque<Bytes> {
        let inflated = self.inflated();
        let mut pieces = std::mem::take(&mut inflated.pieces);
        if !inflated.last.is_empty() {
            pieces.push_back(inflated.last.split().freeze());
        }
        pieces
    }
}

/// A step that neither takes nor makes anything would be taken for ever.
fn moved(read: usize, made: usize, input: &Bytes) -> Result<(), Fault> {
    match read == 0 && made == 0 && !input.is_empty() {
        true => Err(Fault::Malformed("it cannot be read on".to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::deflater::Deflater, *};

    fn compress(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
        let mut deflater = Deflater::new(encoding).expect("an encoder");
        let mut input = Bytes::copy_from_slice(plain);
        while !input.is_empty() {
            deflater.step(&mut input).expect("compressed");
        }
        deflater.finish().expect("an end")
    }

    fn inflate(
        encoding: Encoding,
        bytes: &[u8],
        cut: usize,
        limit: usize,
    ) -> Result<Vec<u8>, Fault> {
        let mut inflater = Inflater::new(encoding, limit)?;
        let mut made = Vec::new();
        for piece in bytes.chunks(cut) {
            let mut input = Bytes::copy_from_slice(piece);
            while !input.is_empty() || inflater.has_more() {
                let before = inflater.total();
                inflater.step(&mut input)?;
                assert!(inflater.total() - before <= 512 << 10, "a step's work");
            }
            made.extend(inflater.pieces());
        }
        inflater.finish()?;
        made.extend(inflater.rest());
        Ok(made.concat())
    }

    #[test]
    fn what_was_compressed_comes_back_however_it_is_cut() {
        let noise: Vec<u8> = (0..300_000).map(|_| rand::random()).collect();
        let zeros = vec![0; 1_000_000];
        for encoding in Encoding::ALL {
            for plain in [&b""[..], b"a", &zeros, &noise] {
                let bytes = compress(encoding, plain);
                for cut in [1, 17, 4096, usize::MAX] {
                    let made = inflate(encoding, &bytes, cut, plain.len()).expect("inflated");
                    assert!(made == plain, "{encoding:?} {} by {cut}", plain.len());
                }
            }
        }
    }

    #[test]
    fn nothing_is_inflated_beyond_the_limit() {
        let zeros = vec![0; 64 << 20];
        for encoding in Encoding::ALL {
            let bomb = compress(encoding, &zeros);
            assert!(bomb.len() < 400 << 10, "{encoding:?}: {}", bomb.len());
            let mut inflater = Inflater::new(encoding, 1 << 20).expect("a decoder");
            let mut input = Bytes::from(bomb);
            let fault = loop {
                if let Err(fault) = inflater.step(&mut input) {
                    break fault;
                }
            };
            assert!(matches!(fault, Fault::TooLarge), "{encoding:?}: {fault:?}");
            assert!(inflater.total() <= 1 << 20, "{encoding:?}");
        }
    }

    #[test]
    fn what_is_cut_off_damaged_or_followed_by_something_is_refused() {
        let plain: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
        for encoding in Encoding::ALL {
            let whole = compress(encoding, &plain);
            let mut wrong = vec![
                Vec::new(),
                b"neither of the three".to_vec(),
                [whole.as_slice(), b"more"].concat(),
            ];
            for end in [1, 9, whole.len() / 2, whole.len() - 1] {
                wrong.push(whole[..end].to_vec());
            }
            for bytes in wrong {
                let fault = inflate(encoding, &bytes, 64, 1 << 20).expect_err("refused");
                assert!(
                    matches!(fault, Fault::Malformed(_)),
                    "{encoding:?}: {fault:?}"
                );
            }
        }
    }

    #[test]
    fn a_window_is_no_larger_than_the_limit_or_eight_mebibytes() {
        // A frame whose header asks for 128 MiB, and one for 2 MiB.
        for (log, taken) in [(27, false), (21, true)] {
            let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0];
            let made = inflate(Encoding::Zstd, &frame, 64, 4096);
            assert_eq!(made.is_ok(), taken, "{log}: {made:?}");
        }
    }
}
