//! Unary calls: one for each item.

use std::{sync::Arc, time::Instant};

use super::state::Load;
use crate::{
    plan::Target,
    record::{LoadItem, Reason, Unanswered, lost_connection},
    wire::{self, UnaryRequest},
};

impl Load {
    /// Sends one item as a Classify call and records how it ended.
    pub(super) async fn call(self: Arc<Self>, target: usize, item: LoadItem) {
        let (Some(queue), Some(Target { channel, config })) =
            (self.queues.get(target), self.targets.get(target))
        else {
            return;
        };
        let now = Instant::now();
        let Some(left) = self.time_left(item, now) else {
            return self.note_late(&[item]);
        };
        let mut request = tonic::Request::new(UnaryRequest {
            cache: config.cache.clone(),
            input: self.input(item),
            options: config.options,
            priority: config.priority,
        });
        if let Some(left) = left {
            request.set_timeout(left);
        }
        let sequence = queue.sent(item);
        self.note_sent(std::iter::once(item), now);
        let answer = wire::classify(channel.clone(), request).await;
        let now = Instant::now();
        // Already counted where its connection broke or the load has ended.
        if queue.answered(std::iter::once(sequence)) != [Some(item)] {
            return;
        }
        match answer {
            Ok(answer) => {
                let timings = answer.classification.and_then(|it| it.timings);
                self.record.lock().answered(item, now, timings.as_ref());
            }
            Err(status) => {
                let reason = Reason::of_call(&status);
                self.record.lock().not_answered(item, &reason);
                if lost_connection(&status) && reason.kind == Unanswered::Lost {
                    self.end(queue, &reason);
                }
            }
        }
        self.items_ended(1);
    }
}
