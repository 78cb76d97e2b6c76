//! Overload: cancellation, deadlines, backpressure, admission.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tipserve_engine::{Content, EngineError, EngineSettings, FlowId, Job, Priority, Ticket, Work};

use crate::tagging::{Item, cancel, settings, start, until, until_waiting};

#[test]
fn cancellation_cancelled_work_is_never_encoded() {
    let (engine, seen) = start(settings(1, 32), false);
    let hold = engine.hold_until(1000);
    let mut answers = Vec::new();
    let mut flags = Vec::new();
    for n in 0..10 {
        let item = Item::of(n);
        flags.push(item.cancelled.clone());
        answers.push(item.submit(&engine));
    }
    until_waiting(&engine, 10);
    for flag in flags.iter().step_by(2) {
        cancel(flag);
    }
    drop(hold);
    for (n, answer) in answers.into_iter().enumerate() {
        let result = answer.blocking_recv().expect("answered");
        assert_eq!(
            matches!(result, Err(EngineError::Cancelled)),
            n % 2 == 0,
            "{n}: {result:?}"
        );
    }
    assert!(seen.all().iter().all(|n| n % 2 == 1), "{:?}", seen.all());
}

#[test]
fn deadline_expired_work_is_never_encoded() {
    let (engine, seen) = start(settings(1, 32), false);
    let hold = engine.hold_until(1000);
    let deadline = Instant::now() + Duration::from_millis(50);
    let late: Vec<_> = (0..5)
        .map(|n| {
            Item {
                deadline: Some(deadline),
                ..Item::of(n)
            }
            .submit(&engine)
        })
        .collect();
    let far = Some(Instant::now() + Duration::from_secs(3600));
    let timely: Vec<_> = (10..15)
        .map(|n| {
            Item {
                deadline: far,
                ..Item::of(n)
            }
            .submit(&engine)
        })
        .collect();
    while Instant::now() < deadline {
        std::thread::yield_now();
    }
    drop(hold);
    for answer in late {
        let result = answer.blocking_recv().expect("answered");
        assert!(
            matches!(result, Err(EngineError::DeadlineExceeded { .. })),
            "{result:?}"
        );
    }
    for answer in timely {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    assert!(seen.all().iter().all(|n| *n >= 10), "{:?}", seen.all());
}

#[test]
fn deadline_what_expires_before_its_turn_is_not_decoded() {
    let (engine, seen) = start(settings(1, 4), false);
    seen.shut();
    let mut answers = Vec::new();
    let mut fill = |count: u32, cancelled: &std::sync::Arc<_>, deadline| {
        for n in 0..count {
            let item = Item {
                cancelled: std::sync::Arc::clone(cancelled),
                deadline,
                ..Item::of(n)
            };
            answers.push(item.submit(&engine));
        }
    };
    // What the encoder, the ready queue (8) and two decoders take in.
    let wanted = std::sync::Arc::default();
    fill(1, &wanted, None);
    seen.until_batches(1);
    fill(10, &wanted, None);
    until(|| engine.counters().decoded.load(Ordering::Relaxed) == 11);
    let unwanted = std::sync::Arc::default();
    fill(50, &unwanted, None);
    let soon = Instant::now() + Duration::from_millis(30);
    fill(50, &wanted, Some(soon));
    assert_eq!(engine.queued()[0], 100);
    cancel(&unwanted);
    until(|| Instant::now() > soon);
    seen.open();
    let mut counts = [0; 3];
    for answer in answers {
        match answer.blocking_recv().expect("answered") {
            Ok(_) => counts[0] += 1,
            Err(EngineError::Cancelled) => counts[1] += 1,
            Err(EngineError::DeadlineExceeded { .. }) => counts[2] += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(counts, [11, 50, 50]);
    let counters = engine.counters();
    assert_eq!(counters.decoded.load(Ordering::Relaxed), 11);
    assert_eq!(counters.encoded.load(Ordering::Relaxed), 11);
    assert_eq!(counters.dropped.load(Ordering::Relaxed), 100);
}

#[test]
fn backpressure_no_more_is_decoded_than_the_encoder_will_soon_take() {
    let (engine, seen) = start(settings(1, 4), false);
    seen.shut();
    let answers: Vec<_> = (0..300).map(|n| Item::of(n).submit(&engine)).collect();
    // Two batches wait; two decoders have one each in hand that finds no room.
    until(|| engine.queued()[1] == 8);
    seen.until_batches(1);
    // Time for a decoder that does not wait to go on; nothing is asserted of it.
    std::thread::sleep(Duration::from_millis(100));
    let decoded = engine.counters().decoded.load(Ordering::Relaxed);
    assert!(decoded <= 4 + 8 + 2, "{decoded}");
    assert!(engine.queued()[0] >= 300 - 14);
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
}

#[test]
fn shutdown_what_was_admitted_is_answered_before_the_engine_stops() {
    let (engine, _) = start(settings(2, 4), true);
    let answers: Vec<_> = (0..200).map(|n| Item::of(n).submit(&engine)).collect();
    engine.shut_down();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    let after = Item::of(1)
        .submit(&engine)
        .blocking_recv()
        .expect("answered");
    assert!(matches!(after, Err(EngineError::ShuttingDown)), "{after:?}");
}

#[test]
fn overload_admission_names_the_bound_that_is_reached() {
    let (engine, _) = start(
        EngineSettings {
            queue_items: 3,
            queue_bytes: 10 << 10,
            ..settings(1, 4)
        },
        false,
    );
    let admission = engine.admission();
    let first = admission.try_enter(4 << 10).expect("room");
    let second = admission.try_enter(4 << 10).expect("room");
    let full = admission.try_enter(4 << 10).expect_err("too many bytes");
    assert_eq!((full.limit, full.value), ("queue_bytes", 10 << 10));
    let third = admission.try_enter(1).expect("room");
    let full = admission.try_enter(1).expect_err("too many items");
    assert_eq!((full.limit, full.value), ("queue_items", 3));
    assert_eq!(admission.items(), 3);
    drop((first, second, third));
    assert_eq!((admission.items(), admission.bytes()), (0, 0));
}

#[test]
fn a_bad_picture_costs_itself_alone() {
    let (engine, seen) = start(settings(1, 8), false);
    let (ticket, answer) = Ticket::awaited();
    let source = tipserve_engine::Source::File {
        bytes: bytes::Bytes::from_static(b"not a picture"),
        exif_orientation: tipserve_clip::ExifOrientation::Ignore,
    };
    engine.submit(Job {
        content: Content::Picture {
            source,
            crop: tipserve_engine::Crop::Centre,
        },
        work: Work::Embed,
        flow: FlowId(1),
        priority: Priority::Interactive,
        deadline: None,
        ticket,
        cancelled: std::sync::Arc::default(),
    });
    let result = answer.blocking_recv().expect("answered");
    assert!(matches!(result, Err(EngineError::Picture(_))), "{result:?}");
    assert!(seen.batches.lock().is_empty());
    Item::of(5)
        .submit(&engine)
        .blocking_recv()
        .expect("answered")
        .expect("encoded");
}

#[test]
fn a_step_runs_on_the_device_and_a_panic_in_one_is_survived() {
    let (engine, _) = start(settings(1, 8), false);
    assert_eq!(engine.step(|| 6 * 7), Some(42));
    assert_eq!(engine.step(|| -> u32 { panic!("a step that fails") }), None);
    Item::of(5)
        .submit(&engine)
        .blocking_recv()
        .expect("answered")
        .expect("encoded");
}
