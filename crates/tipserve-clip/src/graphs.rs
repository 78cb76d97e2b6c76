//! Batches of a few fixed sizes as CUDA graphs: recorded once, and from then
//! on launched as a whole, without a gap between one kernel and the next.
//!
//! A size is recorded when the server starts, and used only if it proves itself
//! there: the same features as without a graph, and sooner. A batch of a size
//! between two is padded up to the next if that is expected to pay. A batch
//! whose graph fails is computed operator by operator.

use std::{fmt, str::FromStr, time::Instant};

use tch::{Device, Kind, Tensor};

use super::{device::DeviceError, encode_error::EncodeError, image_spec::Size};

/// Sizes that are recorded. In larger batches a kernel runs longer than
/// launching the next one takes.
pub const SIZES: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// The least cosine of a replayed feature to the plain one.
pub const LEAST_COSINE: f64 = 0.99999;
/// A graph is used only if a replay takes at most this share of the plain time.
const WORTHWHILE: f64 = 0.98;
/// Rounds of timing, plain and replayed in turn.
const ROUNDS: usize = 5;

/// Whether graphs are used, as the settings ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphsChoice {
    /// Batches are computed operator by operator.
    #[default]
    Off,
    /// On CUDA, for the sizes that prove to be right and quicker at the start.
    Auto,
}

impl FromStr for GraphsChoice {
    type Err = DeviceError;

    fn from_str(given: &str) -> Result<Self, DeviceError> {
        match given.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => Err(DeviceError::UnknownGraphs {
                given: given.into(),
            }),
        }
    }
}

/// What computes batches operator by operator, and can record them as graphs: a
/// stream slot.
pub trait Recorder {
    /// Features f32 [B, D] of staged pictures u8 [B, S, S, 3], operator by
    /// operator. Returns once they are computed.
    ///
    /// # Errors
    /// The encoder's.
    fn plain(&self, staged: &Tensor) -> Result<Tensor, EncodeError>;

    /// Records a batch of `size`.
    ///
    /// # Errors
    /// Why it cannot be recorded.
    fn record(&self, size: usize) -> Result<Box<dyn Recording>, EncodeError>;

    /// Seconds that a call takes.
    ///
    /// # Errors
    /// The call's.
    fn seconds(
        &self,
        run: &mut dyn FnMut() -> Result<Tensor, EncodeError>,
    ) -> Result<f64, EncodeError> {
        let started = Instant::now();
        let _features = run()?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// A batch of one size, recorded as a graph.
pub trait Recording: fmt::Debug + Send {
    /// Features f32 [B, D] of staged pictures u8 [B, S, S, 3], where B is at
    /// most the recorded size. Returns once they are computed; they are the
    /// caller's own.
    ///
    /// # Errors
    /// Torch's.
    fn replay(&self, staged: &Tensor) -> Result<Tensor, EncodeError>;
}

/// Whether a size is replayed, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The graph is right and quicker: batches of the size are replayed.
    Replayed {
        /// Seconds for a batch without a graph.
        plain: f64,
        /// Seconds for a batch with the graph.
        replayed: f64,
    },
    /// The same features, but not sooner.
    NoQuicker {
        /// Seconds for a batch without a graph.
        plain: f64,
        /// Seconds for a batch with the graph.
        replayed: f64,
    },
    /// The graph's features are not the plain ones.
    Differs {
        /// The least cosine to the plain ones.
        cosine: f64,
    },
    /// torch refused to record it, or it did not run.
    Refused {
        /// Why, in one line.
        reason: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |seconds: &f64| seconds * 1e3;
        match self {
            Self::Replayed { plain, replayed } => write!(
                f,
                "replayed: {:.3} ms in place of {:.3} ms",
                ms(replayed),
                ms(plain)
            ),
            Self::NoQuicker { plain, replayed } => write!(
                f,
                "not used, being no quicker: {:.3} ms in place of {:.3} ms",
                ms(replayed),
                ms(plain)
            ),
            Self::Differs { cosine } => write!(
                f,
                "not used, being wrong: a cosine of {cosine} to what comes without it, where \
                 {LEAST_COSINE} is the least"
            ),
            Self::Refused { reason } => write!(f, "not used: {reason}"),
        }
    }
}

/// The recorded batches of one stream slot.
#[derive(Debug, Default)]
pub struct Graphs {
    /// Sorted by size, smallest first.
    recorded: Vec<Recorded>,
    /// Sizes and the seconds that they take without a graph, smallest first.
    plain: Vec<(usize, f64)>,
}

#[derive(Debug)]
struct Recorded {
    size: usize,
    seconds: f64,
    recording: Box<dyn Recording>,
}

impl Graphs {
    /// Records batches of `sizes`, of pictures of that size, and keeps those that
    /// are right and quicker. After the first that is refused no other is
    /// tried.
    pub fn record(
        recorder: &dyn Recorder,
        sizes: &[usize],
        picture: Size,
    ) -> (Graphs, Vec<(usize, Verdict)>) {
        let mut sizes = sizes.to_vec();
        sizes.sort_unstable();
        sizes.dedup();
        let mut graphs = Graphs::default();
        let mut verdicts = Vec::with_capacity(sizes.len());
        let mut refused = None;
        for size in sizes.into_iter().filter(|size| *size > 0) {
            if let Some(before) = refused {
                let reason = format!("not tried after a batch of {before} was refused");
                verdicts.push((size, Verdict::Refused { reason }));
                continue;
            }
            let tried = recorder.record(size).and_then(|recording| {
                let verdict = judge(recorder, recording.as_ref(), size, picture)?;
                Ok((recording, verdict))
            });
            let verdict = match tried {
                Err(error) => {
                    refused = Some(size);
                    // CUDA's hints follow on lines of their own.
                    let message = error.to_string();
                    Verdict::Refused {
                        reason: message.lines().next().unwrap_or_default().to_owned(),
                    }
                }
                Ok((recording, verdict)) => {
                    if let Verdict::Replayed { plain, .. } | Verdict::NoQuicker { plain, .. } =
                        verdict
                    {
                        graphs.plain.push((size, plain));
                    }
                    if let Verdict::Replayed { replayed, .. } = verdict {
                        graphs.recorded.push(Recorded {
                            size,
                            seconds: replayed,
                            recording,
                        });
                    }
                    verdict
                }
            };
            verdicts.push((size, verdict));
        }
        (graphs, verdicts)
    }

