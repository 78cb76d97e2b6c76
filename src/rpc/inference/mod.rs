//! `inference.GRPCInferenceService`: the Open Inference Protocol v2 and those
//! of Triton's extensions that its clients use. Another way of saying what
//! `ClassifyService` says: admission, engine and answers are the same.

mod answer_size;
mod infer;
mod model;
mod outputs;
mod parameters;
mod recognition;
mod repository;
mod statistics;
mod stream;
mod tensors;

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, Streaming};

use super::{
    Context,
    answer_space::AnswerSpace,
    change::Change,
    error::ApiError,
    flow_of,
    observe::{Call, observed},
    request::{self, RequestError},
};
use crate::auth::Caller;
use infer::Client;
use statistics::Statistics;
use tipserve_api::inference::{self as v2, grpc_inference_service_server::GrpcInferenceService};

/// Triton's extensions that are served in full, by Triton's names.
const EXTENSIONS: [&str; 5] = [
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
];

/// `inference.GRPCInferenceService`, over the engine and the catalogue.
pub struct Inference {
    context: Arc<Context>,
    statistics: Arc<Statistics>,
}

impl Inference {
    /// The service on this server.
    pub fn new(context: Arc<Context>) -> Inference {
        Inference {
            context,
            statistics: Arc::new(Statistics::default()),
        }
    }

    async fn infer_one(
        &self,
        request: Request<v2::ModelInferRequest>,
    ) -> Result<Response<v2::ModelInferResponse>, ApiError> {
        let caller = Caller::of(request.extensions());
        let client = Client {
            flow: flow_of(&caller, &request),
            caller,
            deadline: request::deadline(request.metadata(), Instant::now()),
            window: None,
            space: Some(AnswerSpace::of(request.extensions())?),
        };
        let mut started = infer::start(
            &self.context,
            &self.statistics,
            request.into_inner(),
            &client,
        )
        .await?;
        let making = started.making();
        let mut response = Response::new(started.finish().await?);
        response.extensions_mut().extend(making);
        Ok(response)
    }

    /// Refuses a method, and counts it.
    async fn not_offered<T>(&self, what: &'static str, instead: &'static str) -> Refused<T> {
        observed(&self.context.calls, async {
            Err(RequestError::NotOffered { what, instead }.into())
        })
        .await
    }
}

/// What a method that is not offered returns.
type Refused<T> = Result<Response<T>, Status>;

