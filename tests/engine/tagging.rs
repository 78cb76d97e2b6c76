//! An encoder whose feature is the picture's own number.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tch::{Kind, Tensor};
use tipserve::{
    clip::{ImageSpec, PictureLimits, bundle::ResizeRule, resize::Interpolation},
    engine::{
        Content, Crop, EncodeFault, Encoder, Engine, EngineError, EngineSettings, FlowId, Job,
        Outcome, Priority, Source, ThreadPlan, Ticket, Work,
    },
};
use tokio::sync::oneshot;

/// Side of the pictures; their first pixel carries the number.
const SIDE: usize = 4;
/// What a picture that breaks the encoder carries.
pub const POISON: u32 = 0x00FF_0001;
/// What a picture whose feature is NaN carries.
pub const NOT_A_NUMBER: u32 = 0x00FF_0002;

/// What the encoder saw, batch by batch.
#[derive(Default)]
pub struct Seen {
    pub batches: Mutex<Vec<Vec<u32>>>,
}

impl Seen {
    pub fn all(&self) -> HashSet<u32> {
        self.batches.lock().iter().flatten().copied().collect()
    }
}

pub struct Tagging {
    pub seen: Arc<Seen>,
    /// Sleeps a little, differently each time.
    pub dawdle: bool,
}

/// A picture with a number below 2^24.
pub fn picture(number: u32) -> Content {
    let mut data = vec![0; SIDE * SIDE * 3];
    data[..3].copy_from_slice(&number.to_be_bytes()[1..]);
    Content::Picture {
        source: Source::Rgb {
            width: SIDE as u32,
            height: SIDE as u32,
            data: Bytes::from(data),
        },
        crop: Crop::Centre,
    }
}

/// The number that an outcome carries: the feature is (number + 1, 1), made
/// unit length on the way.
pub fn number(outcome: &Outcome) -> u32 {
    let feature = outcome.feature.as_ref().expect("asked for");
    (feature.unit[0] / feature.unit[1]).round() as u32 - 1
}

impl Encoder for Tagging {
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault> {
        let batch = pixels.size()[0];
        let bytes = Vec::<u8>::try_from(pixels.flatten(0, -1)).expect("u8");
        let numbers: Vec<u32> = bytes
            .chunks(SIDE * SIDE * 3)
            .map(|one| u32::from_be_bytes([0, one[0], one[1], one[2]]))
            .collect();
        self.seen.batches.lock().push(numbers.clone());
        if self.dawdle {
            let millis = numbers.iter().sum::<u32>() % 3;
            std::thread::sleep(Duration::from_millis(millis.into()));
        }
        if numbers.contains(&POISON) {
            return Err(EncodeFault::new("a picture that breaks the encoder"));
        }
        let features: Vec<f32> = numbers
            .iter()
            .flat_map(|number| match *number {
                NOT_A_NUMBER => [f32::NAN, 1.0],
                number => [number as f32 + 1.0, 1.0],
            })
            .collect();
        Ok(Tensor::from_slice(&features)
            .view([batch, 2])
            .to_kind(Kind::Float))
    }
}

pub fn start(settings: EngineSettings, dawdle: bool) -> (Engine, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let encoder = Arc::new(Tagging {
        seen: Arc::clone(&seen),
        dawdle,
    });
    let spec = ImageSpec {
        file: String::new(),
        size: SIDE as u32,
        mean: [0.0; 3],
        std: [1.0; 3],
        resize: ResizeRule::ShortestSide,
        resize_to: SIDE as u32,
        interpolation: Interpolation::Bicubic,
    };
    let engine = Engine::start(settings, Some((encoder, spec)), PictureLimits::default())
        .expect("threads start");
    engine.wait_until_warm();
    // What warming showed the encoder is not the tests'.
    seen.batches.lock().clear();
    (engine, seen)
}

pub fn settings(workers: usize, max_batch: usize) -> EngineSettings {
    EngineSettings {
        max_batch,
        threads: ThreadPlan {
            decoders: 2,
            workers,
            intra_op: 1,
        },
        ..EngineSettings::default()
    }
}

pub type Answer = oneshot::Receiver<Result<Outcome, EngineError>>;

/// One item on its way.
pub struct Item {
    pub content: Content,
    pub flow: FlowId,
    pub priority: Priority,
    pub deadline: Option<Instant>,
    pub cancelled: Arc<AtomicBool>,
}

impl Item {
    pub fn of(number: u32) -> Item {
        Item {
            content: picture(number),
            flow: FlowId(1),
            priority: Priority::Interactive,
            deadline: None,
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    pub fn submit(self, engine: &Engine) -> Answer {
        let (ticket, answer) = Ticket::awaited();
        engine.submit(Job {
            content: self.content,
            work: Work::Embed,
            flow: self.flow,
            priority: self.priority,
            deadline: self.deadline,
            ticket,
            cancelled: self.cancelled,
        });
        answer
    }
}

pub fn cancel(flag: &AtomicBool) {
    flag.store(true, Ordering::Relaxed);
}

/// Waits, without a limit, until so many prepared pictures wait for the
/// encoder.
pub fn until_waiting(engine: &Engine, count: usize) {
    while engine.queued()[1] < count {
        std::thread::yield_now();
    }
}
