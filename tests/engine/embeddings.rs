//! The embedding cache: equal pictures are encoded once, and each is answered
//! as if it had been encoded alone.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tipserve_clip::ExifOrientation;
use tipserve_engine::{
    Content, Crop, Engine, EngineError, EngineSettings, FlowId, JobOutput, Priority, ScoresRequest,
    Source, Work,
};

use crate::tagging::{
    Answer, FATAL, Item, NOT_A_NUMBER, PANIC, POISON, cancel, close, head, logits, number,
    settings, start, until, until_waiting,
};

fn cached(bytes: usize) -> EngineSettings {
    EngineSettings {
        embedding_cache_bytes: bytes,
        ..settings(1, 32)
    }
}

/// The counters of hits, misses and coalesced requests.
fn counts(engine: &Engine) -> [u64; 3] {
    let counters = engine.counters();
    [
        &counters.embedding_hits,
        &counters.embedding_misses,
        &counters.embedding_coalesced,
    ]
    .map(|counter| counter.load(Ordering::Relaxed))
}

fn until_coalesced(engine: &Engine, count: u64) {
    until(|| counts(engine)[2] >= count);
}

fn result(answer: Answer) -> Result<JobOutput, EngineError> {
    answer.blocking_recv().expect("answered")
}

fn classify(number: u32, scale: f32, embedding: bool) -> Item {
    Item {
        work: Work::Classify {
            head: head(scale),
            wanted: ScoresRequest::Logits,
            neighbours: 0,
            embedding,
        },
        ..Item::of(number)
    }
}

#[test]
fn off_by_default_the_same_picture_is_encoded_each_time() {
    let (engine, seen) = start(settings(1, 32), false);
    let hold = engine.hold_until(1000);
    let answers = [5, 5, 5].map(|n| Item::of(n).submit(&engine));
    until_waiting(&engine, 3);
    drop(hold);
    for answer in answers {
        assert_eq!(number(&result(answer).expect("encoded")), 5);
    }
    assert_eq!(number(&result(Item::of(5).submit(&engine)).unwrap()), 5);
    assert_eq!(seen.times(5), 4);
    assert_eq!(counts(&engine), [0, 0, 0]);
    assert_eq!(engine.embeddings_held(), (0, 0));
}

#[test]
fn cache_hit_skips_decoder_and_encoder() {
    let (engine, seen) = start(cached(1 << 20), false);
    let first = result(Item::of(7).submit(&engine)).expect("encoded");
    let again = result(Item::of(7).submit(&engine)).expect("held");
    let (first, again) = (first.feature.unwrap(), again.feature.unwrap());
    assert_eq!((&*first.unit, first.norm), (&*again.unit, again.norm));
    // Each with its own head and options.
    for scale in [1.0, 3.0, 250.0] {
        for embedding in [false, true] {
            let outcome = result(classify(7, scale, embedding).submit(&engine)).expect("held");
            assert!(close(outcome.scores.logits(), &logits(scale, 7)));
            assert_eq!(outcome.feature.is_some(), embedding);
        }
    }
    assert_eq!(seen.order(), [7]);
    assert_eq!(engine.counters().decoded.load(Ordering::Relaxed), 1);
    assert_eq!(counts(&engine), [7, 1, 0]);
    let (entries, bytes) = engine.embeddings_held();
    assert_eq!(entries, 1);
    assert!(bytes >= 2 * 4 + 32, "{bytes}");
    assert!(engine.holds_feature_of(&Item::of(7).content));
    assert!(!engine.holds_feature_of(&Item::of(8).content));
}

#[test]
fn single_flight_equal_pictures_are_encoded_once_and_answered_each() {
    let (engine, seen) = start(cached(1 << 20), false);
    let hold = engine.hold_until(1000);
    let answers: Vec<_> = (0..60_u32)
        .map(|i| {
            let (n, scale) = (i % 3, i as f32 + 1.0);
            let item = Item {
                flow: FlowId(u64::from(i % 7)),
                ..classify(n, scale, i % 2 == 0)
            };
            (n, scale, i % 2 == 0, item.submit(&engine))
        })
        .collect();
    until_coalesced(&engine, 57);
    until_waiting(&engine, 3);
    drop(hold);
    for (n, scale, embedding, answer) in answers {
        let outcome = result(answer).expect("encoded");
        assert!(
            close(outcome.scores.logits(), &logits(scale, n)),
            "{n} {scale}"
        );
        assert_eq!(outcome.feature.is_some(), embedding);
        if embedding {
            assert_eq!(number(&outcome), n);
        }
    }
    let mut order = seen.order();
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(counts(&engine), [0, 3, 57]);
}

