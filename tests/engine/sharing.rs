//! Several engines on one machine: they take turns, none is starved, and each
//! ends by itself.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tch::Tensor;
use tipserve_clip::PictureLimits;
use tipserve_engine::{EncodeFault, Encoder, Engine, EngineError, EngineSettings, Machine};

use crate::tagging::{Answer, Item, Seen, Tagging, number, picture, settings, spec, until};

/// An encoder that records whose batch it runs, and how many run at once.
struct Named {
    name: &'static str,
    tagging: Tagging,
    machine: Arc<Log>,
}

/// The record of all encoders of a machine.
#[derive(Default)]
struct Log {
    order: Mutex<Vec<&'static str>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Encoder for Named {
    fn encode(&self, pixels: &Tensor) -> Result<Tensor, EncodeFault> {
        let running = self.machine.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.machine.most.fetch_max(running, Ordering::SeqCst);
        self.machine.order.lock().push(self.name);
        let features = self.tagging.encode(pixels);
        self.machine.running.fetch_sub(1, Ordering::SeqCst);
        features
    }
}

/// An engine on a machine, whose batches take `millis` milliseconds.
fn start(
    machine: &Machine,
    settings: &EngineSettings,
    name: &'static str,
    log: &Arc<Log>,
    millis: usize,
) -> (Engine, Arc<Seen>) {
    let seen = Arc::new(Seen::paced(millis, 0));
    let encoder = Named {
        name,
        tagging: Tagging {
            seen: Arc::clone(&seen),
            dawdle: false,
        },
        machine: Arc::clone(log),
    };
    let engine = Engine::start_on(
        machine,
        settings.clone(),
        Some((Arc::new(encoder), spec())),
        PictureLimits::default(),
    )
    .expect("threads start");
    engine.wait_until_warm().expect("warm");
    (engine, seen)
}

fn submit(engine: &Engine, count: u32) -> Vec<Answer> {
    (0..count).map(|i| Item::of(i).submit(engine)).collect()
}

fn all_answered(answers: Vec<Answer>) {
    for (i, answer) in answers.into_iter().enumerate() {
        let outcome = answer
            .blocking_recv()
            .expect("one answer")
            .expect("a result");
        assert_eq!(number(&outcome) as usize, i);
    }
}

#[test]
fn fairness_a_flood_on_one_bundle_does_not_starve_the_other() {
    let settings = settings(1, 1);
    let machine = Machine::new(&settings);
    let log = Arc::new(Log::default());
    let (flooded, seen) = start(&machine, &settings, "flooded", &log, 2);
    let (other, _) = start(&machine, &settings, "other", &log, 2);
    seen.shut();
    let flood = submit(&flooded, 300);
    seen.until_batches(1);
    let few = submit(&other, 20);
    until(|| other.queued()[1] > 0);
    seen.open();
    all_answered(few);
    let order = log.order.lock().clone();
    let ahead = order.iter().filter(|name| **name == "flooded").count();
    // Taking turns makes it about 20; first come, first served would make it
    // all 300.
    assert!(ahead < 150, "{ahead} of the flood before the other's 20");
    all_answered(flood);
    assert_eq!(
        log.most.load(Ordering::SeqCst),
        1,
        "one slot, so one batch at a time, whichever engine it is of"
    );
}

#[test]
fn fairness_of_three_engines_each_has_a_third() {
    let settings = settings(2, 1);
    let machine = Machine::new(&settings);
    let log = Arc::new(Log::default());
    let names = ["a", "b", "c"];
    let engines: Vec<_> = names
        .iter()
        .map(|name| start(&machine, &settings, name, &log, 3))
        .collect();
    let answers: Vec<_> = engines
        .iter()
        .map(|(engine, _)| submit(engine, 60))
        .collect();
    answers.into_iter().for_each(all_answered);
    let order = log.order.lock().clone();
    // While all three have work, which they have until one has done its 60.
    let busy = &order[..120];
    for name in names {
        let count = busy.iter().filter(|taken| **taken == name).count();
        assert!(
            (20..=60).contains(&count),
            "{name} had {count} of 120 turns"
        );
    }
    assert!(log.most.load(Ordering::SeqCst) <= 2);
}

#[test]
fn backpressure_a_full_ready_queue_holds_up_no_other_engines_decoding() {
    let settings = settings(1, 1);
    let machine = Machine::new(&settings);
    let log = Arc::new(Log::default());
    let (stuck, seen) = start(&machine, &settings, "stuck", &log, 0);
    let (other, _) = start(&machine, &settings, "other", &log, 0);
    seen.shut();
    let held = submit(&stuck, 50);
    seen.until_batches(1);
    // Both of its decoders wait for room behind its encoder.
    let decoded = |engine: &Engine| engine.counters().decoded.load(Ordering::Relaxed);
    until(|| decoded(&stuck) >= 5);
    let free = submit(&other, 2);
    until(|| decoded(&other) == 2);
    seen.open();
    all_answered(held);
    all_answered(free);
}

#[test]
fn one_engine_ends_and_the_others_go_on() {
    let settings = EngineSettings {
        embedding_cache_bytes: 1 << 20,
        ..settings(1, 4)
    };
    let machine = Machine::new(&settings);
    let log = Arc::new(Log::default());
    let (ending, _) = start(&machine, &settings, "ending", &log, 1);
    let (other, seen) = start(&machine, &settings, "other", &log, 1);
    let (last, kept) = (submit(&ending, 20), submit(&other, 20));
    ending.shut_down();
    all_answered(last);
    all_answered(kept);
    // The same pictures, but another encoder's features: each had its own.
    assert_eq!(seen.all().len(), 20);
    assert_eq!(
        other.embeddings_held().0,
        20,
        "those of the ended one are gone"
    );
    all_answered(submit(&other, 20));
    let (ticket, answer) = tipserve_engine::Ticket::awaited();
    ending.submit(tipserve_engine::Job {
        content: picture(1),
        work: tipserve_engine::Work::Embed,
        flow: tipserve_engine::FlowId(1),
        priority: tipserve_engine::Priority::Interactive,
        deadline: None,
        ticket,
        cancelled: Arc::default(),
    });
    let late = answer.blocking_recv().expect("an answer");
    assert!(matches!(late, Err(EngineError::ShuttingDown)));
}

#[test]
fn backpressure_a_flood_leaves_the_other_engine_its_part_of_the_room() {
    let settings = EngineSettings {
        queue_items: 64,
        ..settings(1, 4)
    };
    let machine = Machine::new(&settings);
    let log = Arc::new(Log::default());
    let (flooded, _) = start(&machine, &settings, "flooded", &log, 0);
    let (other, _) = start(&machine, &settings, "other", &log, 0);
    futures::executor::block_on(async {
        flooded.admission().reserve().await;
        other.admission().reserve().await;
    });
    let held: Vec<_> = std::iter::from_fn(|| flooded.admission().try_enter(1).ok()).collect();
    assert_eq!(held.len(), 62);
    let entered = other.admission().try_enter(1).expect("room");
    assert_eq!(
        (flooded.admission().items(), other.admission().items()),
        (62, 1)
    );
    drop(entered);
}
