//! Following a run: the events of a call, to the run's end.

use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

use super::super::{convert, error::ApiError};
use crate::catalog::{Run, RunProgress};
use tipserve_api::v1::{self as pb, fine_tune_response::Event, fine_tune_run::State};
use tipserve_store::RunState;

/// Sends a run's changes until it has ended; returns the call's code.
pub(super) async fn follow(
    mut run: watch::Receiver<Run>,
    events: &mpsc::Sender<Result<pb::FineTuneResponse, Status>>,
) -> Code {
    let mut state = None;
    let mut progress: Option<RunProgress> = None;
    loop {
        let now = run.borrow_and_update().clone();
        // The run itself comes first, whatever its progress.
        if state.is_none() {
            state = Some(now.state);
            // That of a run that has ended is its last message, and has its progress.
            if now.state.has_ended() {
                progress = now.progress;
            }
            if send(events, Event::Run(message(&now))).await.is_err() {
                return Code::Cancelled;
            }
        }
        if now.progress != progress
            && let Some(new) = now.progress
        {
            progress = Some(new);
            let event = Event::Progress(progress_message(&new));
            if send(events, event).await.is_err() {
                return Code::Cancelled;
            }
        }
        if state != Some(now.state) {
            state = Some(now.state);
            if send(events, Event::Run(message(&now))).await.is_err() {
                return Code::Cancelled;
            }
        }
        if now.state.has_ended() {
            let Some(status) = ending(&now) else {
                return Code::Ok;
            };
            let code = status.code();
            let _ = events.send(Err(status)).await;
            return code;
        }
        if run.changed().await.is_err() {
            return Code::Internal;
        }
    }
}

/// The status of the call, from that of the run.
fn ending(run: &Run) -> Option<Status> {
    match run.state {
        RunState::Failed => run
            .error
            .clone()
            .map(|error| Status::from(ApiError::from(error))),
        RunState::Cancelled => Some(Status::cancelled(format!(
            "fineTunes/{} was cancelled",
            run.id
        ))),
        RunState::Queued | RunState::Running | RunState::Succeeded => None,
    }
}

async fn send(
    events: &mpsc::Sender<Result<pb::FineTuneResponse, Status>>,
    event: Event,
) -> Result<(), ()> {
    let response = pb::FineTuneResponse { event: Some(event) };
    events.send(Ok(response)).await.map_err(|_| ())
}

fn progress_message(progress: &RunProgress) -> pb::FineTuneProgress {
    let int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    pb::FineTuneProgress {
        epoch: int(progress.epoch),
        epochs: int(progress.epochs),
        step: progress.step as i64,
        steps: progress.steps as i64,
        loss: progress.loss,
        train_accuracy: progress.train_accuracy,
        validation_accuracy: progress.validation_accuracy,
        learning_rate: progress.learning_rate,
        time_left: progress
            .time_left
            .and_then(|left| prost_types::Duration::try_from(left).ok()),
    }
}

/// A run as the API's message.
pub(super) fn message(run: &Run) -> pb::FineTuneRun {
    let state = match run.state {
        RunState::Queued => State::Queued,
        RunState::Running => State::Running,
        RunState::Succeeded => State::Succeeded,
        RunState::Failed => State::Failed,
        RunState::Cancelled => State::Cancelled,
    };
    pb::FineTuneRun {
        name: format!("fineTunes/{}", run.id),
        state: state as i32,
        parent: run.parent.clone(),
        version: run.version.as_ref().map(convert::version),
        progress: run.progress.as_ref().map(progress_message),
        error: run
            .error
            .clone()
            .map(|error| ApiError::from(error).to_item_status()),
        create_time: Some(convert::timestamp(run.create_time)),
        end_time: run.end_time.map(convert::timestamp),
        alias_moved: run.alias_moved,
        unchanged: run.unchanged,
        outcome: run.outcome.clone(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn run_in(state: RunState) -> Run {
        Run {
            id: "1".to_owned(),
            state,
            parent: "caches/a/versions/1".to_owned(),
            cache: "a".parse().expect("an id"),
            version: None,
            progress: Some(RunProgress {
                epoch: 1,
                epochs: 2,
                step: 1,
                steps: 4,
                loss: 1.0,
                train_accuracy: 0.5,
                validation_accuracy: None,
                learning_rate: 1e-3,
                time_left: None,
            }),
            error: None,
            create_time: Utc::now(),
            end_time: None,
            alias_moved: false,
            alias: None,
            unchanged: false,
            outcome: String::new(),
        }
    }

    /// What a follower is sent that comes when the run is as given.
    async fn events_of(run: Run) -> Vec<String> {
        let (sender, run) = watch::channel(run);
        let (events, mut sent) = mpsc::channel(16);
        drop(sender);
        follow(run, &events).await;
        drop(events);
        let mut kinds = Vec::new();
        while let Some(event) = sent.recv().await {
            kinds.push(match event.expect("no status").event {
                Some(Event::Run(run)) => run.name,
                Some(Event::Progress(_)) => "progress".to_owned(),
                None => "nothing".to_owned(),
            });
        }
        kinds
    }

    #[tokio::test]
    async fn the_run_itself_is_the_first_message() {
        let under_way = run_in(RunState::Running);
        assert_eq!(events_of(under_way).await, ["fineTunes/1", "progress"]);
    }

    #[tokio::test]
    async fn a_run_that_ended_before_its_follower_came_is_the_last_message_too() {
        let ended = run_in(RunState::Succeeded);
        assert_eq!(events_of(ended).await, ["fineTunes/1"]);
    }
}
