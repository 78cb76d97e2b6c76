//! Items that were given up on their way, by reason.

use metrics::counter;

use super::names::DROPPED;
use crate::engine::{EngineError, Outcome};

/// Why an item is given up, the only values of the label `reason`.
pub(super) const DROPS: [&str; 5] = [
    "cancelled",
    "expired_at_door",
    "expired_before_decode",
    "expired_before_batch",
    "shutdown",
];

/// Counts an answer of the engine, where it says that the item was given up.
pub fn answered(answer: &Result<Outcome, EngineError>) {
    let reason = match answer {
        Err(EngineError::Cancelled) => "cancelled",
        Err(EngineError::DeadlineExceeded { stage }) => match *stage {
            "at the door" => "expired_at_door",
            "for a decoder" => "expired_before_decode",
            _ => "expired_before_batch",
        },
        Err(EngineError::ShuttingDown) => "shutdown",
        _ => return,
    };
    counter!(DROPPED, "reason" => reason).increment(1);
}
