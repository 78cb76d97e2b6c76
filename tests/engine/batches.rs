//! How batches form, and who comes first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tipserve_engine::{Engine, EngineError, EngineSettings, FlowId, Priority, ScoresRequest, Work};

use crate::tagging::{
    Answer, Item, Seen, close, head, logits, number, settings, start, start_paced, until,
    until_waiting,
};

#[test]
fn batching_what_waits_while_the_device_is_held_is_one_batch() {
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
fn fairness_a_greedy_flow_does_not_starve_another() {
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
fn priority_bulk_work_takes_what_interactive_work_leaves() {
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
fn an_idle_device_takes_what_is_there() {
    let (engine, seen) = start(settings(1, 32), false);
    for n in 0..5 {
        // Answered although nothing else comes.
        let outcome = Item::of(n).submit(&engine).blocking_recv();
        assert_eq!(number(&outcome.expect("answered").expect("encoded")), n);
    }
    let batches = seen.batches.lock();
    assert!(batches.iter().all(|batch| batch.len() == 1), "{batches:?}");
}

#[test]
fn batching_while_the_device_is_busy_the_next_batch_grows() {
    // One size in use would say nothing about the cost of a batch as such.
    let (engine, seen) = start(
        EngineSettings {
            warm: vec![1, 4],
            ..settings(1, 32)
        },
        false,
    );
    seen.shut();
    let mut answers = vec![Item::of(0).submit(&engine)];
    seen.until_batches(1);
    answers.extend((1..21).map(|n| Item::of(n).submit(&engine)));
    until_waiting(&engine, 20);
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    // The one that waited at the gate was slow whatever its size: a batch
    // costs by the batch, and all that wait are worth one.
    let sizes: Vec<usize> = seen.batches.lock().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 20]);
}

#[test]
fn a_queue_delay_lets_a_batch_fill_and_a_full_one_go() {
    let delayed = |max_batch| EngineSettings {
        max_queue_delay: Duration::from_secs(3600),
        ..settings(1, max_batch)
    };
    let (engine, seen) = start(delayed(4), false);
    let mut answers = vec![Item::of(0).submit(&engine)];
    // Time for a worker that does not wait; nothing is asserted of it.
    std::thread::sleep(Duration::from_millis(50));
    answers.extend((1..3).map(|n| Item::of(n).submit(&engine)));
    until_waiting(&engine, 3);
    answers.push(Item::of(3).submit(&engine));
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    assert_eq!(seen.batches.lock().len(), 1);

    // And it is no reason to hold a shutdown up.
    let (engine, seen) = start(delayed(4), false);
    let answers: Vec<_> = (0..2).map(|n| Item::of(n).submit(&engine)).collect();
    engine.shut_down();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    assert_eq!(seen.order().len(), 2);
}

#[test]
fn pictures_of_many_caches_share_a_batch_and_their_heads_run_together() {
    const CACHES: u32 = 1000;
    let (engine, seen) = start(settings(1, 1024), false);
    let hold = engine.hold_until(usize::MAX);
    let answers: Vec<_> = (0..CACHES)
        .map(|n| {
            let item = Item {
                flow: FlowId(u64::from(n)),
                work: Work::Classify {
                    head: head(n as f32 + 1.0),
                    wanted: ScoresRequest::Logits,
                    neighbours: 0,
                    embedding: false,
                },
                ..Item::of(n % 50)
            };
            (n, item.submit(&engine))
        })
        .collect();
    until_waiting(&engine, CACHES as usize);
    drop(hold);
    let mut head_times = std::collections::HashSet::new();
    for (n, answer) in answers {
        let outcome = answer.blocking_recv().expect("answered").expect("encoded");
        let want = logits(n as f32 + 1.0, n % 50);
        assert!(
            close(outcome.scores.logits(), &want),
            "{n}: {:?}",
            outcome.scores.logits()
        );
        head_times.insert(outcome.times.head);
    }
    assert_eq!(seen.batches.lock().len(), 1);
    // One piece of work has one time; a thousand would not share it.
    assert_eq!(head_times.len(), 1, "{head_times:?}");
}

#[test]
fn fairness_two_equal_flows_get_half_each() {
    // Through both queues, as nothing is held: the ready one has room for 16.
    let (engine, seen) = start(settings(1, 8), false);
    seen.shut();
    let mut answers = vec![Item::of(0).submit(&engine)];
    seen.until_batches(1);
    for (flow, first) in [(2, 1000), (3, 5000)] {
        answers.extend((first..first + 400).map(|n| {
            Item {
                flow: FlowId(flow),
                ..Item::of(n)
            }
            .submit(&engine)
        }));
    }
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
    // The first flow had the ready queue for itself until the second came;
    // from there on, as long as both have some:
    let order = seen.order();
    let both = &order[30..630];
    let first = both.iter().filter(|n| **n < 5000).count();
    assert!((270..=330).contains(&first), "{first} of 600: {order:?}");
}

#[test]
fn a_prediction_grows_with_what_is_ahead_of_the_flow() {
    let (engine, seen) = start(
        EngineSettings {
            warm: vec![1, 4],
            ..settings(1, 8)
        },
        false,
    );
    let wait = |flow, priority| {
        engine
            .predicted_wait(FlowId(flow), priority)
            .expect("timed batches")
    };
    let idle = wait(1, Priority::Interactive);
    seen.shut();
    let mut answers = vec![Item::of(0).submit(&engine)];
    seen.until_batches(1);
    answers.extend((1..200).map(|n| Item::of(n).submit(&engine)));
    until(|| engine.queued()[1] >= 16);
    let busy = wait(1, Priority::Interactive);
    let newcomer = wait(2, Priority::Interactive);
    let bulk = wait(2, Priority::Bulk);
    assert!(
        busy > newcomer && newcomer > idle,
        "{busy} {newcomer} {idle}"
    );
    assert!(bulk > newcomer, "{bulk} {newcomer}");
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
}

/// 14 items wait for workers that expect 300 ms a batch and 200 ms an item; all
/// together they would take 3.1 s, and the one that is named must be done
/// within 2.5 s. The encoder itself then takes no time at all.
fn urgent_among_others(workers: usize, urgent: u32) -> (Engine, Arc<Seen>, Vec<Answer>) {
    let deadline = |n| (n == urgent).then_some(Duration::from_millis(2500));
    fourteen(workers, deadline, |_| {})
}

/// 14 items with these deadlines from now, and those workers; `before` they
/// are let go.
fn fourteen(
    workers: usize,
    deadline: impl Fn(u32) -> Option<Duration>,
    before: impl FnOnce(&Engine),
) -> (Engine, Arc<Seen>, Vec<Answer>) {
    let (engine, seen) = start_paced(
        EngineSettings {
            warm: vec![1, 3],
            ..settings(workers, 16)
        },
        300,
        200,
    );
    seen.pace.0.store(0, Ordering::Relaxed);
    seen.pace.1.store(0, Ordering::Relaxed);
    seen.shut();
    let hold = engine.hold_until(1000);
    let answers = (0..14)
        .map(|n| {
            Item {
                deadline: deadline(n).map(|left| Instant::now() + left),
                ..Item::of(n)
            }
            .submit(&engine)
        })
        .collect();
    until_waiting(&engine, 14);
    before(&engine);
    drop(hold);
    (engine, seen, answers)
}

#[test]
fn deadline_a_batch_ends_before_that_of_its_most_urgent_item() {
    let (_engine, seen, answers) = urgent_among_others(1, 7);
    seen.until_batches(1);
    {
        let batches = seen.batches.lock();
        assert!(batches[0].contains(&7), "{batches:?}");
        assert!((2..14).contains(&batches[0].len()), "{batches:?}");
    }
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
}

#[test]
fn deadline_what_a_batch_has_no_time_for_goes_to_the_next_free_worker() {
    let (_engine, seen, answers) = urgent_among_others(2, 0);
    // The first worker is kept in its batch; the other takes what that left.
    seen.until_batches(2);
    {
        let mut batches = seen.batches.lock().clone();
        let mut all = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..14).collect::<Vec<_>>(), "{batches:?}");
        batches.retain(|batch| batch.contains(&0));
        assert!((2..14).contains(&batches[0].len()), "{batches:?}");
    }
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
}

