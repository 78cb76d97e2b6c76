//! `CacheService`: what each RPC does is in the module of its concern, or in
//! [`create`].

mod changes;
pub mod listing;
mod transfer;

use std::{sync::Arc, time::Instant};

use tonic::{Code, Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    Context, create,
    observe::{Call, observed},
    problem::Failure,
    request,
};
use crate::auth::{Caller, audit::Change};
use tipserve_api::v1::{self as pb, cache_service_server::CacheService};

/// The service.
pub struct Caches {
    context: Arc<Context>,
}

/// Runs a change, and writes its audit line.
async fn audited<T>(
    caller: &Caller,
    action: &'static str,
    resource: String,
    work: impl Future<Output = Result<Response<T>, Failure>>,
) -> Result<Response<T>, Failure> {
    let change = Change::new(caller, action, resource);
    let result = work.await;
    change.ended(result.as_ref().map_or_else(Failure::code, |_| Code::Ok));
    result
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
        let caller = Caller::of(request.extensions());
        let serving = create::serve::<create::Creating>(
            context,
            caller,
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
        let call = Call::new(&self.context.calls, "AddExamples");
        let context = Arc::clone(&self.context);
        let caller = Caller::of(request.extensions());
        let serving =
            create::serve::<create::Adding>(context, caller, deadline, request.into_inner(), &call);
        call.answer(serving).await
    }

    async fn get_cache(
        &self,
        request: Request<pb::GetCacheRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            "GetCache",
            self.get(&caller, request.into_inner()),
        )
        .await
    }

    async fn list_caches(
        &self,
        request: Request<pb::ListCachesRequest>,
    ) -> Result<Response<pb::ListCachesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            "ListCaches",
            self.list(&caller, request.into_inner()),
        )
        .await
    }

    async fn delete_cache(
        &self,
        request: Request<pb::DeleteCacheRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let resource = request.name.clone();
        let work = self.delete(&caller, request);
        observed(
            &self.context.calls,
            "DeleteCache",
            audited(&caller, "delete_cache", resource, work),
        )
        .await
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            "GetVersion",
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
            "ListVersions",
            self.versions(&caller, request.into_inner()),
        )
        .await
    }

    async fn set_alias(
        &self,
        request: Request<pb::SetAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let resource = format!("{}/aliases/{}", request.cache, request.alias);
        let work = self.set_alias(&caller, request);
        observed(
            &self.context.calls,
            "SetAlias",
            audited(&caller, "set_alias", resource, work),
        )
        .await
    }

    async fn delete_alias(
        &self,
        request: Request<pb::DeleteAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let resource = format!("{}/aliases/{}", request.cache, request.alias);
        let work = self.delete_alias(&caller, request);
        observed(
            &self.context.calls,
            "DeleteAlias",
            audited(&caller, "delete_alias", resource, work),
        )
        .await
    }

    async fn list_examples(
        &self,
        request: Request<pb::ListExamplesRequest>,
    ) -> Result<Response<pb::ListExamplesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            "ListExamples",
            self.examples(&caller, request.into_inner()),
        )
        .await
    }

    async fn delete_version(
        &self,
        request: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let resource = request.name.clone();
        let work = self.delete_version(&caller, request);
        observed(
            &self.context.calls,
            "DeleteVersion",
            audited(&caller, "delete_version", resource, work),
        )
        .await
    }

    async fn prune_versions(
        &self,
        request: Request<pb::PruneVersionsRequest>,
    ) -> Result<Response<pb::PruneVersionsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            "PruneVersions",
            self.prune(&caller, request.into_inner()),
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
        let caller = Caller::of(request.extensions());
        call.answer(self.export(&caller, request.into_inner(), deadline, &call))
            .await
    }

    async fn import_version(
        &self,
        request: Request<Streaming<pb::ImportVersionRequest>>,
    ) -> Result<Response<pb::Version>, Status> {
        let caller = Caller::of(request.extensions());
        observed(
            &self.context.calls,
            "ImportVersion",
            self.import(&caller, request.into_inner()),
        )
        .await
    }
}
