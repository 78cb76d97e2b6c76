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

use super::{Load, Target};
use crate::{
    lane::{Lane, Requests},
    record::{Miss, Reason},
    wire::{self, StreamResponse},
};

/// Streams that are opened at the same time.
const OPENING: usize = 64;

/// How long no stream need open before the load begins regardless.
const SILENCE: Duration = Duration::from_secs(3);

impl Load {
    /// Opens all streams; the first failure, where one cannot be opened. A
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
            .zip(&self.lanes)
            .take(count)
            .map(|(target, lane)| {
                tokio::spawn(Arc::clone(self).stream(
                    target.clone(),
                    Arc::clone(lane),
                    Arc::clone(&opening),
                    opened.clone(),
                ))
            })
            .collect();
        for _ in 0..count {
            match tokio::time::timeout(SILENCE, results.recv()).await {
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
        lane: Arc<Lane>,
        turn: Arc<Semaphore>,
        opened: mpsc::UnboundedSender<Result<(), Status>>,
    ) {
        let permit = turn.acquire().await.ok();
        let requests = Requests::new(Arc::clone(&lane), &self, target.config, self.plan.pack);
        let answers = wire::open(target.channel, requests).await;
        drop(permit);
        let why = match answers {
            Ok(answers) => {
                // Nobody listens once the load has begun.
                let _ = opened.send(Ok(()));
                drop(opened);
                self.receive(&lane, answers).await
            }
            Err(status) => {
                let why = Reason::of_stream(&status);
                let _ = opened.send(Err(status));
                why
            }
        };
        self.end(&lane, &why);
    }

    /// Takes a stream's answers until it ends; why it did.
    async fn receive(
        self: &Arc<Self>,
        lane: &Lane,
        mut answers: Streaming<StreamResponse>,
    ) -> Reason {
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.take(lane, &message),
                Ok(None) => return Reason::own(Miss::Lost, "STREAM_ENDED"),
                Err(status) => return Reason::of_stream(&status),
            }
        }
    }

    fn take(self: &Arc<Self>, lane: &Lane, message: &StreamResponse) {
        let now = Instant::now();
        let items = lane.answered(message.results.iter().map(|result| result.sequence));
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
                    (_, Some(error)) => record.missed(item, &Reason::of_item(error)),
                    (None, None) => record.missed(item, &Reason::own(Miss::Failed, "EMPTY_ANSWER")),
                }
            }
        }
        self.settle(ended);
    }
}
