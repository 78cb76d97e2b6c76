//! Unary calls: one for each item.

use std::{sync::Arc, time::Instant};

use super::{Load, Target};
use crate::{
    record::{Due, Miss, Reason, lost_connection},
    wire::{self, UnaryRequest},
};

impl Load {
    /// A unary call.
    pub(super) async fn call(self: Arc<Self>, target: usize, item: Due) {
        let (Some(lane), Some(Target { channel, config })) =
            (self.lanes.get(target), self.targets.get(target))
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
        let sequence = lane.sent(item);
        self.note_sent(&[item], now);
        let answer = wire::classify(channel.clone(), request).await;
        let now = Instant::now();
        // Already counted where its connection broke or the load has ended.
        if lane.answered(std::iter::once(sequence)) != [Some(item)] {
            return;
        }
        match answer {
            Ok(answer) => {
                let timings = answer.classification.and_then(|it| it.timings);
                self.record.lock().answered(item, now, timings.as_ref());
            }
            Err(status) => {
                let reason = Reason::of_call(&status);
                self.record.lock().missed(item, &reason);
                if lost_connection(&status) && reason.miss == Miss::Lost {
                    self.end(lane, &reason);
                }
            }
        }
        self.settle(1);
    }
}
