//! What the engine and the store report, as metrics and traces.

use std::time::Duration;

use http::HeaderMap;
use metrics::{counter, histogram};
use tipserve_engine::{Dropped, Observer, Stage, StageTimes};
use tipserve_store::{BucketAnswer, RequestObserver};

use super::{names::*, traces};

/// Why an item is dropped, the only values of the label `reason`.
pub(super) const DROPS: [&str; 5] = [
    "cancelled",
    "expired_at_door",
    "expired_before_decode",
    "expired_before_batch",
    "shutdown",
];

fn drop_label(reason: Dropped) -> &'static str {
    match reason {
        Dropped::Cancelled => "cancelled",
        Dropped::Expired(Stage::Admission) => "expired_at_door",
        Dropped::Expired(Stage::Decode) => "expired_before_decode",
        Dropped::Expired(Stage::Batch | Stage::EqualPicture) => "expired_before_batch",
        Dropped::ShuttingDown => "shutdown",
    }
}

/// Counts and measures what the engine does.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineMetrics;

impl Observer for EngineMetrics {
    fn decoded(&self, times: &StageTimes) {
        histogram!(DECODE_QUEUE).record(times.decode_queue);
        histogram!(DECODE).record(times.decode);
    }

    fn batch_encoded(&self, size: usize, took: Duration) {
        counter!(BATCHES).increment(1);
        histogram!(BATCH_SIZE).record(size as f64);
        histogram!(ENCODE).record(took);
    }

    fn heads_ran(&self, took: Duration) {
        histogram!(HEAD).record(took);
    }

    fn answered(&self, times: &StageTimes) {
        histogram!(QUEUE).record(times.queue);
        histogram!(ITEM).record(times.total);
    }

    fn dropped(&self, reason: Dropped) {
        counter!(DROPPED, "reason" => drop_label(reason)).increment(1);
    }
}

/// How a bucket answers, the only values of the label `outcome`.
pub(super) const BUCKET_ANSWERS: [&str; 3] = ["ok", "error", "unreachable"];

/// Counts and times the requests to the store's bucket, and makes them part of
/// their caller's trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct BucketMetrics;

impl RequestObserver for BucketMetrics {
    fn sending(&self, headers: &mut HeaderMap) {
        traces::inject(headers);
    }

    fn answered(&self, answer: BucketAnswer, took: Duration) {
        let outcome = match answer {
            BucketAnswer::Ok => "ok",
            BucketAnswer::Error => "error",
            BucketAnswer::Unreachable => "unreachable",
        };
        counter!(STORE_REQUESTS, "outcome" => outcome).increment(1);
        histogram!(STORE_REQUEST).record(took);
    }

    fn write_distrusted(&self) {
        counter!(DISTRUSTED_WRITES).increment(1);
    }
}
