//! One item through the engine: admitted, submitted, answered. Every unary
//! door goes through here; `ClassifyStream` writes answers as they come and has
//! tickets of its own.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{Context, problem::Problem};
use tipserve_engine::{Content, EngineError, FlowId, Job, JobOutput, Priority, Ticket, Work};

/// An item that has been checked.
pub(super) struct Item {
    /// What it is.
    pub content: Content,
    /// What to do with it.
    pub work: Work,
    /// Who sent it.
    pub flow: FlowId,
    /// How urgent it is.
    pub priority: Priority,
    /// After this it is of no use.
    pub deadline: Option<Instant>,
    /// Set when nobody wants the answer any more.
    pub cancelled: Arc<AtomicBool>,
    /// Whether it waits at the door where there is no room.
    pub may_wait: bool,
}

/// The answer to come. The item's room is given back when it is there.
pub(super) struct Answer(oneshot::Receiver<Result<JobOutput, EngineError>>);

impl Answer {
    /// Waits for it.
    ///
    /// # Errors
    /// The engine's.
    pub async fn outcome(self) -> Result<JobOutput, Problem> {
        let answered = self.0.await.map_err(|_| super::shutting_down())?;
        answered.map_err(Problem::from)
    }
}

impl Context {
    /// Gives an item to the engine, once there is room for it.
    ///
    /// # Errors
    /// Why there is no room.
    pub(super) async fn send(&self, item: Item) -> Result<Answer, Problem> {
        let Item {
            content,
            work,
            flow,
            priority,
            deadline,
            cancelled,
            may_wait,
        } = item;
        let permit = self
            .admit(&content, deadline, flow, priority, may_wait)
            .await?;
        let (sender, answer) = oneshot::channel();
        let ticket = Ticket::new(move |result| {
            drop(permit);
            // A receiver that is gone has cancelled.
            drop(sender.send(result));
        });
        self.engine.submit(Job {
            content,
            work,
            flow,
            priority,
            deadline,
            ticket,
            cancelled,
        });
        Ok(Answer(answer))
    }
}
