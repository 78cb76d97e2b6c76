//! What workers run before the engine is ready.

use std::time::Duration;

use tipserve_engine::{EngineSettings, FlowId, Priority};

use crate::tagging::{settings, start};

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
