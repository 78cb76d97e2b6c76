//! `FineTuneService`.

mod following;
mod request;

use std::{sync::Arc, time::Instant};

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{
    Context,
    change::{Change, to_its_end},
    convert,
    error::ApiError,
    heads,
    idempotency::request_key,
    observe::{Call, carried, observed},
    paging,
    request::{RequestError, deadline as deadline_of, until},
};
use crate::{
    auth::{Caller, audit::AuditLine},
    catalog::{
        CatalogError, FineTunes as Runs, Followed, MAX_DESCRIPTION_BYTES, Run, Started,
        TuneRequest, printable,
    },
};
use following::{follow, message};
use request::{options, recipe};
use tip_spec::SearchGrid;
use tipserve_api::v1::{self as pb, fine_tune_service_server::FineTuneService};
use tipserve_store::{AliasName, CacheId, RunError, RunState};

type Events = ReceiverStream<Result<pb::FineTuneResponse, Status>>;

/// `FineTuneService`, over the catalogue's runs.
pub struct FineTunes {
    context: Arc<Context>,
    runs: Arc<Runs>,
}

impl FineTunes {
    /// The service on this server.
    pub fn new(context: Arc<Context>) -> FineTunes {
        FineTunes {
            runs: Arc::new(Runs::new(&context.catalog, describe)),
            context,
        }
    }

    async fn start(
        &self,
        Change { caller, audit }: Change,
        mut request: pb::FineTuneRequest,
        deadline: Option<Instant>,
        call: &Call,
    ) -> Result<Response<Events>, ApiError> {
        audit.resource(&request.cache);
        let key = request_key(&mut request)?;
        let request = TuneRequest {
            request: key,
            ..self.check(&caller, request).await?
        };
        audit.resource(request.cache.version_name(request.version));
        let cache = request.cache.clone();
        let Followed { run, follower } = match self.runs.start(request).await? {
            Started::New(followed) => {
                let (runs, run) = (Arc::clone(&self.runs), followed.run.clone());
                tokio::spawn(supervise(caller, cache, runs, run));
                followed
            }
            Started::Known(followed) => followed,
        };
        // The run's end has a line of its own.
        audit.result(Code::Ok);
        audit.write();
        let (events, response) = mpsc::channel(16);
        let call = call.clone();
        tokio::spawn(carried(async move {
            // The follower is dropped when the client is gone, or the run has ended.
            let late = tokio::select! {
                code = follow(run, &events) => return call.ended(code),
                () = events.closed() => return,
                () = until(deadline) => ApiError::from(RequestError::DeadlineExceeded),
            };
            call.ended(late.code());
            // Or now, since the client may be slow to read of it.
            drop(follower);
            let _ = events.send(Err(late.into_status())).await;
        }));
        Ok(Response::new(ReceiverStream::new(response)))
    }

    async fn check(
        &self,
        caller: &Caller,
        request: pb::FineTuneRequest,
    ) -> Result<TuneRequest, ApiError> {
        let reference = super::reference(caller, &request.cache)?;
        RequestError::check(
            "description",
            "max_description_bytes",
            MAX_DESCRIPTION_BYTES,
            request.description.len(),
        )?;
        printable::check_lines(&request.description)
            .map_err(|reason| RequestError::invalid("description", format!("it {reason}")))?;
        let move_alias = match request.move_alias.as_str() {
            "" => None,
            alias => Some(alias.parse::<AliasName>()?),
        };
        let recipe = recipe(&request)?;
        let options = options(&request)?;
        let grid = heads::grid("grid", request.grid)?.unwrap_or(SearchGrid::Wide);
        let store = self.context.catalog.store();
        let (cache, version) = store.resolve(&reference).await?;
        Ok(TuneRequest {
            cache,
            version,
            recipe,
            options,
            grid,
            move_alias,
            only_if_improved: request.only_if_improved,
            description: request.description,
            created_by: caller.created_by(String::new()),
            owner: caller.quota(),
            request: None,
            detached: request.detached,
        })
    }

    /// A run that the caller may see. Any other is reported as not found,
    /// exactly as if it did not exist.
    async fn seen(&self, caller: &Caller, name: &str) -> Result<Run, ApiError> {
        let id = run_id(name)?;
        let run = self.runs.get(id).await?;
        if caller.sees(&run.cache) {
            Ok(run)
        } else {
            Err(Runs::unknown(id).into())
        }
    }

    async fn cancel(
        &self,
        Change { caller, audit }: Change,
        request: &pb::CancelFineTuneRequest,
    ) -> Result<Response<pb::FineTuneRun>, ApiError> {
        audit.resource(&request.name);
        let run = self.seen(&caller, &request.name).await?;
        audit.resource(format!("fineTunes/{}", run.id));
        let runs = Arc::clone(&self.runs);
        let run = to_its_end(audit, async move { Ok(runs.cancel(&run.id).await?) });
        Ok(Response::new(message(&run.await?)))
    }

