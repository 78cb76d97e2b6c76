//! What workers run before the engine is ready.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tipserve_clip::PictureLimits;
use tipserve_engine::{Engine, EngineSettings, FlowId, Priority};

use crate::tagging::{Seen, Tagging, settings, spec, start};

#[test]
fn sizes_are_warmed_more_than_once_each_before_the_engine_is_ready() {
    let (engine, seen) = start(
        EngineSettings {
            warm: vec![1, 4, 16],
            ..settings(2, 16)
        },
        false,
    );
    for size in [1, 4, 16] {
        let runs = seen.warmed.lock().iter().filter(|n| **n == size).count();
        // Two workers.
        assert!(runs >= 4, "{size} was run {runs} times");
    }
    // What was learned is there for the first caller.
    assert!(
        engine
            .predicted_wait(FlowId(1), Priority::Interactive)
            .is_some()
    );
}

#[test]
fn a_slow_encoder_is_warmed_with_two_sizes() {
    let warmed = |warm_patience| {
        let settings = EngineSettings {
            warm: vec![1, 2, 4],
            warm_patience,
            ..settings(1, 16)
        };
        let (engine, seen) = start(settings, false);
        let predicted = engine.predicted_wait(FlowId(1), Priority::Interactive);
        assert!(predicted.is_some());
        let mut sizes = seen.warmed.lock().clone();
        sizes.dedup();
        sizes
    };
    assert_eq!(warmed(Duration::ZERO), [1, 2]);
    assert_eq!(warmed(Duration::MAX), [1, 2, 4]);
}

/// An engine whose encoder runs out of memory over `room` pictures.
fn start_in(room: usize) -> Result<(), String> {
    let seen = Arc::new(Seen::default());
    seen.room.store(room, Ordering::Relaxed);
    let settings = EngineSettings {
        warm: vec![2, 4, 8],
        ..settings(2, 16)
    };
    let encoder = Arc::new(Tagging {
        seen,
        dawdle: false,
    });
    let engine = Engine::start(settings, Some((encoder, spec())), PictureLimits::default())
        .expect("threads start");
    let warmed = engine.wait_until_warm();
    engine.shut_down();
    warmed.map_err(|fault| fault.detail)
}

#[test]
fn sizes_that_do_not_fit_now_are_borne_but_an_encoder_that_never_runs_is_not() {
    assert_eq!(start_in(4), Ok(()));
    assert_eq!(start_in(2), Ok(()));
    let reason = start_in(1).expect_err("nothing ran");
    assert!(reason.contains("memory"), "{reason}");
}
