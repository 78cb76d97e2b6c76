//! What fails costs itself alone, and every item is answered, once.

use std::{sync::atomic::Ordering, time::Instant};

use rand::Rng as _;
use tipserve_engine::{
    EncodeFault, EngineError, EngineSettings, FlowId, Priority, ScoresRequest, Work,
};

use crate::tagging::{
    FATAL, Item, NOT_A_NUMBER, PANIC, POISON, close, dice, head, logits, number, settings, start,
    until_waiting,
};

#[test]
fn retry_a_failing_batch_is_split_until_the_guilty_item_is_alone() {
    let (engine, _) = start(settings(1, 32), false);
    let hold = engine.hold_until(1000);
    let mut answers = Vec::new();
    for n in 0..16 {
        answers.push((n, Item::of(n).submit(&engine)));
    }
    answers.push((POISON, Item::of(POISON).submit(&engine)));
    answers.push((NOT_A_NUMBER, Item::of(NOT_A_NUMBER).submit(&engine)));
    until_waiting(&engine, 18);
    drop(hold);
    for (n, answer) in answers {
        match (n, answer.blocking_recv().expect("answered")) {
            (POISON, Err(EngineError::Encoder { detail })) => {
                assert_eq!(detail, "a picture that breaks the encoder");
            }
            (NOT_A_NUMBER, Err(EngineError::NotFinite)) => {}
            (n, Ok(outcome)) => assert_eq!(number(&outcome), n),
            (n, other) => panic!("{n}: {other:?}"),
        }
    }
    // And the device lives on.
    let outcome = Item::of(77).submit(&engine).blocking_recv();
    assert_eq!(number(&outcome.expect("answered").expect("encoded")), 77);
}

#[test]
fn retry_a_batch_too_large_for_the_device_is_halved_until_it_fits() {
    let (engine, seen) = start(settings(1, 32), false);
    seen.room.store(5, Ordering::Relaxed);
    let hold = engine.hold_until(1000);
    let answers: Vec<_> = (0..32).map(|n| Item::of(n).submit(&engine)).collect();
    until_waiting(&engine, 32);
    drop(hold);
    for (n, answer) in answers.into_iter().enumerate() {
        let outcome = answer.blocking_recv().expect("answered").expect("encoded");
        assert_eq!(number(&outcome), n as u32);
        assert_eq!(outcome.times.batch_size, 4);
    }
    assert!(engine.is_healthy());
}

#[test]
fn a_panic_in_the_encoder_is_its_items_alone() {
    let (engine, _) = start(settings(1, 8), false);
    let hold = engine.hold_until(1000);
    let mut answers: Vec<_> = (0..7).map(|n| (n, Item::of(n).submit(&engine))).collect();
    answers.push((PANIC, Item::of(PANIC).submit(&engine)));
    until_waiting(&engine, 8);
    drop(hold);
    for (n, answer) in answers {
        match (n, answer.blocking_recv().expect("answered")) {
            (PANIC, Err(EngineError::Encoder { detail })) => {
                assert_eq!(detail, "a panic inside the encoder");
            }
            (n, Ok(outcome)) => assert_eq!(number(&outcome), n),
            (n, other) => panic!("{n}: {other:?}"),
        }
    }
    let outcome = Item::of(9).submit(&engine).blocking_recv();
    assert_eq!(number(&outcome.expect("answered").expect("encoded")), 9);
}

#[test]
fn a_device_that_lost_its_context_runs_nothing_more_and_says_so() {
    let (engine, seen) = start(settings(1, 8), false);
    let hold = engine.hold_until(1000);
    let mut answers: Vec<_> = (0..7).map(|n| Item::of(n).submit(&engine)).collect();
    answers.push(Item::of(FATAL).submit(&engine));
    until_waiting(&engine, 8);
    // One that waits for a later batch.
    answers.push(Item::of(8).submit(&engine));
    until_waiting(&engine, 9);
    assert!(engine.is_healthy());
    drop(hold);
    for answer in answers {
        let result = answer.blocking_recv().expect("answered");
        assert!(
            matches!(result, Err(EngineError::DeviceBroken)),
            "{result:?}"
        );
    }
    assert!(!engine.is_healthy());
    let later = Item::of(9).submit(&engine).blocking_recv();
    let later = later.expect("answered");
    assert!(matches!(later, Err(EngineError::DeviceBroken)), "{later:?}");
    // No batch was split on it, and none was tried after it.
    assert_eq!(seen.batches.lock().len(), 1);
}

