//! The way into the engine: an item is paced by its caller's rate, admitted,
//! submitted, and answered exactly once. Every RPC that encodes or classifies
//! goes through here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tonic::Code;

use super::{Context, error::ApiError, request::RequestError};
use crate::{
    auth::{AuthError, Caller},
    catalog::LoadedBundle,
    telemetry,
};
use tip_adapter::answer::Scores;
use tipserve_engine::{Content, FlowId, Job, JobOutput, Permit, Priority, Ticket, Work};

/// An item that has been checked.
pub(super) struct Item {
    /// The bundle whose engine encodes it.
    pub bundle: Arc<LoadedBundle>,
    /// The picture or embedding, as it was sent.
    pub content: Content,
    /// What it is classified for, or that only its feature is wanted.
    pub work: Work,
    /// Whose turn it takes in the queues.
    pub flow: FlowId,
    /// How urgent it is: interactive or bulk.
    pub priority: Priority,
    /// When its answer is of no more use.
    pub deadline: Option<Instant>,
    /// Set when nobody waits for the answer any more.
    pub cancelled: Arc<AtomicBool>,
    /// Whether it waits for admission to a full engine instead of being
    /// refused: items of a stream do, since flow control slows their sender.
    pub may_wait: bool,
}

/// Cancels jobs when dropped: with a call's future, its jobs go too.
pub(super) struct CancelOnDrop(pub Arc<AtomicBool>);

impl CancelOnDrop {
    /// A flag that nothing has set yet.
    pub fn new() -> CancelOnDrop {
        CancelOnDrop(Arc::new(AtomicBool::new(false)))
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An answer to come. The item's permit is released when it arrives.
pub(super) struct Answer(oneshot::Receiver<Result<JobOutput, ApiError>>);

impl Answer {
    /// Waits for it.
    ///
    /// # Errors
    /// The engine's.
    pub async fn outcome(self) -> Result<JobOutput, ApiError> {
        self.0.await.map_err(|_| ApiError::shutting_down())?
    }
}

/// Refuses an answer with a number that is not finite. Heads that could give
/// one are no longer made or imported, but a store may hold an older one.
fn finite(outcome: JobOutput) -> Result<JobOutput, ApiError> {
    let scores = match &outcome.scores {
        Scores::Logits(logits) => logits.iter().all(|logit| logit.is_finite()),
        Scores::Best(best) => best
            .iter()
            .all(|class| class.logit.is_finite() && class.probability.is_finite()),
    };
    let mut neighbours = outcome.neighbours.iter();
    if scores && neighbours.all(|(_, similarity)| similarity.is_finite()) {
        return Ok(outcome);
    }
    let message = "the version's head gives numbers that are not finite for this input";
    Err(ApiError::new(Code::Internal, "HEAD_FAILED", message))
}

impl Context {
    /// Submits an item once it is admitted. The answer is awaited by itself, so
    /// that a request's items are under way together.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub(super) async fn send(&self, item: Item) -> Result<Answer, ApiError> {
        let permit = self.admit(&item).await?;
        let (sender, answer) = oneshot::channel();
        self.hand_over(item, move |result| {
            drop(permit);
            // A receiver that is gone has cancelled.
            drop(sender.send(result));
        });
        Ok(Answer(answer))
    }

    /// Submits an item once it is admitted, and delivers its answer, or why it
    /// was not admitted: `deliver` is called exactly once, with `held` and the
    /// item's permit, which gives its place and bytes back when dropped.
    pub(super) async fn submit(
        &self,
        item: Item,
        held: Permit,
        deliver: impl FnOnce(Result<JobOutput, ApiError>, Permit) + Send + 'static,
    ) {
        match self.admit(&item).await {
            Err(error) => deliver(Err(error), held),
            Ok(permit) => {
                let permit = permit.and(held);
                self.hand_over(item, move |result| deliver(result, permit));
            }
        }
    }

    fn hand_over(
        &self,
        item: Item,
        deliver: impl FnOnce(Result<JobOutput, ApiError>) + Send + 'static,
    ) {
        item.bundle.engine.submit(Job {
            content: item.content,
            work: item.work,
            flow: item.flow,
            priority: item.priority,
            deadline: item.deadline,
            ticket: Ticket::new(move |result| {
                deliver(result.map_err(ApiError::from).and_then(finite));
            }),
            cancelled: item.cancelled,
        });
    }

    /// Admits an item to the engine. One with a deadline is refused at once if
    /// the predicted wait is longer than what is left of it.
    async fn admit(&self, item: &Item) -> Result<Permit, ApiError> {
        let engine = &item.bundle.engine;
        let (bytes, wait) = match &item.content {
            Content::Picture { source, .. } => (
                source.len().max(item.bundle.prepared_bytes()),
                engine.predicted_wait(item.flow, item.priority),
            ),
            Content::Embedding(values) => (values.len() * size_of::<f32>(), None),
        };
        if let Some(deadline) = item.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(wait) = wait.and_then(|wait| Duration::try_from_secs_f64(wait).ok())
                && wait > left
                && !engine.holds_feature_of(&item.content)
            {
                telemetry::refused("deadline");
                engine.note_refusal();
                return Err(RequestError::TooLate { wait, left }.into());
            }
        }
        if item.may_wait {
            let permit = engine.admission().enter(bytes);
            return match item.deadline {
                None => Ok(permit.await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), permit)
                    .await
                    .map_err(|_| {
                        telemetry::refused("deadline");
                        RequestError::DeadlineExceeded.into()
                    }),
            };
        }
        engine.admission().try_enter(bytes).map_err(|refusal| {
            telemetry::refused(refusal.limit);
            let retry = Duration::try_from_secs_f64(wait.unwrap_or(0.1)).unwrap_or_default();
            ApiError::from(refusal).retry(retry.max(Duration::from_millis(10)))
        })
    }

    /// Counts items against their caller's rate. Items over it wait their turn,
    /// at most until their deadline, if they `may_wait`, and are refused if
    /// not.
    ///
    /// # Errors
    /// [`AuthError::Rate`]; a token that is no longer valid; a shutdown.
    pub(super) async fn pace(
        &self,
        caller: &Caller,
        count: usize,
        deadline: Option<Instant>,
        may_wait: bool,
    ) -> Result<(), ApiError> {
        loop {
            let error = match caller.items(count) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let AuthError::Rate { wait, .. } = error else {
                return Err(error.into());
            };
            let in_time = match (Instant::now().checked_add(wait), deadline) {
                (None, _) => false,
                (Some(turn), Some(deadline)) => turn < deadline,
                (Some(_), None) => true,
            };
            if !may_wait || !in_time {
                telemetry::refused("items_per_second");
                return Err(error.into());
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return Err(ApiError::shutting_down()),
            }
        }
    }
}