#[test]
fn single_flight_a_failure_reaches_every_follower_and_is_not_cached() {
    let (engine, seen) = start(cached(1 << 20), false);
    for (bad, detail) in [
        (POISON, "a picture that breaks the encoder"),
        (PANIC, "a panic inside the encoder"),
        (NOT_A_NUMBER, ""),
    ] {
        let before = counts(&engine)[2];
        let hold = engine.hold_until(1000);
        let guilty: Vec<_> = (0..6).map(|_| Item::of(bad).submit(&engine)).collect();
        let innocent: Vec<_> = (0..4).map(|n| Item::of(n).submit(&engine)).collect();
        until_coalesced(&engine, before + 5);
        until(|| engine.queued()[1] + engine.queued()[2] == 5);
        drop(hold);
        for answer in guilty {
            match result(answer) {
                Err(EngineError::Encoder { detail: got }) => assert_eq!(got, detail),
                Err(EngineError::NotFinite) => assert_eq!(bad, NOT_A_NUMBER),
                other => panic!("{other:?}"),
            }
        }
        for (n, answer) in innocent.into_iter().enumerate() {
            assert_eq!(number(&result(answer).expect("encoded")), n as u32);
        }
        let tried = seen.times(bad);
        assert!(result(Item::of(bad).submit(&engine)).is_err());
        assert_eq!(seen.times(bad), tried + 1);
    }
}

#[test]
fn a_file_that_is_no_picture_is_an_error_to_each_that_sent_it() {
    let (engine, seen) = start(cached(1 << 20), false);
    let answers: Vec<_> = (0..40)
        .map(|_| {
            let source = Source::File {
                bytes: Bytes::from_static(b"not a picture"),
                exif_orientation: ExifOrientation::Ignore,
            };
            let crop = Crop::Centre;
            Item {
                content: Content::Picture { source, crop },
                ..Item::of(0)
            }
            .submit(&engine)
        })
        .collect();
    for answer in answers {
        let result = result(answer);
        assert!(matches!(result, Err(EngineError::Picture(_))), "{result:?}");
    }
    assert!(seen.order().is_empty());
}

#[test]
fn single_flight_a_broken_device_is_broken_for_followers_too() {
    let (engine, _) = start(cached(1 << 20), false);
    let hold = engine.hold_until(1000);
    let answers: Vec<_> = (0..4).map(|_| Item::of(FATAL).submit(&engine)).collect();
    until_coalesced(&engine, 3);
    drop(hold);
    for answer in answers {
        let result = result(answer);
        assert!(
            matches!(result, Err(EngineError::DeviceBroken)),
            "{result:?}"
        );
    }
}