/// Item 0 has time for a batch of some 9, the others for some 11 of those 14.
fn one_a_little_more_urgent(n: u32) -> Option<Duration> {
    Some(Duration::from_millis(if n == 0 { 2500 } else { 3000 }))
}

#[test]
fn overload_one_urgent_item_does_not_shrink_the_batch_of_many() {
    let over = Arc::new(AtomicBool::new(false));
    let refusing = Arc::clone(&over);
    let (_engine, seen, mut answers) = fourteen(1, one_a_little_more_urgent, |engine| {
        engine.note_refusal();
        let engine = engine.clone();
        std::thread::spawn(move || {
            while !refusing.load(Ordering::Relaxed) {
                engine.note_refusal();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    });
    seen.until_batches(1);
    over.store(true, Ordering::Relaxed);
    let first = seen.batches.lock()[0].clone();
    assert!(!first.contains(&0) && first.len() >= 2, "{first:?}");
    // It has its answer at once, not when its time is up.
    let lost = answers.remove(0).blocking_recv().expect("answered");
    assert!(
        matches!(lost, Err(EngineError::DeadlineExceeded { .. })),
        "{lost:?}"
    );
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
}

#[test]
fn deadline_without_overload_the_most_urgent_item_is_in_the_next_batch() {
    let (_engine, seen, answers) = fourteen(1, one_a_little_more_urgent, |_| {});
    seen.until_batches(1);
    let first = seen.batches.lock()[0].clone();
    assert!(first.contains(&0) && first.len() < 14, "{first:?}");
    seen.open();
    for answer in answers {
        answer.blocking_recv().expect("answered").expect("encoded");
    }
}

#[test]
fn an_idle_engine_expects_no_wait_however_slow_it_was() {
    let (engine, seen) = start_paced(
        EngineSettings {
            warm: vec![1, 4],
            ..settings(1, 8)
        },
        100,
        0,
    );
    let wait = || engine.predicted_wait(FlowId(1), Priority::Interactive);
    assert_eq!(wait(), Some(0.0));
    seen.shut();
    let answer = Item::of(0).submit(&engine);
    seen.until_batches(1);
    assert!(wait() > Some(0.05), "{:?}", wait());
    seen.open();
    answer.blocking_recv().expect("answered").expect("encoded");
    until(|| wait() == Some(0.0));
}
