//! What goes into the engine and what comes out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    counters::Counters,
    error::EngineError,
    observer::{Dropped, Observer},
    stage::{Stage, StageTimes},
};
use tip_adapter::{
    answer::{Row, Scores, ScoresRequest},
    head::Head,
};
use tipserve_clip::ExifOrientation;

/// Who sent a job: a stream, a call. Flows share the device fairly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

impl FlowId {
    /// An id that no other flow of this process has.
    pub fn next() -> FlowId {
        use std::sync::atomic::AtomicU64;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        FlowId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How urgent a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Somebody waits for the answer: it goes before bulk items.
    #[default]
    Interactive,
    /// Takes what interactive jobs leave, and a sixteenth of each batch.
    Bulk,
}

/// Which part of a picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// The centre crop, CLIP's own preprocessing.
    Centre,
    /// A random resized crop and flip, drawn from this seed.
    Random {
        /// Same seed and picture, same view.
        seed: u64,
    },
}

/// A picture as it arrived.
#[derive(Clone, Debug)]
pub enum Source {
    /// An encoded picture file, decoded by the engine.
    File {
        /// The file's bytes, as received.
        bytes: Bytes,
        /// Whether it is turned upright. Queries must be treated as the
        /// examples of their version were.
        exif_orientation: ExifOrientation,
    },
    /// Decoded pixels, RGB, row by row, three bytes each.
    Rgb {
        /// Columns of the picture, in pixels.
        width: u32,
        /// Rows of the picture, in pixels.
        height: u32,
        /// width · height · 3 bytes.
        data: Bytes,
    },
}

impl Source {
    /// Bytes that the source occupies: what admission counts.
    pub fn len(&self) -> usize {
        match self {
            Source::File { bytes, .. } => bytes.len(),
            Source::Rgb { data, .. } => data.len(),
        }
    }

    /// Whether the source has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The input of a job.
#[derive(Clone, Debug)]
pub enum Content {
    /// A picture to be encoded.
    Picture {
        /// The picture to decode and encode.
        source: Source,
        /// The part to encode.
        crop: Crop,
    },
    /// A unit vector [D], encoded elsewhere.
    Embedding(Vec<f32>),
}

impl Content {
    /// The same, a picture file being decoded with this orientation.
    #[must_use]
    pub fn oriented(mut self, orientation: ExifOrientation) -> Content {
        if let Content::Picture {
            source: Source::File {
                exif_orientation, ..
            },
            ..
        } = &mut self
        {
            *exif_orientation = orientation;
        }
        self
    }
}

/// What to do with a job's feature.
#[derive(Clone)]
pub enum Work {
    /// Encode only, and answer with the feature.
    Embed,
    /// Return the scores that a head gives it.
    Classify {
        /// The head, kept alive by the job.
        head: Arc<Head>,
        /// Which scores; the answer may hold more.
        wanted: ScoresRequest,
        /// How many of the nearest cached examples to return.
        neighbours: usize,
        /// Whether the answer carries the feature beside the scores.
        embedding: bool,
    },
}

/// One picture or embedding on its way.
pub struct Job {
    /// The picture or feature to work on.
    pub content: Content,
    /// What to do with it.
    pub work: Work,
    /// The flow that the item is scheduled under; flows share the engine
    /// fairly.
    pub flow: FlowId,
    /// Scheduling class: interactive items go before bulk ones.
    pub priority: Priority,
    /// When the answer is of no more use.
    pub deadline: Option<Instant>,
    /// Receives the answer, or the error, exactly once.
    pub ticket: Ticket,
    /// Set when nobody wants the answer any more.
    pub cancelled: Arc<AtomicBool>,
}

/// A job without its content.
pub(super) struct Item {
    pub work: Work,
    pub flow: FlowId,
    pub priority: Priority,
    pub deadline: Option<Instant>,
    pub ticket: Ticket,
    pub cancelled: Arc<AtomicBool>,
    pub arrived: Instant,
    /// The span of the RPC that it came with: a batch's span links to it.
    pub origin: tracing::Span,
}

impl Item {
    /// Identifies the head that answers it, if one does.
    pub fn head(&self) -> Option<*const Head> {
        match &self.work {
            Work::Embed => None,
            Work::Classify { head, .. } => Some(Arc::as_ptr(head)),
        }
    }
}

/// Why a job should go no further, if so.
pub(super) fn lapse(
    deadline: Option<Instant>,
    cancelled: &AtomicBool,
    stage: Stage,
) -> Option<EngineError> {
    if cancelled.load(Ordering::Relaxed) {
        Some(EngineError::Cancelled)
    } else if deadline.is_some_and(|deadline| Instant::now() > deadline) {
        Some(EngineError::DeadlineExceeded { stage })
    } else {
        None
    }
}

impl Job {
    /// The same, with its ticket's answer reported to `observer`.
    pub(super) fn observed_by(mut self, observer: &Arc<dyn Observer>) -> Job {
        self.ticket.observer = Some(Arc::clone(observer));
        self
    }

