//! `CacheService`: what each RPC does is in the module of its concern, or in
//! [`create`].

mod changes;
pub mod listing;
mod transfer;

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    Context,
    change::Change,
    create,
    observe::{Call, observed},
    request,
};
use crate::auth::Caller;
use tipserve_api::v1::{self as pb, cache_service_server::CacheService};

/// `CacheService`, over the catalogue and its store.
#[derive(Clone)]
pub struct Caches {
    context: Arc<Context>,
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
        let call = Call::current(&self.context.calls);
        let context = Arc::clone(&self.context);
        let change = Change::of(&request);
        let serving = create::serve::<create::CreateCache>(
            context,
            change,
            deadline,
            request.into_inner(),
            &call,
        );
        call.answer(serving).await
    }

    type AddExamplesStream = BoxStream<pb::AddExamplesResponse>;

    async fn add_examples(
        &self,
        request: Request<Streaming<pb::AddExamplesRequest>>,
    ) -> Result<Response<Self::AddExamplesStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::current(&self.context.calls);
        let context = Arc::clone(&self.context);
        let change = Change::of(&request);
        let serving = create::serve::<create::AddExamples>(
            context,
            change,
            deadline,
            request.into_inner(),
            &call,
        );
        call.answer(serving).await
    }

    async fn get_cache(
        &self,
        request: Request<pb::GetCacheRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let caller = Caller::of(request.extensions());
        observed(&self.context.calls, self.get(&caller, request.into_inner())).await
    }

    async fn list_caches(
        &self,
        request: Request<pb::ListCachesRequest>,
    ) -> Result<Response<pb::ListCachesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            self.list(&caller, request.into_inner()),
        )
        .await
    }

    async fn delete_cache(
        &self,
        request: Request<pb::DeleteCacheRequest>,
    ) -> Result<Response<()>, Status> {
        let change = Change::of(&request);
        let work = self.clone().delete(change, request.into_inner());
        observed(&self.context.calls, work).await
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            self.version(&caller, request.into_inner()),
        )
        .await
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            self.versions(&caller, request.into_inner()),
        )
        .await
    }

    async fn set_alias(
        &self,
        request: Request<pb::SetAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let change = Change::of(&request);
        let work = self.clone().set_alias(change, request.into_inner());
        observed(&self.context.calls, work).await
    }

    async fn delete_alias(
        &self,
        request: Request<pb::DeleteAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let change = Change::of(&request);
        let work = self.clone().delete_alias(change, request.into_inner());
        observed(&self.context.calls, work).await
    }

    async fn list_examples(
        &self,
        request: Request<pb::ListExamplesRequest>,
    ) -> Result<Response<pb::ListExamplesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            self.examples(&caller, request.into_inner()),
        )
        .await
    }

    async fn get_example_picture(
        &self,
        request: Request<pb::GetExamplePictureRequest>,
    ) -> Result<Response<pb::ExamplePicture>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            self.example_picture(&caller, request.into_inner()),
        )
        .await
    }

    async fn delete_version(
        &self,
        request: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        let change = Change::of(&request);
        let work = self.clone().delete_version(change, request.into_inner());
        observed(&self.context.calls, work).await
    }

    async fn prune_versions(
        &self,
        request: Request<pb::PruneVersionsRequest>,
    ) -> Result<Response<pb::PruneVersionsResponse>, Status> {
        let change = Change::of(&request);
        let work = self.clone().prune_versions(change, request.into_inner());
        observed(&self.context.calls, work).await
    }

    type ExportVersionStream = BoxStream<pb::ExportVersionResponse>;

    async fn export_version(
        &self,
        request: Request<pb::ExportVersionRequest>,
    ) -> Result<Response<Self::ExportVersionStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::current(&self.context.calls);
        let change = Change::of(&request);
        call.answer(self.export(&change, request.into_inner(), deadline, &call))
            .await
    }

    async fn import_version(
        &self,
        request: Request<Streaming<pb::ImportVersionRequest>>,
    ) -> Result<Response<pb::Version>, Status> {
        let change = Change::of(&request);
        observed(
            &self.context.calls,
            self.import(&change, request.into_inner()),
        )
        .await
    }
}
