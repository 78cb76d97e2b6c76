//! A job between the stages: before its decoder, before its batch, and with
//! its feature, before its head.

use std::time::Instant;

use tch::Tensor;

use crate::{
    batch_plan::Deadline,
    counters::Counters,
    embeddings::{CachedEmbedding, ContentKey, Leader},
    error::EngineError,
    job::{Crop, Item, Source},
    stage::StageTimes,
};

/// A picture waiting for a decoder.
pub(super) struct DecodeJob {
    pub source: Source,
    pub crop: Crop,
    /// Where its feature may be kept.
    pub key: Option<ContentKey>,
    pub item: Item,
}

/// A picture as the encoder sees it.
pub(super) struct Prepared {
    /// Levels of red, green and blue, u8 [S, S, 3].
    pub pixels: Vec<u8>,
    /// Whether its file has every pixel and lacks its end mark.
    pub lacks_end_mark: bool,
}

/// What a job contributes to its batch.
pub(super) enum Payload {
    /// Prepared pixels, u8 [S, S, 3].
    Pixels(Vec<u8>),
    /// A unit feature that the client sent, f32 [D].
    Unit(Vec<f32>),
    /// A feature that was encoded for an equal picture.
    Cached(CachedEmbedding),
}

/// A job that waits for its batch.
pub(super) struct ReadyJob {
    pub payload: Payload,
    pub item: Item,
    /// Its followers, which wait for this picture's feature.
    pub leader: Option<Leader>,
    /// Whether its picture's file lacks its end mark.
    pub lacks_end_mark: bool,
    pub queued: Instant,
    pub times: StageTimes,
}

impl ReadyJob {
    pub fn picture(
        prepared: Prepared,
        item: Item,
        leader: Option<Leader>,
        times: StageTimes,
    ) -> ReadyJob {
        ReadyJob {
            payload: Payload::Pixels(prepared.pixels),
            item,
            leader,
            lacks_end_mark: prepared.lacks_end_mark,
            queued: Instant::now(),
            times,
        }
    }

    pub fn embedding(unit: Vec<f32>, item: Item) -> ReadyJob {
        ReadyJob::without_picture(Payload::Unit(unit), item)
    }

    pub fn cached(cached: CachedEmbedding, item: Item) -> ReadyJob {
        ReadyJob {
            lacks_end_mark: cached.lacks_end_mark,
            ..ReadyJob::without_picture(Payload::Cached(cached), item)
        }
    }

    fn without_picture(payload: Payload, item: Item) -> ReadyJob {
        ReadyJob {
            payload,
            item,
            leader: None,
            lacks_end_mark: false,
            queued: Instant::now(),
            times: StageTimes::default(),
        }
    }

    /// Its deadline, seen from `now`.
    pub fn deadline(&self, now: Instant) -> Option<Deadline> {
        self.item.deadline.map(|deadline| Deadline {
            left: deadline.saturating_duration_since(now).as_secs_f64(),
            allowed: deadline
                .saturating_duration_since(self.item.arrived)
                .as_secs_f64(),
        })
    }

    /// Answers the item and all its followers with this error.
    pub fn fail(self, error: EngineError) {
        if let Some(leader) = self.leader {
            leader.fail(&error);
        }
        self.item.ticket.answer(Err(error));
    }

    /// Answers the item with an error of its own; the job goes on for its first
    /// follower, if it has one.
    pub fn hand_over(mut self, error: EngineError, counters: &Counters) -> Option<ReadyJob> {
        let successor = self
            .leader
            .as_mut()
            .and_then(|leader| leader.successor(counters));
        self.item.ticket.answer(Err(error));
        successor.map(|item| ReadyJob { item, ..self })
    }
}

/// A job whose feature is known, and that feature's row.
pub(super) struct Encoded {
    pub job: ReadyJob,
    pub row: usize,
}

/// The features of an encoded batch, and their lengths before normalisation.
pub(super) struct Features {
    /// Unit f32 [B, D], on the heads' device.
    pub unit: Tensor,
    /// Lengths of the raw features, [B].
    pub norms: Vec<f32>,
}
