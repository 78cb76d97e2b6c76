//! A batch that runs alone is encoded by more torch threads, where that is quicker.

use std::{sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use tch::{Kind, Tensor};
use tipserve_clip::PictureLimits;
use tipserve_engine::{EncodeFault, Encoder, Engine, EngineError, EngineSettings};

use crate::tagging::{Item, number, settings, spec, until};

/// What a picture that makes the encoder panic carries.
const PANIC: u32 = 77;

/// An encoder that takes a time by how many torch threads it has; its feature is (the first byte, 1).
struct Threaded {
    /// Milliseconds with one thread, and with more.
    millis: (u64, u64),
    /// torch's threads of every batch, and its size.
    seen: Mutex<Vec<(i32, usize)>>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Threaded {
    /// Torch's threads of the batches since the engine was ready.
    fn threads(&self) -> Vec<i32> {
        self.seen
            .lock()
            .iter()
            .map(|(threads, _)| *threads)
            .collect()
    }
}

impl Encoder for Threaded {
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault> {
        let threads = tch::get_num_threads();
        let batch = pixels.size()[0];
        self.seen.lock().push((threads, batch as usize));
        let mut shut = self.shut.lock();
        while *shut {
            self.opened.wait(&mut shut);
        }
        drop(shut);
        let (one, more) = self.millis;
        let millis = if threads == 1 {
            one
        } else {
            more / threads as u64
        };
        std::thread::sleep(Duration::from_millis(millis));
        let bytes = pixels.flatten(1, -1).to_kind(Kind::Int);
        let first = bytes.select(1, 2);
        assert!(
            !Vec::<i32>::try_from(&first)
                .expect("bytes")
                .contains(&(PANIC as i32))
        );
        let ones = first.ones_like();
        Ok(Tensor::stack(&[first + 1, ones], 1).to_kind(Kind::Float))
    }
}

/// An engine of two workers with a thread each, and up to four for a batch that runs alone.
fn start(millis: (u64, u64), lone_after: Duration) -> (Engine, Arc<Threaded>) {
    let encoder = Arc::new(Threaded {
        millis,
        seen: Mutex::default(),
        shut: Mutex::new(false),
        opened: Condvar::new(),
    });
    let mut settings = EngineSettings {
        lone_after,
        ..settings(2, 16)
    };
    settings.threads.lone = 4;
    let engine = Engine::start(
        settings,
        Some((Arc::clone(&encoder) as Arc<dyn Encoder>, spec())),
        PictureLimits::default(),
    )
    .expect("threads start");
    engine.wait_until_warm().expect("warm");
    encoder.seen.lock().clear();
    (engine, encoder)
}

/// Quicker with more threads, the most of all with four.
const GAINS: (u64, u64) = (60, 60);

fn classify(engine: &Engine, it: u32) -> Result<u32, EngineError> {
    let answer = Item::of(it)
        .submit(engine)
        .blocking_recv()
        .expect("answered");
    answer.map(|outcome| number(&outcome))
}

#[test]
fn a_picture_that_finds_the_machine_idle_has_all_its_threads() {
    let (engine, encoder) = start(GAINS, Duration::ZERO);
    for it in [3, 5, 8] {
        assert_eq!(classify(&engine, it).expect("classified"), it);
    }
    assert_eq!(encoder.threads(), [4, 4, 4]);
    engine.shut_down();
}

#[test]
fn beside_another_batch_one_has_a_workers_own_threads() {
    let (engine, encoder) = start(GAINS, Duration::ZERO);
    *encoder.shut.lock() = true;
    let first = Item::of(1).submit(&engine);
    until(|| encoder.seen.lock().len() == 1);
    let second = Item::of(2).submit(&engine);
    until(|| encoder.seen.lock().len() == 2);
    *encoder.shut.lock() = false;
    encoder.opened.notify_all();
    for (answer, it) in [(first, 1), (second, 2)] {
        let outcome = answer.blocking_recv().expect("answered").expect("encoded");
        assert_eq!(number(&outcome), it);
    }
    assert_eq!(encoder.threads(), [4, 1]);
    engine.shut_down();
}

#[test]
fn soon_after_two_batches_ran_at_once_none_counts_as_alone() {
    // Warming has just run two at once.
    let (engine, encoder) = start(GAINS, Duration::from_secs(3600));
    assert_eq!(classify(&engine, 9).expect("classified"), 9);
    assert_eq!(encoder.threads(), [1]);
    engine.shut_down();
}

#[test]
fn an_encoder_that_gains_nothing_by_threads_is_left_alone() {
    let (engine, encoder) = start((10, 120), Duration::ZERO);
    assert_eq!(classify(&engine, 9).expect("classified"), 9);
    assert_eq!(encoder.threads(), [1]);
    engine.shut_down();
}

#[test]
fn a_batch_that_fails_on_all_threads_fails_alone() {
    let (engine, encoder) = start(GAINS, Duration::ZERO);
    let failed = classify(&engine, PANIC).expect_err("the encoder panics");
    assert!(matches!(failed, EngineError::Encoder { .. }), "{failed:?}");
    assert_eq!(classify(&engine, 9).expect("classified"), 9);
    assert_eq!(encoder.threads(), [4, 4]);
    engine.shut_down();
}