#[test]
fn single_flight_cancellation_of_the_leader_promotes_a_follower() {
    let (engine, seen) = start(cached(1 << 20), false);
    let hold = engine.hold_until(1000);
    let mut flags = Vec::new();
    let mut answers = Vec::new();
    for i in 0..6 {
        let item = classify(11, i as f32 + 1.0, false);
        flags.push(item.cancelled.clone());
        answers.push(item.submit(&engine));
        // One after the other, so that the first leads.
        until(|| counts(&engine)[1] + counts(&engine)[2] > i);
    }
    until_waiting(&engine, 1);
    for i in [0, 1, 4] {
        cancel(&flags[i]);
    }
    drop(hold);
    for (i, answer) in answers.into_iter().enumerate() {
        match result(answer) {
            Ok(outcome) => {
                assert!(![0, 1, 4].contains(&i));
                assert!(close(outcome.scores.logits(), &logits(i as f32 + 1.0, 11)));
            }
            Err(EngineError::Cancelled) => assert!([0, 1, 4].contains(&i)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(seen.order(), [11]);
    assert_eq!(engine.counters().decoded.load(Ordering::Relaxed), 1);
    assert_eq!(engine.counters().dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn single_flight_each_follower_has_its_own_deadline() {
    let (engine, seen) = start(cached(1 << 20), false);
    let hold = engine.hold_until(1000);
    let soon = Instant::now() + Duration::from_millis(40);
    let submit = |n: u32, deadline: Option<Instant>| {
        let before = counts(&engine);
        let answer = Item {
            deadline,
            ..Item::of(n)
        }
        .submit(&engine);
        until(|| counts(&engine) != before);
        answer
    };
    // Under 20 a lead that expires, under 30 a follower, under 40 both.
    let live = [
        submit(20, Some(soon)),
        submit(30, None),
        submit(40, Some(soon)),
    ];
    let follow = [
        submit(20, None),
        submit(30, Some(soon)),
        submit(40, Some(soon)),
    ];
    assert_eq!(counts(&engine), [0, 3, 3]);
    until(|| Instant::now() > soon);
    until_waiting(&engine, 3);
    drop(hold);
    let mut outcomes = live
        .into_iter()
        .chain(follow)
        .map(|answer| match result(answer) {
            Ok(outcome) => Some(number(&outcome)),
            Err(EngineError::DeadlineExceeded { .. }) => None,
            Err(other) => panic!("{other}"),
        });
    assert_eq!(
        std::array::from_fn(|_| outcomes.next().flatten()),
        [None, Some(30), None, Some(20), None, None]
    );
    let mut order = seen.order();
    order.sort_unstable();
    assert_eq!(order, [20, 30]);
    // Nobody wanted 40 any more; it is not in flight for ever.
    assert_eq!(number(&result(Item::of(40).submit(&engine)).unwrap()), 40);
    assert_eq!(seen.times(40), 1);
}

#[test]
fn single_flight_an_interactive_picture_does_not_follow_a_bulk_one() {
    let one_by_one = EngineSettings {
        max_batch: 1,
        ..cached(1 << 20)
    };
    let (engine, seen) = start(one_by_one, false);
    let hold = engine.hold_until(1000);
    let bulk = |n| Item {
        priority: Priority::Bulk,
        flow: FlowId(9),
        ..Item::of(n)
    };
    let mut answers = vec![(1, bulk(1).submit(&engine)), (2, bulk(2).submit(&engine))];
    until_waiting(&engine, 2);
    answers.push((2, Item::of(2).submit(&engine)));
    until_waiting(&engine, 3);
    assert_eq!(counts(&engine), [0, 3, 0]);
    // But bulk work may follow interactive work.
    answers.push((2, bulk(2).submit(&engine)));
    until_coalesced(&engine, 1);
    drop(hold);
    for (n, answer) in answers {
        assert_eq!(number(&result(answer).expect("encoded")), n);
    }
    // And what came to be held meanwhile is not encoded again.
    assert_eq!(seen.order(), [2, 1]);
}

#[test]
fn cache_bytes_are_bounded() {
    const BOUND: usize = 2000;
    let (engine, seen) = start(cached(BOUND), false);
    for n in 0..200 {
        assert_eq!(number(&result(Item::of(n).submit(&engine)).unwrap()), n);
        let (entries, bytes) = engine.embeddings_held();
        assert!(bytes <= BOUND as u64, "{bytes}");
        assert!(entries * 40 <= BOUND, "{entries}");
    }
    let (entries, _) = engine.embeddings_held();
    assert!(entries >= 5, "{entries}");
    for n in 0..200 {
        assert_eq!(number(&result(Item::of(n).submit(&engine)).unwrap()), n);
    }
    let twice = (0..200).filter(|n| seen.times(*n) == 2).count();
    assert!(twice >= 150, "{twice}");

    // One in which nothing fits answers as well.
    let (engine, seen) = start(cached(1), false);
    for _ in 0..3 {
        assert_eq!(number(&result(Item::of(4).submit(&engine)).unwrap()), 4);
    }
    assert_eq!(seen.times(4), 3);
    assert_eq!(engine.embeddings_held(), (0, 0));
}

#[test]
fn the_cache_key_is_of_bytes_shape_orientation_and_centre_crop() {
    let (engine, _) = start(cached(1 << 20), false);
    let data: Bytes = (0..48).map(|i| i * 5).collect();
    let rgb = |width, height, data: &Bytes| Source::Rgb {
        width,
        height,
        data: data.clone(),
    };
    let file = |exif_orientation| Source::File {
        bytes: b"P6 4 4 255\n".iter().chain(data.iter()).copied().collect(),
        exif_orientation,
    };
    let other: Bytes = data.iter().map(|byte| byte ^ 1).collect();
    let sources = [
        (rgb(4, 4, &data), Crop::Centre),
        (rgb(2, 8, &data), Crop::Centre),
        (rgb(8, 2, &data), Crop::Centre),
        (rgb(4, 4, &other), Crop::Centre),
        (rgb(4, 4, &data), Crop::Random { seed: 1 }),
        (rgb(4, 4, &data), Crop::Random { seed: 1 }),
        (file(ExifOrientation::Ignore), Crop::Centre),
        (file(ExifOrientation::Apply), Crop::Centre),
    ];
    let count = sources.len() as u64;
    for (source, crop) in sources {
        let item = Item {
            content: Content::Picture { source, crop },
            ..Item::of(0)
        };
        result(item.submit(&engine)).expect("encoded");
    }
    assert_eq!(engine.counters().encoded.load(Ordering::Relaxed), count);
    assert_eq!(counts(&engine), [0, 6, 0]);
}

#[test]
fn single_flight_followers_are_answered_before_shutdown() {
    let settings = EngineSettings {
        embedding_cache_bytes: 1 << 20,
        ..settings(2, 4)
    };
    let (engine, _) = start(settings, true);
    let answers: Vec<_> = (0..400)
        .map(|i| (i % 23, Item::of(i % 23).submit(&engine)))
        .collect();
    engine.shut_down();
    for (n, answer) in answers {
        assert_eq!(number(&result(answer).expect("encoded")), n);
    }
}