#[test]
fn every_item_gets_exactly_its_own_answer_whatever_happens() {
    for embedding_cache_bytes in [0, 20_000] {
        let settings = EngineSettings {
            embedding_cache_bytes,
            ..settings(2, 8)
        };
        mayhem(settings);
    }
}

/// Random delays, failures, cancellations and deadlines.
fn mayhem(settings: EngineSettings) {
    let mut dice = dice();
    let (engine, _) = start(settings, true);
    let mut answers = Vec::new();
    for n in 0..2000_u32 {
        let die = dice.random_range(0..100);
        let n = match die {
            0..3 => POISON,
            3..6 => NOT_A_NUMBER,
            6..8 => PANIC,
            // Sent again and again.
            8..40 => n % 40,
            _ => n,
        };
        let expired = die == 41;
        let scale = dice.random_range(1..5) as f32;
        let item = Item {
            flow: FlowId(dice.random_range(0..7)),
            priority: if dice.random_ratio(1, 4) {
                Priority::Bulk
            } else {
                Priority::Interactive
            },
            deadline: expired.then(Instant::now),
            work: Work::Classify {
                head: head(scale),
                wanted: ScoresRequest::Logits,
                neighbours: 0,
                embedding: true,
            },
            ..Item::of(n)
        };
        let cancelled = item.cancelled.clone();
        if die == 42 {
            cancelled.store(true, Ordering::Relaxed);
        }
        answers.push((n, scale, expired, cancelled, item.submit(&engine)));
        if die > 95 {
            // Somewhere on the way.
            let recent = answers.len().saturating_sub(dice.random_range(1..40));
            if let Some((_, _, _, cancelled, _)) = answers.get(recent) {
                cancelled.store(true, Ordering::Relaxed);
            }
        }
    }
    for (n, scale, expired, cancelled, answer) in answers {
        // A oneshot can be answered once only; it must be.
        match answer.blocking_recv().expect("answered") {
            Ok(outcome) => {
                assert_eq!(number(&outcome), n);
                assert!(close(outcome.scores.logits(), &logits(scale, n)), "{n}");
                assert!(!expired, "{n}");
            }
            Err(EngineError::Cancelled) => assert!(cancelled.load(Ordering::Relaxed)),
            Err(EngineError::DeadlineExceeded { .. }) => assert!(expired, "{n}"),
            Err(EngineError::Encoder { .. }) => assert!(n == POISON || n == PANIC, "{n}"),
            Err(EngineError::NotFinite) => assert_eq!(n, NOT_A_NUMBER),
            Err(other) => panic!("{n}: {other}"),
        }
    }
    assert_eq!(engine.queued(), [0, 0, 0]);
}

/// What torch 2.11 writes under every error of CUDA's, lost context or not.
#[test]
fn a_hint_at_assertions_is_no_lost_context() {
    const HINTS: &str = "\nCUDA kernel errors might be asynchronously reported at some other API call, \
                         so the stacktrace below might be incorrect.\nFor debugging consider passing \
                         CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable \
                         device-side assertions.\n";
    for (error, fatal) in [
        ("invalid argument", false),
        ("operation not permitted when stream is capturing", false),
        ("device-side assert triggered", true),
        ("an illegal memory access was encountered", true),
    ] {
        let fault = EncodeFault::new(&format!("CUDA error: {error}{HINTS}"));
        assert_eq!(fault.fatal, fatal, "{error}");
        assert_eq!(fault.detail, format!("CUDA error: {error}"));
    }
}