const SHARED_MEMORY: &str = "shared memory";
const SEND_TENSORS: &str = "send tensors in the requests";

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<v2::ServerLiveRequest>,
    ) -> Result<Response<v2::ServerLiveResponse>, Status> {
        observed(&self.context.calls, async {
            Ok(Response::new(v2::ServerLiveResponse { live: true }))
        })
        .await
    }

    async fn server_ready(
        &self,
        _: Request<v2::ServerReadyRequest>,
    ) -> Result<Response<v2::ServerReadyResponse>, Status> {
        observed(&self.context.calls, async {
            let ready = model::server_ready(&self.context);
            Ok(Response::new(v2::ServerReadyResponse { ready }))
        })
        .await
    }

    async fn model_ready(
        &self,
        request: Request<v2::ModelReadyRequest>,
    ) -> Result<Response<v2::ModelReadyResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let v2::ModelReadyRequest { name, version } = request.into_inner();
        observed(&self.context.calls, async {
            let ready = model::ready(&self.context, &caller, &name, &version).await?;
            Ok(Response::new(v2::ModelReadyResponse { ready }))
        })
        .await
    }

    async fn server_metadata(
        &self,
        _: Request<v2::ServerMetadataRequest>,
    ) -> Result<Response<v2::ServerMetadataResponse>, Status> {
        observed(&self.context.calls, async {
            Ok(Response::new(v2::ServerMetadataResponse {
                name: "tipserve".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            }))
        })
        .await
    }

    async fn model_metadata(
        &self,
        request: Request<v2::ModelMetadataRequest>,
    ) -> Result<Response<v2::ModelMetadataResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let v2::ModelMetadataRequest { name, version } = request.into_inner();
        observed(
            &self.context.calls,
            model::metadata(&self.context, &caller, name, &version),
        )
        .await
    }

    async fn model_config(
        &self,
        request: Request<v2::ModelConfigRequest>,
    ) -> Result<Response<v2::ModelConfigResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let v2::ModelConfigRequest { name, version } = request.into_inner();
        observed(
            &self.context.calls,
            model::config(&self.context, &caller, name, &version),
        )
        .await
    }

    async fn model_infer(
        &self,
        request: Request<v2::ModelInferRequest>,
    ) -> Result<Response<v2::ModelInferResponse>, Status> {
        observed(&self.context.calls, self.infer_one(request)).await
    }

    type ModelStreamInferStream = stream::Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<v2::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let call = Call::current(&self.context.calls);
        let context = Arc::clone(&self.context);
        let statistics = Arc::clone(&self.statistics);
        let serving = async { stream::serve(context, statistics, request, call.clone()) };
        call.answer(serving).await
    }

    async fn model_statistics(
        &self,
        request: Request<v2::ModelStatisticsRequest>,
    ) -> Result<Response<v2::ModelStatisticsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let v2::ModelStatisticsRequest { name, version } = request.into_inner();
        observed(
            &self.context.calls,
            statistics::serve(&self.context, &self.statistics, &caller, &name, &version),
        )
        .await
    }

    async fn repository_index(
        &self,
        request: Request<v2::RepositoryIndexRequest>,
    ) -> Result<Response<v2::RepositoryIndexResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            repository::index(&self.context, &caller, request.into_inner()),
        )
        .await
    }

    async fn repository_model_load(
        &self,
        request: Request<v2::RepositoryModelLoadRequest>,
    ) -> Result<Response<v2::RepositoryModelLoadResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            repository::load(&self.context, &caller, request.into_inner()),
        )
        .await
    }

    async fn repository_model_unload(
        &self,
        request: Request<v2::RepositoryModelUnloadRequest>,
    ) -> Result<Response<v2::RepositoryModelUnloadResponse>, Status> {
        let change = Change::of(&request);
        observed(
            &self.context.calls,
            repository::unload(&self.context, change, request.into_inner()),
        )
        .await
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<v2::SystemSharedMemoryStatusRequest>,
    ) -> Refused<v2::SystemSharedMemoryStatusResponse> {
        self.not_offered(SHARED_MEMORY, SEND_TENSORS).await
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<v2::SystemSharedMemoryRegisterRequest>,
    ) -> Refused<v2::SystemSharedMemoryRegisterResponse> {
        self.not_offered(SHARED_MEMORY, SEND_TENSORS).await
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<v2::SystemSharedMemoryUnregisterRequest>,
    ) -> Refused<v2::SystemSharedMemoryUnregisterResponse> {
        self.not_offered(SHARED_MEMORY, SEND_TENSORS).await
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<v2::CudaSharedMemoryStatusRequest>,
    ) -> Refused<v2::CudaSharedMemoryStatusResponse> {
        self.not_offered(SHARED_MEMORY, SEND_TENSORS).await
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<v2::CudaSharedMemoryRegisterRequest>,
    ) -> Refused<v2::CudaSharedMemoryRegisterResponse> {
        self.not_offered(SHARED_MEMORY, SEND_TENSORS).await
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<v2::CudaSharedMemoryUnregisterRequest>,
    ) -> Refused<v2::CudaSharedMemoryUnregisterResponse> {
        self.not_offered(SHARED_MEMORY, SEND_TENSORS).await
    }

    async fn trace_setting(
        &self,
        _: Request<v2::TraceSettingRequest>,
    ) -> Refused<v2::TraceSettingResponse> {
        self.not_offered("TraceSetting", "tracing is set when the server starts")
            .await
    }

    async fn log_settings(
        &self,
        _: Request<v2::LogSettingsRequest>,
    ) -> Refused<v2::LogSettingsResponse> {
        self.not_offered("LogSettings", "logging is set when the server starts")
            .await
    }
}