    /// The job, or none if it was late or cancelled and has been answered.
    pub(super) fn alive(self, counters: &Counters) -> Option<Job> {
        match lapse(self.deadline, &self.cancelled, Stage::Admission) {
            None => Some(self),
            Some(error) => {
                counters.dropped.fetch_add(1, Ordering::Relaxed);
                self.ticket.answer(Err(error));
                None
            }
        }
    }
}

/// The feature of one input.
#[derive(Clone, Debug)]
pub struct Feature {
    /// The feature scaled to unit length, [D].
    pub unit: Row,
    /// Length of the encoder's raw output: raw = unit · norm.
    pub norm: f32,
}

/// What a job that succeeded gives.
#[derive(Clone, Debug)]
pub struct JobOutput {
    /// The head's scores; empty for [`Work::Embed`].
    pub scores: Scores,
    /// The feature, where asked for.
    pub feature: Option<Feature>,
    /// The nearest cached examples (index into the keys, cosine), nearest
    /// first.
    pub neighbours: Vec<(usize, f32)>,
    /// Whether the picture's file has every pixel and lacks its end mark.
    pub lacks_end_mark: bool,
    /// Time spent in each stage.
    pub times: StageTimes,
}

/// The right, and duty, to answer one item. Dropped without an answer it says
/// [`EngineError::ShuttingDown`]: no admitted item is left without one.
pub struct Ticket {
    reply: Option<Reply>,
    /// Absent until the item is submitted.
    observer: Option<Arc<dyn Observer>>,
}

type Reply = Box<dyn FnOnce(Result<JobOutput, EngineError>) + Send>;

impl Ticket {
    /// A ticket whose answer goes to `reply`, which runs on the engine's
    /// threads: it must not block.
    pub fn new(reply: impl FnOnce(Result<JobOutput, EngineError>) + Send + 'static) -> Ticket {
        Ticket {
            reply: Some(Box::new(reply)),
            observer: None,
        }
    }

    /// A ticket whose answer somebody awaits.
    pub fn awaited() -> (Ticket, oneshot::Receiver<Result<JobOutput, EngineError>>) {
        let (sender, receiver) = oneshot::channel();
        // A receiver that is gone has cancelled.
        let ticket = Ticket::new(move |result| drop(sender.send(result)));
        (ticket, receiver)
    }

    /// Answers the job and releases what it holds.
    pub fn answer(mut self, result: Result<JobOutput, EngineError>) {
        self.reply(result);
    }

    fn reply(&mut self, result: Result<JobOutput, EngineError>) {
        if let Some(reply) = self.reply.take() {
            if let (Some(observer), Some(reason)) = (&self.observer, drop_reason(&result)) {
                observer.dropped(reason);
            }
            reply(result);
        }
    }
}

fn drop_reason(result: &Result<JobOutput, EngineError>) -> Option<Dropped> {
    match result {
        Err(EngineError::Cancelled) => Some(Dropped::Cancelled),
        Err(EngineError::DeadlineExceeded { stage }) => Some(Dropped::Expired(*stage)),
        Err(EngineError::ShuttingDown) => Some(Dropped::ShuttingDown),
        _ => None,
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.reply(Err(EngineError::ShuttingDown));
    }
}
