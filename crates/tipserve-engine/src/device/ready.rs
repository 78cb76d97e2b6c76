//! Jobs that wait for their batch, and batches whose features are known.

use std::time::Instant;

use tch::Tensor;

use crate::{
    Counters, EngineError, StageTimes,
    cut::Deadline,
    embeddings::{Known, Lead},
    job::Item,
};

/// What of a job its batch is made of.
pub(super) enum Payload {
    /// u8 [S, S, 3].
    Pixels(Vec<u8>),
    /// Unit f32 [D].
    Unit(Vec<f32>),
    /// A feature that was encoded for another.
    Known(Known),
}

/// A job that waits for its batch.
pub(crate) struct ReadyJob {
    pub(super) payload: Payload,
    pub item: Item,
    /// Where others may wait for this one's feature.
    pub(super) lead: Option<Lead>,
    pub(super) queued: Instant,
    pub times: StageTimes,
}

impl ReadyJob {
    pub fn picture(pixels: Vec<u8>, item: Item, lead: Option<Lead>, times: StageTimes) -> ReadyJob {
        ReadyJob {
            payload: Payload::Pixels(pixels),
            item,
            lead,
            queued: Instant::now(),
            times,
        }
    }

    pub fn embedding(unit: Vec<f32>, item: Item) -> ReadyJob {
        ReadyJob::without_picture(Payload::Unit(unit), item)
    }

    pub fn known(known: Known, item: Item) -> ReadyJob {
        ReadyJob::without_picture(Payload::Known(known), item)
    }

    fn without_picture(payload: Payload, item: Item) -> ReadyJob {
        ReadyJob {
            payload,
            item,
            lead: None,
            queued: Instant::now(),
            times: StageTimes::default(),
        }
    }

    /// Its deadline, seen from `now`.
    pub(super) fn deadline(&self, now: Instant) -> Option<Deadline> {
        self.item.deadline.map(|deadline| Deadline {
            left: deadline.saturating_duration_since(now).as_secs_f64(),
            allowed: deadline
                .saturating_duration_since(self.item.arrived)
                .as_secs_f64(),
        })
    }

    /// Answers the item, and all that wait for its feature, with this error.
    pub(super) fn fail(self, error: EngineError) {
        if let Some(lead) = self.lead {
            lead.fail(&error);
        }
        self.item.ticket.answer(Err(error));
    }

    /// Answers the item with this error, which is its own; the job goes on for
    /// the first that waits for its feature, if one does.
    pub(super) fn give_way(mut self, error: EngineError, counters: &Counters) -> Option<ReadyJob> {
        let successor = self.lead.as_mut().and_then(|lead| lead.successor(counters));
        self.item.ticket.answer(Err(error));
        successor.map(|item| ReadyJob { item, ..self })
    }
}

/// A job whose feature is known, and the row where it is.
pub(crate) struct Encoded {
    pub job: ReadyJob,
    pub row: usize,
}

/// Features of a batch.
pub(crate) struct Features {
    /// Unit f32 [B, D], on the heads' device.
    pub unit: Tensor,
    /// Lengths of the raw features, [B].
    pub norms: Vec<f32>,
}
