//! Streams: opened all at once, and their answers until they end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tonic::{Status, Streaming};

use super::{requests::Requests, state::Load};
use crate::{
    plan::Target,
    queue::ItemQueue,
    record::{Reason, Unanswered},
    wire::{self, StreamResponse},
};

/// Streams that are opened at the same time.
const OPENING: usize = 64;

/// How long no stream need open before the load begins regardless.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

impl Load {
    /// Opens all streams; if one cannot be opened, the first failure. A
    /// server may say nothing before it has an answer: then the load begins,
    /// and shows.
    pub async fn open(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>, Status> {
        let count = if self.plan.unary {
            0
        } else {
            self.targets.len()
        };
        let opening = Arc::new(Semaphore::new(OPENING));
        let (opened, mut results) = mpsc::unbounded_channel();
        let streams: Vec<_> = self
            .targets
            .iter()
            .zip(&self.queues)
            .take(count)
            .map(|(target, queue)| {
                tokio::spawn(Arc::clone(self).stream(
                    target.clone(),
                    Arc::clone(queue),
                    Arc::clone(&opening),
                    opened.clone(),
                ))
            })
            .collect();
        for _ in 0..count {
            match tokio::time::timeout(OPEN_TIMEOUT, results.recv()).await {
                Ok(Some(Err(status))) => {
                    for stream in &streams {
                        stream.abort();
                    }
                    return Err(status);
                }
                Ok(Some(Ok(()))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // Those that were not begun yet wait for none of the others.
        opening.close();
        Ok(streams)
    }

    /// Opens a stream and takes its answers until it ends.
    async fn stream(
        self: Arc<Self>,
        target: Target,
        queue: Arc<ItemQueue>,
        turn: Arc<Semaphore>,
        opened: mpsc::UnboundedSender<Result<(), Status>>,
    ) {
        let permit = turn.acquire().await.ok();
        let requests = Requests::new(Arc::clone(&queue), &self, target.config, self.plan.pack);
        let answers = wire::open(target.channel, requests).await;
        drop(permit);
        let why = match answers {
            Ok(answers) => {
                // Nobody listens once the load has begun.
                let _ = opened.send(Ok(()));
                drop(opened);
                self.receive(&queue, answers).await
            }
            Err(status) => {
                let why = Reason::of_stream(&status);
                let _ = opened.send(Err(status));
                why
            }
        };
        self.end(&queue, &why);
    }

    /// Takes a stream's answers until it ends; why it did.
    async fn receive(
        self: &Arc<Self>,
        queue: &ItemQueue,
        mut answers: Streaming<StreamResponse>,
    ) -> Reason {
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.take(queue, &message),
                Ok(None) => return Reason::own(Unanswered::Lost, "STREAM_ENDED"),
                Err(status) => return Reason::of_stream(&status),
            }
        }
    }

    fn take(self: &Arc<Self>, queue: &ItemQueue, message: &StreamResponse) {
        let now = Instant::now();
        let items = queue.answered(message.results.iter().map(|result| result.sequence));
        let mut ended = 0;
        {
            let mut record = self.record.lock();
            for (item, result) in items.into_iter().zip(&message.results) {
                let Some(item) = item else {
                    record.unexpected += 1;
                    continue;
                };
                ended += 1;
                match (&result.classification, &result.error) {
                    (Some(answer), None) => record.answered(item, now, answer.timings.as_ref()),
                    (_, Some(error)) => record.not_answered(item, &Reason::of_item(error)),
                    (None, None) => {
                        record.not_answered(item, &Reason::own(Unanswered::Failed, "EMPTY_ANSWER"));
                    }
                }
            }
        }
        self.items_ended(ended);
    }
}