    async fn list(
        &self,
        caller: &Caller,
        request: &pb::ListFineTunesRequest,
    ) -> Result<Response<pb::ListFineTunesResponse>, ApiError> {
        let size = paging::size(request.page_size)?;
        let cache = match request.cache.as_str() {
            "" => None,
            name => Some(super::cache_id(caller, name)?),
        };
        let before = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
        let wanted =
            |of: &CacheId| caller.sees(of) && cache.as_ref().is_none_or(|cache| of == cache);
        let runs = self.runs.list(wanted, before, size + 1).await?;
        let (mut fine_tunes, mut bytes) = (Vec::new(), 0);
        for run in runs.iter().take(size) {
            if bytes >= paging::PAGE_BYTES {
                break;
            }
            let mut run = message(run);
            if let Some(version) = &mut run.version {
                convert::leave_out_many_classes(version);
            }
            bytes += run.encoded_len();
            fine_tunes.push(run);
        }
        let next_page_token = match fine_tunes.len().checked_sub(1).map(|last| runs.get(last)) {
            Some(Some(last)) if fine_tunes.len() < runs.len() => last.id.clone(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListFineTunesResponse {
            fine_tunes,
            next_page_token,
        }))
    }
}

/// A run's error as its record keeps it.
fn describe(error: &CatalogError) -> RunError {
    let error = ApiError::from(error.clone());
    RunError {
        code: error.code() as i32,
        reason: error.reason().to_owned(),
        message: error.message().to_owned(),
    }
}

/// Waits for a run's end, whether or not a client follows it, and writes the
/// audit line. A run whose owner may no longer train this cache is abandoned,
/// detached or not.
async fn supervise(caller: Caller, cache: CacheId, runs: Arc<Runs>, mut run: watch::Receiver<Run>) {
    let audit = AuditLine::begin(&caller, "end_finetune");
    audit.resource(run.borrow().parent.clone());
    let id = run.borrow().id.clone();
    {
        // A sender that is gone has sent its last state.
        let ended = async { run.wait_for(|run| run.state.has_ended()).await.is_ok() };
        tokio::pin!(ended);
        tokio::select! {
            _ = &mut ended => {}
            error = caller.lapse(Some(&cache)) => {
                tracing::info!(run = id, who = caller.who(), %error, "stopping a fine-tuning run");
                runs.abandon(&id);
                let _ = ended.await;
            }
        }
    }
    let run = run.borrow().clone();
    if let Some(version) = &run.version {
        audit.resource(version.resource_name());
    }
    audit.result(match (run.state, &run.error) {
        (RunState::Succeeded, _) => Code::Ok,
        (RunState::Failed, Some(error)) => ApiError::from(error.clone()).code(),
        _ => Code::Cancelled,
    });
}

fn run_id(name: &str) -> Result<&str, RequestError> {
    let id = name.strip_prefix("fineTunes/").unwrap_or(name);
    if id.is_empty() {
        return Err(RequestError::missing("name"));
    }
    Ok(id)
}

#[tonic::async_trait]
impl FineTuneService for FineTunes {
    type FineTuneStream = Events;

    async fn fine_tune(
        &self,
        request: Request<pb::FineTuneRequest>,
    ) -> Result<Response<Self::FineTuneStream>, Status> {
        let call = Call::current(&self.context.calls);
        let deadline = deadline_of(request.metadata(), Instant::now());
        let change = Change::of(&request);
        call.answer(self.start(change, request.into_inner(), deadline, &call))
            .await
    }

    async fn list_fine_tunes(
        &self,
        request: Request<pb::ListFineTunesRequest>,
    ) -> Result<Response<pb::ListFineTunesResponse>, Status> {
        observed(&self.context.calls, async {
            self.list(&Caller::of(request.extensions()), request.get_ref())
                .await
        })
        .await
    }

    async fn get_fine_tune(
        &self,
        request: Request<pb::GetFineTuneRequest>,
    ) -> Result<Response<pb::FineTuneRun>, Status> {
        observed(&self.context.calls, async {
            let caller = Caller::of(request.extensions());
            let run = self.seen(&caller, &request.get_ref().name).await?;
            Ok(Response::new(message(&run)))
        })
        .await
    }

    async fn cancel_fine_tune(
        &self,
        request: Request<pb::CancelFineTuneRequest>,
    ) -> Result<Response<pb::FineTuneRun>, Status> {
        observed(&self.context.calls, async {
            self.cancel(Change::of(&request), request.get_ref()).await
        })
        .await
    }
}
