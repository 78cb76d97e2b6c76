//! The gRPC services, one file each; limits, and one total mapping from
//! errors to statuses. Knows nothing of tensors or files.

mod answer;
mod budget;
mod caches;
mod classify;
mod classify_stream;
mod convert;
mod create;
pub mod door;
mod embed;
mod evaluate;
mod filter;
mod finetune;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod heads;
mod inference;
mod info;
mod item;
pub mod messages;
mod observe;
mod paging;
pub mod problem;
mod quote;
pub mod request;
pub mod web;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, service::Routes};

use crate::{
    auth::{Caller, GuardError},
    catalog::Catalog,
    config::Limits,
    telemetry,
};
pub use observe::{Calls, Observe, REQUEST_ID};
use problem::{Failure, Problem};
use request::RequestError;
use tipserve_api::{
    DESCRIPTORS,
    inference::grpc_inference_service_server::GrpcInferenceServiceServer,
    v1::{
        cache_service_server::CacheServiceServer, classify_service_server::ClassifyServiceServer,
        fine_tune_service_server::FineTuneServiceServer,
    },
};
use tipserve_engine::{Content, Engine, FlowId, Permit, Priority};
use tipserve_store::{CacheId, Reference};

/// What every service needs.
pub struct Context {
    /// Caches and their classifiers.
    pub catalog: Arc<Catalog>,
    /// The engine.
    pub engine: Engine,
    /// Limits on requests.
    pub limits: Limits,
    /// Cancelled when the server shuts down.
    pub shutdown: CancellationToken,
    /// Calls under way.
    pub calls: Calls,
}

impl Context {
    /// Room in the engine for an item. One with a deadline is refused at once
    /// where it would be answered too late. Where there is no room, it waits
    /// for some, until its deadline, if it `may_wait` (a stream, which flow
    /// control slows), and is refused at once if not.
    ///
    /// # Errors
    /// Why there is no room.
    async fn admit(
        &self,
        content: &Content,
        deadline: Option<Instant>,
        flow: FlowId,
        priority: Priority,
        may_wait: bool,
    ) -> Result<Permit, Problem> {
        let bytes = match content {
            Content::Picture { source, .. } => source.len().max(self.catalog.prepared_bytes()),
            Content::Embedding(values) => values.len() * size_of::<f32>(),
        };
        let wait = match content {
            Content::Picture { .. } => self.engine.predicted_wait(flow, priority),
            Content::Embedding(_) => None,
        };
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(wait) = wait.and_then(|wait| Duration::try_from_secs_f64(wait).ok())
                && wait > left
                && !self.engine.holds_feature_of(content)
            {
                telemetry::refused("deadline");
                self.engine.note_refusal();
                return Err(RequestError::TooLate { wait, left }.into());
            }
        }
        if may_wait {
            let room = self.engine.admission().enter(bytes);
            return match deadline {
                None => Ok(room.await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), room)
                    .await
                    .map_err(|_| {
                        telemetry::refused("deadline");
                        RequestError::DeadlineExceeded.into()
                    }),
            };
        }
        self.engine.admission().try_enter(bytes).map_err(|refusal| {
            telemetry::refused(refusal.limit);
            let retry = Duration::try_from_secs_f64(wait.unwrap_or(0.1)).unwrap_or_default();
            Problem::from(refusal).retry(retry.max(Duration::from_millis(10)))
        })
    }
}

impl Context {
    /// Counts items against their caller's rate. One that is too fast waits
    /// its turn, until its deadline, if it `may_wait` (a stream, which flow
    /// control slows), and is refused at once if not.
    ///
    /// # Errors
    /// [`GuardError::Rate`]; a shutdown.
    async fn pace(
        &self,
        caller: &Caller,
        count: usize,
        deadline: Option<Instant>,
        may_wait: bool,
    ) -> Result<(), Problem> {
        loop {
            let error = match caller.items(count) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let GuardError::Rate { wait, .. } = error else {
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
                () = self.shutdown.cancelled() => return Err(shutting_down()),
            }
        }
    }
}

/// The reference that a name stands for, once it is known that the caller may
/// touch the cache: asked before the cache is looked for. Every method that
/// takes the name of a cache takes it through here or [`cache_id`].
#[allow(clippy::result_large_err, reason = "a name is looked at once a call")]
fn reference(caller: &Caller, name: &str) -> Result<Reference, Problem> {
    let reference: Reference = name.parse()?;
    caller.check(&reference.cache)?;
    observe::about(&reference);
    Ok(reference)
}

/// The same for `caches/{cache}` and bare ids.
#[allow(clippy::result_large_err, reason = "a name is looked at once a call")]
fn cache_id(caller: &Caller, name: &str) -> Result<CacheId, Problem> {
    let id = CacheId::parse_name(name)?;
    caller.check(&id)?;
    observe::about(&id);
    Ok(id)
}

/// The flow that a unary call belongs to: its connection, so that a client of
/// many calls is one flow, as a stream of many items is.
fn flow_of<T>(request: &Request<T>) -> FlowId {
    let Some(peer) = request.remote_addr() else {
        return FlowId::next();
    };
    let mut hasher = DefaultHasher::new();
    peer.hash(&mut hasher);
    // Streams count up from 1; the top bit keeps the two apart.
    FlowId(hasher.finish() | 1 << 63)
}

fn shutting_down() -> Problem {
    Problem::new(
        Code::Unavailable,
        "SHUTTING_DOWN",
        "the server is shutting down; reconnect and send what is unanswered",
    )
    .retry(Duration::from_millis(200))
}

impl Failure {
    /// A status that tonic made (an over-large message, a reset stream),
    /// passed on as it is.
    fn from_status(status: &Status) -> Failure {
        if let Some(problem) = messages::refusal(status) {
            return problem.into();
        }
        if status.code() == Code::OutOfRange {
            return Problem::message_too_large(status.message()).into();
        }
        Failure::from(Problem::new(
            status.code(),
            match status.code() {
                Code::Cancelled => "CANCELLED",
                _ => "TRANSPORT",
            },
            status.message(),
        ))
    }
}

/// Every service, ready to be served.
///
/// # Errors
/// Where the descriptors do not make a reflection service (a broken build).
pub fn routes(context: &Arc<Context>) -> Result<Routes, tonic_reflection::server::Error> {
    let largest = context.limits.max_message_bytes;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            // So that generic clients can read the details of errors.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let caches = CacheServiceServer::new(caches::Caches::new(Arc::clone(context)))
        .max_decoding_message_size(largest);
    let classify = ClassifyServiceServer::new(classify::Classify::new(Arc::clone(context)))
        .max_decoding_message_size(largest);
    let inference = GrpcInferenceServiceServer::new(inference::Inference::new(Arc::clone(context)))
        .max_decoding_message_size(largest);
    let finetune = FineTuneServiceServer::new(finetune::FineTunes::new(Arc::clone(context)))
        .max_decoding_message_size(largest);
    Ok(Routes::new(caches)
        .add_service(classify)
        .add_service(finetune)
        .add_service(inference)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
