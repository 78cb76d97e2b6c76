//! How batches form, and that every item gets its own answer.

use std::sync::atomic::Ordering;

use tipserve::engine::{EngineError, FlowId, Priority};

use crate::tagging::{Item, NOT_A_NUMBER, POISON, number, settings, start, until_waiting};

#[test]
fn what_waits_while_the_device_is_held_is_one_batch() {
    let (engine, seen) = start(settings(1, 32), false);
    let hold = engine.hold_until(1000);
    let answers: Vec<_> = (0..20).map(|n| Item::of(n).submit(&engine)).collect();
    until_waiting(&engine, 20);
    drop(hold);
    for (n, answer) in answers.into_iter().enumerate() {
        let outcome = answer.blocking_recv().expect("answered").expect("encoded");
        assert_eq!(number(&outcome), n as u32);
        assert_eq!(outcome.times.batch_size, 20);
    }
    let batches = seen.batches.lock();
    assert_eq!(batches.len(), 1, "{batches:?}");
}

#[test]
fn the_device_starts_once_the_number_held_for_waits() {
    let (engine, seen) = start(settings(1, 32), false);
    let _hold = engine.hold_until(8);
    let answers: Vec<_> = (0..8).map(|n| Item::of(n).submit(&engine)).collect();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    assert_eq!(seen.batches.lock().len(), 1);
}

#[test]
fn a_batch_is_never_larger_than_allowed() {
    let (engine, seen) = start(settings(1, 4), false);
    let hold = engine.hold_until(1000);
    let answers: Vec<_> = (0..30).map(|n| Item::of(n).submit(&engine)).collect();
    until_waiting(&engine, 30);
    drop(hold);
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    assert!(seen.batches.lock().iter().all(|batch| batch.len() <= 4));
}

#[test]
fn a_greedy_flow_does_not_starve_another() {
    let (engine, seen) = start(settings(1, 8), false);
    let hold = engine.hold_until(1000);
    let mut answers = Vec::new();
    for n in 0..100 {
        answers.push(Item::of(n).submit(&engine));
    }
    until_waiting(&engine, 100);
    for n in 200..208 {
        answers.push(
            Item {
                flow: FlowId(2),
                ..Item::of(n)
            }
            .submit(&engine),
        );
    }
    until_waiting(&engine, 108);
    drop(hold);
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    // Two flows of equal weight: the second's 8 are among the first 16.
    let order: Vec<u32> = seen.batches.lock().iter().flatten().copied().collect();
    let late = order.iter().skip(16).filter(|n| **n >= 200).count();
    assert_eq!(late, 0, "{order:?}");
}

#[test]
fn bulk_work_takes_what_interactive_work_leaves() {
    let (engine, seen) = start(settings(1, 16), false);
    let hold = engine.hold_until(1000);
    let mut answers = Vec::new();
    for n in 0..40 {
        let bulk = Item {
            priority: Priority::Bulk,
            flow: FlowId(9),
            ..Item::of(n)
        };
        answers.push(bulk.submit(&engine));
    }
    until_waiting(&engine, 40);
    for n in 100..130 {
        answers.push(Item::of(n).submit(&engine));
    }
    until_waiting(&engine, 70);
    drop(hold);
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    let order: Vec<u32> = seen.batches.lock().iter().flatten().copied().collect();
    let bulk_early = order.iter().take(30).filter(|n| **n < 100).count();
    assert!((1..=3).contains(&bulk_early), "{order:?}");
}

#[test]
fn a_failing_batch_is_split_until_the_guilty_item_is_alone() {
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
fn every_item_gets_exactly_its_own_answer_whatever_happens() {
    let (engine, _) = start(settings(2, 8), true);
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as u64);
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut next = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut answers = Vec::new();
    for n in 0..2000_u32 {
        let dice = next() % 100;
        let n = match dice {
            0..3 => POISON,
            3..6 => NOT_A_NUMBER,
            _ => n,
        };
        let item = Item {
            flow: FlowId(next() % 7),
            priority: if next() % 4 == 0 {
                Priority::Bulk
            } else {
                Priority::Interactive
            },
            ..Item::of(n)
        };
        let cancelled = item.cancelled.clone();
        if dice == 10 {
            cancelled.store(true, Ordering::Relaxed);
        }
        answers.push((n, cancelled, item.submit(&engine)));
        if dice == 11 {
            // Somewhere on the way.
            if let Some((_, cancelled, _)) = answers.get(answers.len() / 2) {
                cancelled.store(true, Ordering::Relaxed);
            }
        }
    }
    for (n, cancelled, answer) in answers {
        // A oneshot can be answered once only; it must be.
        match answer.blocking_recv().expect("answered") {
            Ok(outcome) => assert_eq!(number(&outcome), n),
            Err(EngineError::Cancelled) => assert!(cancelled.load(Ordering::Relaxed)),
            Err(EngineError::Encoder { .. }) => assert_eq!(n, POISON),
            Err(EngineError::NotFinite) => assert_eq!(n, NOT_A_NUMBER),
            Err(other) => panic!("{n}: {other}"),
        }
    }
}