    /// Features f32 [B, D] of staged pictures u8 [B, S, S, 3], by a graph if
    /// one pays. If a graph fails, all graphs are dropped.
    ///
    /// # Errors
    /// As [`Recorder::plain`].
    pub fn encode(
        &mut self,
        staged: &Tensor,
        recorder: &dyn Recorder,
    ) -> Result<Tensor, EncodeError> {
        let batch = staged.size().first().map_or(0, |rows| *rows as usize);
        let Some(graph) = self.pick(batch) else {
            return recorder.plain(staged);
        };
        match graph.recording.replay(staged) {
            // Memory is found for both ways alike.
            Err(error) if !error.is_out_of_memory() => {
                let size = graph.size;
                tracing::error!(%error, size, "a CUDA graph failed; this stream goes on without");
                *self = Graphs::default();
                recorder.plain(staged)
            }
            result => result,
        }
    }

    /// The size that a batch is replayed at; none if it is computed
    /// operator by operator.
    pub fn size_for(&self, batch: usize) -> Option<usize> {
        self.pick(batch).map(|graph| graph.size)
    }

    fn pick(&self, batch: usize) -> Option<&Recorded> {
        let next = self.recorded.iter().find(|graph| graph.size >= batch)?;
        if next.size == batch {
            return Some(next);
        }
        let expected = self.plain_seconds(batch)?;
        (next.seconds < WORTHWHILE * expected).then_some(next)
    }

    /// Seconds that a batch is expected to take operator by operator: on the
    /// line between the nearest sizes that were timed.
    fn plain_seconds(&self, batch: usize) -> Option<f64> {
        let above = self.plain.iter().find(|(size, _)| *size >= batch)?;
        let below = self.plain.iter().rev().find(|(size, _)| *size < batch);
        let Some(below) = below else {
            // At best in proportion.
            return Some(above.1 * batch as f64 / above.0 as f64);
        };
        let share = (batch - below.0) as f64 / (above.0 - below.0) as f64;
        Some(below.1 + share * (above.1 - below.1))
    }
}

/// Whether a recording gives the plain features, for two inputs and for a part
/// of each, and then which is quicker.
fn judge(
    recorder: &dyn Recorder,
    recording: &dyn Recording,
    size: usize,
    picture: Size,
) -> Result<Verdict, EncodeError> {
    let torch = |error: tch::TchError| EncodeError::Torch {
        encoder: "image",
        reason: error.to_string(),
    };
    let draw = || {
        let shape = picture.batch_shape(size);
        Tensor::f_randint(256, shape, (Kind::Uint8, Device::Cpu)).map_err(torch)
    };
    let inputs = [draw()?, draw()?];
    let mut cosine = f64::INFINITY;
    for input in &inputs {
        let plain = recorder.plain(input)?;
        let replayed = recording.replay(input)?;
        cosine = least(cosine, least_cosine(&plain, &replayed).map_err(torch)?);
        if size > 1 {
            // The rest of the batch holds old values.
            let rows = size as i64 / 2;
            let part = |t: &Tensor| t.f_narrow(0, 0, rows).map_err(torch);
            let replayed = recording.replay(&part(input)?)?;
            let plain = part(&plain)?;
            cosine = least(cosine, least_cosine(&plain, &replayed).map_err(torch)?);
        }
    }
    // Not a number is not enough.
    if cosine.is_nan() || cosine < LEAST_COSINE {
        return Ok(Verdict::Differs { cosine });
    }
    let (mut plain, mut replayed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for input in &inputs {
            plain.push(recorder.seconds(&mut || recorder.plain(input))?);
            replayed.push(recorder.seconds(&mut || recording.replay(input))?);
        }
    }
    let (plain, replayed) = (median(plain), median(replayed));
    Ok(if replayed < WORTHWHILE * plain {
        Verdict::Replayed { plain, replayed }
    } else {
        Verdict::NoQuicker { plain, replayed }
    })
}

/// The smaller; not a number where either is none.
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The least cosine of two matrices' rows; not a number where they have other
/// shapes.
pub(crate) fn least_cosine(a: &Tensor, b: &Tensor) -> Result<f64, tch::TchError> {
    if a.size() != b.size() {
        return Ok(f64::NAN);
    }
    let plain = |t: &Tensor| t.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double);
    let (a, b) = (plain(a)?, plain(b)?);
    let cosines = Tensor::f_cosine_similarity(&a, &b, 1, 1e-300)?;
    // The minimum of what holds one that is not a number is not a number.
    cosines.f_min()?.f_double_value(&[])
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
