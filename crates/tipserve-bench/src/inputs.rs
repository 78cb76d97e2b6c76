//! What is sent: pictures or embeddings, read and encoded before the load.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::Rng as _;

use super::{options::BenchArgs, schedule, wire};
use tipserve_api::v1::{Input, RawRgb, input::Content};
use tipserve_cli::{
    failure::Failure,
    files,
    npz::{self, embedding},
};

/// Most bytes of inputs that are held in memory.
const MAX_HELD_BYTES: usize = 4 << 30;

/// Encoded inputs, at least one.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// "pictures", "raw pictures", "embeddings", "random embeddings".
    pub kind: &'static str,
    /// Each as the bytes of an `Input`.
    pub encoded: Vec<Bytes>,
}

impl Inputs {
    /// Encoded length of the largest input, in bytes.
    pub fn largest(&self) -> usize {
        self.encoded.iter().map(Bytes::len).max().unwrap_or(0)
    }

    /// Mean encoded length of an input, in bytes.
    pub fn mean_bytes(&self) -> f64 {
        let all: usize = self.encoded.iter().map(Bytes::len).sum();
        all as f64 / self.encoded.len().max(1) as f64
    }
}

/// Reads them. `limit` is the server's message limit in bytes, `width` its
/// embedding width.
pub fn read(args: &BenchArgs, limit: usize, width: usize) -> Result<Inputs, Failure> {
    let mut held = Held {
        encoded: Vec::new(),
        bytes: 0,
        most: args.inputs as usize,
    };
    let kind = if args.random_embeddings {
        let mut rng = schedule::stream(args.seed, 2);
        for _ in 0..args.inputs {
            let values = (0..width).map(|_| rng.random_range(-1.0..1.0)).collect();
            held.add(&embedding(values))?;
        }
        "random embeddings"
    } else if let Some(path) = &args.embeddings {
        read_rows(path, &mut held)?;
        "embeddings"
    } else {
        for path in &args.pictures {
            read_pictures(path, args.raw, limit, &mut held)?;
        }
        if args.raw { "raw pictures" } else { "pictures" }
    };
    if held.encoded.is_empty() {
        return Err(Failure::Input(format!("there are no {kind} to send")));
    }
    Ok(Inputs {
        kind,
        encoded: held.encoded,
    })
}

struct Held {
    encoded: Vec<Bytes>,
    bytes: usize,
    most: usize,
}

impl Held {
    fn full(&self) -> bool {
        self.encoded.len() >= self.most
    }

    fn add(&mut self, input: &Input) -> Result<(), Failure> {
        let encoded = wire::encode(input);
        self.bytes += encoded.len();
        if self.bytes > MAX_HELD_BYTES {
            return Err(Failure::Input(format!(
                "the first {} inputs have over {MAX_HELD_BYTES} bytes, which is more than is held \
                 in memory; take fewer with --inputs",
                self.encoded.len()
            )));
        }
        self.encoded.push(encoded);
        Ok(())
    }
}

fn read_rows(path: &Path, held: &mut Held) -> Result<(), Failure> {
    files::existing(path, "--embeddings")?;
    let mut added = Ok(());
    npz::Archive::open(path)?.rows("features", &mut |_, values| {
        added = held.add(&embedding(values));
        added.is_ok() && !held.full()
    })?;
    added
}

fn read_pictures(path: &Path, raw: bool, limit: usize, held: &mut Held) -> Result<(), Failure> {
    let mut paths: Box<dyn Iterator<Item = Result<PathBuf, Failure>>> =
        if files::existing(path, "the picture")?.is_dir() {
            Box::new(files::walk(path))
        } else {
            Box::new(std::iter::once(Ok(path.to_owned())))
        };
    while !held.full()
        && let Some(path) = paths.next()
    {
        let path = path?;
        let unusable = |why: String| Failure::Input(format!("{}: {why}", files::readable(&path)));
        let mut input = files::read(&path, limit).map_err(|error| unusable(error.message))?;
        if raw {
            input = decoded(&input).map_err(|error| unusable(error.to_string()))?;
            let size = prost::Message::encoded_len(&input) + 2048;
            if size > limit {
                let error = files::Unusable::too_large(size as u64, limit);
                return Err(unusable(format!("its pixels are {}", error.message)));
            }
        }
        held.add(&input)?;
    }
    Ok(())
}

/// Decodes a picture file, to be sent as raw RGB.
fn decoded(input: &Input) -> Result<Input, image::ImageError> {
    let Some(Content::EncodedImage(file)) = &input.content else {
        return Ok(input.clone());
    };
    let picture = image::load_from_memory(file)?.into_rgb8();
    let (width, height) = picture.dimensions();
    Ok(Input {
        content: Some(Content::RawRgb(RawRgb {
            width,
            height,
            data: picture.into_raw().into(),
        })),
    })
}
