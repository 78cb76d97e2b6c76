//! The gRPC services, one file each; limits, and one total mapping from
//! errors to statuses. Knows nothing of tensors or files.

mod analysis;
mod answer;
mod answer_space;
pub mod auth_layer;
mod budget;
mod bundles;
mod caches;
mod call;
mod change;
mod classify;
mod classify_stream;
mod compression;
mod confidence;
mod config_stream;
mod convert;
mod create;
mod deadline_layer;
mod drift;
mod embed;
pub mod error;
mod evaluate;
mod filter;
mod finetune;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod heads;
mod idempotency;
mod inference;
mod info;
pub mod messages;
mod observe;
mod paging;
pub mod request;
mod submit;
mod unread;
mod uploads;
pub mod web;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use tonic::{Request, service::Routes};

use crate::{auth::Caller, catalog::Catalog, config::Limits};
pub use answer_space::AnswerSpaceLayer;
pub use compression::CompressionLayer;
pub use deadline_layer::DeadlineLayer;
use error::ApiError;
pub use observe::{Calls, Observe, REQUEST_ID};
use tipserve_api::{
    DESCRIPTORS,
    inference::grpc_inference_service_server::GrpcInferenceServiceServer,
    v1::{
        analysis_service_server::AnalysisServiceServer, bundle_service_server::BundleServiceServer,
        cache_service_server::CacheServiceServer, classify_service_server::ClassifyServiceServer,
        fine_tune_service_server::FineTuneServiceServer,
    },
};
use tipserve_engine::FlowId;
use tipserve_store::{CacheId, Reference};
pub use unread::{Close, UnreadLayer};
pub use uploads::UploadBudget;

/// What the services share: one for each server.
pub struct Context {
    /// Caches, their versions and classifiers.
    pub catalog: Arc<Catalog>,
    /// Limits on what requests may ask for.
    pub limits: Limits,
    /// The memory for what calls have been sent and not stored yet.
    pub uploads: Arc<UploadBudget>,
    /// Cancelled when the server shuts down.
    pub shutdown: CancellationToken,
    /// The calls that are under way.
    pub calls: Calls,
}

/// The reference that a name stands for, if the caller may use the cache, which
/// is checked before the cache is looked up. Every method that takes the name
/// of a cache takes it through here or [`cache_id`].
fn reference(caller: &Caller, name: &str) -> Result<Reference, ApiError> {
    let reference: Reference = name.parse()?;
    caller.check(&reference.cache)?;
    observe::about(&reference);
    Ok(reference)
}

/// The same for `caches/{cache}` and bare ids.
fn cache_id(caller: &Caller, name: &str) -> Result<CacheId, ApiError> {
    let id = CacheId::parse_name(name)?;
    caller.check(&id)?;
    observe::about(&id);
    Ok(id)
}

/// The flow of a unary call's items in the engine: its caller's, however many
/// connections that has. Unauthenticated callers are told apart by their
/// connections, so that a client of many calls is one flow, as a stream of many
/// items is.
fn flow_of<T>(caller: &Caller, request: &Request<T>) -> FlowId {
    if let Some(flow) = flow_of_caller(caller) {
        return flow;
    }
    match request.remote_addr() {
        Some(peer) => hashed_flow(peer),
        None => FlowId::next(),
    }
}

/// The flow of a stream's items: its caller's, however many streams that has,
/// or the stream's own.
fn flow_of_stream(caller: &Caller) -> FlowId {
    flow_of_caller(caller).unwrap_or_else(FlowId::next)
}

fn flow_of_caller(caller: &Caller) -> Option<FlowId> {
    caller.identity().map(hashed_flow)
}

fn hashed_flow(identity: impl Hash) -> FlowId {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    // Streams count up from 1; the top bit keeps the two apart.
    FlowId(hasher.finish() | 1 << 63)
}

/// Every service, ready to be served.
///
/// # Errors
/// If the descriptors do not make a reflection service (a broken build).
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
    let analysis = AnalysisServiceServer::new(analysis::Analyses::new(Arc::clone(context)))
        .max_decoding_message_size(largest);
    let bundles = BundleServiceServer::new(bundles::BundleAdmin::new(Arc::clone(context)))
        .max_decoding_message_size(largest);
    Ok(Routes::new(caches)
        .add_service(classify)
        .add_service(finetune)
        .add_service(analysis)
        .add_service(bundles)
        .add_service(inference)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
