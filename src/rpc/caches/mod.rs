//! `CacheService`: what each RPC does is in the module of its concern, or in
//! [`create`].

mod changes;
pub mod listing;
mod transfer;

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    Context, create,
    observe::{Call, observed},
    problem::{Failure, Problem},
    request,
};
use crate::{
    proto::v1::{self as pb, cache_service_server::CacheService},
    store::CacheId,
};

/// The service.
pub struct Caches {
    context: Arc<Context>,
}

fn cache_id(name: &str) -> Result<CacheId, Failure> {
    CacheId::parse_name(name).map_err(|error| Problem::from(error).into())
}

impl Caches {
    /// The service on this server.
    pub fn new(context: Arc<Context>) -> Caches {
        Caches { context }
    }
}

#[tonic::async_trait]
impl CacheService for Caches {
    type CreateCacheStream = BoxStream<pb::CreateCacheResponse>;

    async fn create_cache(
        &self,
        request: Request<Streaming<pb::CreateCacheRequest>>,
    ) -> Result<Response<Self::CreateCacheStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::new(&self.context.calls, "CreateCache");
        let context = Arc::clone(&self.context);
        let serving =
            create::serve::<create::Creating>(context, deadline, request.into_inner(), &call);
        call.answer(serving).await
    }

    type AddExamplesStream = BoxStream<pb::AddExamplesResponse>;

    async fn add_examples(
        &self,
        request: Request<Streaming<pb::AddExamplesRequest>>,
    ) -> Result<Response<Self::AddExamplesStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::new(&self.context.calls, "AddExamples");
        let context = Arc::clone(&self.context);
        let serving =
            create::serve::<create::Adding>(context, deadline, request.into_inner(), &call);
        call.answer(serving).await
    }

    async fn get_cache(
        &self,
        request: Request<pb::GetCacheRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        observed(
            &self.context.calls,
            "GetCache",
            self.get(request.into_inner()),
        )
        .await
    }

    async fn list_caches(
        &self,
        request: Request<pb::ListCachesRequest>,
    ) -> Result<Response<pb::ListCachesResponse>, Status> {
        observed(
            &self.context.calls,
            "ListCaches",
            self.list(request.into_inner()),
        )
        .await
    }

    async fn delete_cache(
        &self,
        request: Request<pb::DeleteCacheRequest>,
    ) -> Result<Response<()>, Status> {
        observed(
            &self.context.calls,
            "DeleteCache",
            self.delete(request.into_inner()),
        )
        .await
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        observed(
            &self.context.calls,
            "GetVersion",
            self.version(request.into_inner()),
        )
        .await
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        observed(
            &self.context.calls,
            "ListVersions",
            self.versions(request.into_inner()),
        )
        .await
    }

    async fn set_alias(
        &self,
        request: Request<pb::SetAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        observed(
            &self.context.calls,
            "SetAlias",
            self.set_alias(request.into_inner()),
        )
        .await
    }

    async fn delete_alias(
        &self,
        request: Request<pb::DeleteAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        observed(
            &self.context.calls,
            "DeleteAlias",
            self.delete_alias(request.into_inner()),
        )
        .await
    }

    async fn list_examples(
        &self,
        request: Request<pb::ListExamplesRequest>,
    ) -> Result<Response<pb::ListExamplesResponse>, Status> {
        observed(
            &self.context.calls,
            "ListExamples",
            self.examples(request.into_inner()),
        )
        .await
    }

    async fn delete_version(
        &self,
        request: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        observed(
            &self.context.calls,
            "DeleteVersion",
            self.delete_version(request.into_inner()),
        )
        .await
    }

    async fn prune_versions(
        &self,
        request: Request<pb::PruneVersionsRequest>,
    ) -> Result<Response<pb::PruneVersionsResponse>, Status> {
        observed(
            &self.context.calls,
            "PruneVersions",
            self.prune(request.into_inner()),
        )
        .await
    }

    type ExportVersionStream = BoxStream<pb::ExportVersionResponse>;

    async fn export_version(
        &self,
        request: Request<pb::ExportVersionRequest>,
    ) -> Result<Response<Self::ExportVersionStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::new(&self.context.calls, "ExportVersion");
        call.answer(self.export(request.into_inner(), deadline, &call))
            .await
    }

    async fn import_version(
        &self,
        request: Request<Streaming<pb::ImportVersionRequest>>,
    ) -> Result<Response<pb::Version>, Status> {
        observed(
            &self.context.calls,
            "ImportVersion",
            self.import(request.into_inner()),
        )
        .await
    }
}
