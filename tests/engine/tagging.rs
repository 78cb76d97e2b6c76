//! An encoder whose feature is the picture's own number.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rand::{SeedableRng as _, rngs::StdRng};
use tch::{Kind, Tensor};
use tip_adapter::head::{Head, HeadTensors};
use tip_spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource};
use tipserve_clip::{ImageSpec, PictureLimits, ResizeRule, Size, resize::Interpolation};
use tipserve_engine::{
    Content, Crop, EncodeFault, Encoder, Engine, EngineError, EngineSettings, FlowId, Job,
    JobOutput, Priority, Source, ThreadPlan, Ticket, Work,
};
use tokio::sync::oneshot;

/// Side of the pictures; their first pixel carries the number.
const SIDE: usize = 4;
/// What a picture that breaks the encoder carries.
pub const POISON: u32 = 0x00FF_0001;
/// What a picture whose feature is NaN carries.
pub const NOT_A_NUMBER: u32 = 0x00FF_0002;

/// What a picture that makes the encoder panic carries.
pub const PANIC: u32 = 0x00FF_0003;
/// What a picture that costs the device its context carries.
pub const FATAL: u32 = 0x00FF_0004;

/// What the encoder saw, batch by batch, and a gate in its way.
#[derive(Default)]
pub struct Seen {
    pub batches: Mutex<Vec<Vec<u32>>>,
    /// Sizes of the batches that warming ran.
    pub warmed: Mutex<Vec<usize>>,
    /// Batches over this size are out of memory; 0 is without a limit.
    pub room: AtomicUsize,
    /// Milliseconds that a batch takes, and each picture in it.
    pub pace: (AtomicUsize, AtomicUsize),
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Seen {
    /// Milliseconds that a batch takes, and each picture in it.
    pub fn paced(batch: usize, each: usize) -> Seen {
        Seen {
            pace: (batch.into(), each.into()),
            ..Seen::default()
        }
    }

    pub fn all(&self) -> HashSet<u32> {
        self.order().into_iter().collect()
    }

    /// Every picture, in the order in which they were encoded.
    pub fn order(&self) -> Vec<u32> {
        self.batches.lock().iter().flatten().copied().collect()
    }

    /// How often a picture was encoded.
    pub fn times(&self, number: u32) -> usize {
        self.order().iter().filter(|n| **n == number).count()
    }

    /// Makes batches wait inside the encoder, after they are written down.
    pub fn shut(&self) {
        *self.shut.lock() = true;
    }

    /// Opens the gate: batches that wait at it go on.
    pub fn open(&self) {
        *self.shut.lock() = false;
        self.opened.notify_all();
    }

    /// Waits, without a limit, until `count` batches have come to the encoder.
    pub fn until_batches(&self, count: usize) {
        until(|| self.batches.lock().len() >= count);
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
pub fn number(outcome: &JobOutput) -> u32 {
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
        let mut shut = self.seen.shut.lock();
        while *shut {
            self.seen.opened.wait(&mut shut);
        }
        drop(shut);
        if self.dawdle {
            let millis = numbers.iter().sum::<u32>() % 3;
            std::thread::sleep(Duration::from_millis(millis.into()));
        }
        let (batch_millis, each_millis) = &self.seen.pace;
        let millis = batch_millis.load(Ordering::Relaxed)
            + each_millis.load(Ordering::Relaxed) * numbers.len();
        std::thread::sleep(Duration::from_millis(millis as u64));
        let room = self.seen.room.load(Ordering::Relaxed);
        if room > 0 && numbers.len() > room {
            return Err(EncodeFault::new(
                "CUDA out of memory. Tried to allocate 2.00 GiB",
            ));
        }
        assert!(!numbers.contains(&PANIC), "a panic inside the encoder");
        if numbers.contains(&FATAL) {
            return Err(EncodeFault::new(
                "CUDA error: an illegal memory access was encountered\nmore words",
            ));
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
    start_as(settings, Seen::default(), dawdle)
}

/// An engine whose encoder takes some milliseconds for each batch and each picture.
pub fn start_paced(settings: EngineSettings, batch: usize, each: usize) -> (Engine, Arc<Seen>) {
    start_as(settings, Seen::paced(batch, each), false)
}

fn start_as(settings: EngineSettings, seen: Seen, dawdle: bool) -> (Engine, Arc<Seen>) {
    let seen = Arc::new(seen);
    let encoder = Arc::new(Tagging {
        seen: Arc::clone(&seen),
        dawdle,
    });
    let engine = Engine::start(settings, Some((encoder, spec())), PictureLimits::default())
        .expect("threads start");
    engine.wait_until_warm().expect("warm");
    // What warming showed the encoder is not the tests'.
    *seen.warmed.lock() = seen.batches.lock().drain(..).map(|b| b.len()).collect();
    (engine, seen)
}

/// Pictures as they are, four pixels a side.
pub fn spec() -> ImageSpec {
    ImageSpec {
        file: String::new(),
        size: Size::square(SIDE as u32),
        mean: [0.0; 3],
        std: [1.0; 3],
        resize: ResizeRule::ShortestSide,
        resize_to: Size::square(SIDE as u32),
        interpolation: Interpolation::Bicubic,
        parts: Vec::new(),
    }
}

pub fn settings(workers: usize, max_batch: usize) -> EngineSettings {
    EngineSettings {
        max_batch,
        // No cost model at the start: how long this encoder takes says nothing,
        // and the first batch is then as large as allowed.
        warm: Vec::new(),
        threads: ThreadPlan {
            decoders: 2,
            workers,
            intra_op: 1,
            lone: 1,
        },
        ..EngineSettings::default()
    }
}

pub type Answer = oneshot::Receiver<Result<JobOutput, EngineError>>;

/// One item on its way.
pub struct Item {
    pub content: Content,
    pub work: Work,
    pub flow: FlowId,
    pub priority: Priority,
    pub deadline: Option<Instant>,
    pub cancelled: Arc<AtomicBool>,
}

impl Item {
    pub fn of(number: u32) -> Item {
        Item {
            content: picture(number),
            work: Work::Embed,
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
            work: self.work,
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

/// Waits, without a limit, until `count` prepared pictures wait for the
/// encoder.
pub fn until_waiting(engine: &Engine, count: usize) {
    until(|| engine.queued()[1] >= count);
}

/// Waits, without a limit, until it is so.
pub fn until(so: impl Fn() -> bool) {
    while !so() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A head of two classes whose logits are `scale` times the feature.
pub fn head(scale: f32) -> Arc<Head> {
    let spec = HeadSpec {
        method: Method::ZeroShot,
        alpha: 0.0,
        beta: 0.0,
        lambda: 0.0,
        logit_scale: 100.0,
        class_balance: ClassBalance::Sum,
        temperature: 1.0,
        key_dtype: KeyDtype::F32,
        standardised: None,
        selection: Selection::unsearched(SelectionSource::Given),
        unseen: None,
        unlabelled: None,
    };
    let tensors = HeadTensors {
        classes: 2,
        linear: Some(Tensor::from_slice(&[scale, 0.0, 0.0, scale]).view([2, 2])),
        bias: None,
        cache: None,
        standardised: None,
    };
    Arc::new(Head::new(&spec, &tensors, tch::Device::Cpu).expect("a head"))
}

/// What [`head`] gives for a picture.
pub fn logits(scale: f32, number: u32) -> [f32; 2] {
    let first = f64::from(number) + 1.0;
    let length = (first * first + 1.0).sqrt();
    let scale = f64::from(scale);
    [(scale * first / length) as f32, (scale / length) as f32]
}

/// Whether these are the same but for rounding.
pub fn close(got: &[f32], want: &[f32]) -> bool {
    got.len() == want.len()
        && got
            .iter()
            .zip(want)
            .all(|(got, want)| (got - want).abs() <= 1e-5 * want.abs().max(1.0))
}

/// Fresh numbers; the seed is printed, so that a failure can be repeated with
/// `TIPSERVE_TEST_SEED`.
pub fn dice() -> StdRng {
    let seed = std::env::var("TIPSERVE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    println!("seed {seed}: repeat with TIPSERVE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
