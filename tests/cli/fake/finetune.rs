//! Fine-tuning: one run, "fineTunes/7".

use tipserve_api::v1::{self as pb, fine_tune_service_server::FineTuneService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Events, Service};

#[tonic::async_trait]
impl FineTuneService for Service {
    type FineTuneStream = Events<pb::FineTuneResponse>;

    async fn fine_tune(
        &self,
        request: Request<pb::FineTuneRequest>,
    ) -> Result<Response<Self::FineTuneStream>, Status> {
        use pb::{fine_tune_response::Event, fine_tune_run::State as RunState};
        let request = request.into_inner();
        // The default is the server's.
        let epochs = match request.epochs {
            0 => 20,
            asked => asked,
        };
        let (parent, made) = {
            let mut state = self.locked();
            let parent = state.version(&request.cache)?.clone();
            let id = parent.name.split('/').nth(1).unwrap_or_default().to_owned();
            let classes = parent
                .classes
                .iter()
                .map(|it| (it.display_name.clone(), it.example_count));
            let mut made = pb::Version::default();
            if !self.behaviour.endless_training {
                made = state.add(&id, classes.collect(), pb::Method::TipAdapterF.into());
                made.parent = parent.name.clone();
                made.fine_tune = Some(pb::FineTuneRecord {
                    epochs,
                    best_epoch: 7,
                    accuracy_before: 0.5,
                    accuracy_after: 0.75,
                    source: pb::SelectionSource::HeldBackViews.into(),
                    ..Default::default()
                });
            }
            state.fine_tunes.push(request.clone());
            (parent, made)
        };
        let mut run = pb::FineTuneRun {
            name: "fineTunes/7".into(),
            state: RunState::Running.into(),
            parent: parent.name,
            ..Default::default()
        };
        let progress = pb::FineTuneProgress {
            epoch: 1,
            epochs,
            ..Default::default()
        };
        let endless = self.behaviour.endless_training;
        let this = self.arc();
        let (events, stream) = mpsc::channel(8);
        tokio::spawn(async move {
            let send = |event| events.send(Ok(pb::FineTuneResponse { event: Some(event) }));
            let _ = send(Event::Run(run.clone())).await;
            let _ = send(Event::Progress(progress)).await;
            if endless {
                // The first progress is on its way; give it to the client.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                this.training.notify_one();
                return events.closed().await;
            }
            run.state = RunState::Succeeded.into();
            run.alias_moved = !request.move_alias.is_empty();
            run.version = Some(made);
            let _ = send(Event::Run(run)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_fine_tunes(
        &self,
        _: Request<pb::ListFineTunesRequest>,
    ) -> Result<Response<pb::ListFineTunesResponse>, Status> {
        let run = pb::FineTuneRun {
            name: "fineTunes/7".into(),
            state: 2,
            ..Default::default()
        };
        Ok(Response::new(pb::ListFineTunesResponse {
            fine_tunes: vec![run],
            ..Default::default()
        }))
    }

    async fn get_fine_tune(
        &self,
        request: Request<pb::GetFineTuneRequest>,
    ) -> Result<Response<pb::FineTuneRun>, Status> {
        let name = request.into_inner().name;
        if name != "fineTunes/7" {
            return Err(Status::not_found(format!("there is no run {name}")));
        }
        Ok(Response::new(pb::FineTuneRun {
            name,
            state: 2,
            ..Default::default()
        }))
    }

    async fn cancel_fine_tune(
        &self,
        request: Request<pb::CancelFineTuneRequest>,
    ) -> Result<Response<pb::FineTuneRun>, Status> {
        let name = request.into_inner().name;
        self.locked().cancelled.push(name.clone());
        Ok(Response::new(pb::FineTuneRun {
            name,
            state: 5,
            ..Default::default()
        }))
    }
}
