//! `CacheService`.

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, Streaming};

use super::{
    Context, convert, create,
    observe::{Call, observed},
    paging,
    problem::{Failure, Problem},
    request::{self, RequestError},
};
use crate::{
    proto::v1::{self as pb, cache_service_server::CacheService},
    store::{AliasName, CacheId, CacheInfo, Reference, VersionNumber},
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

    /// A cache as the API has it. A latest version that cannot be read is
    /// left out, so that one damaged file hides nothing else.
    async fn describe(&self, info: &CacheInfo) -> Result<pb::Cache, Failure> {
        let store = self.context.catalog.store();
        let latest = match info.versions.first() {
            Some(newest) => match store.manifest(&info.id, newest.number).await {
                Ok(manifest) => Some(convert::version(&manifest)),
                Err(error) => {
                    tracing::warn!(cache = %info.id, %error, "its latest version cannot be read");
                    None
                }
            },
            None => None,
        };
        let aliases = info
            .aliases
            .iter()
            .map(|(alias, to)| (alias.to_string(), to.version.as_i64()))
            .collect();
        Ok(pb::Cache {
            name: info.id.resource_name(),
            create_time: Some(convert::timestamp(info.create_time)),
            latest,
            aliases,
            version_count: i32::try_from(info.versions.len()).unwrap_or(i32::MAX),
            etag: info.etag.clone(),
        })
    }

    async fn get(&self, request: pb::GetCacheRequest) -> Result<Response<pb::Cache>, Failure> {
        let id = cache_id(&request.name)?;
        let info = self.context.catalog.store().cache(&id).await?;
        let mut cache = self.describe(&info).await?;
        paging::mask(&mut cache, request.read_mask.as_ref())?;
        Ok(Response::new(cache))
    }

    async fn list(
        &self,
        request: pb::ListCachesRequest,
    ) -> Result<Response<pb::ListCachesResponse>, Failure> {
        let size = paging::size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse::<CacheId>().map_err(|_| {
                RequestError::invalid("page_token", "it is not one that ListCaches returned")
            })?),
        };
        let store = self.context.catalog.store();
        let page = store.list_caches(size, after.as_ref()).await?;
        for (id, error) in &page.damaged {
            tracing::warn!(cache = %id, %error, "a cache cannot be listed");
        }
        let mut caches = Vec::with_capacity(page.caches.len());
        for info in &page.caches {
            let mut cache = self.describe(info).await?;
            paging::mask(&mut cache, request.read_mask.as_ref())?;
            caches.push(cache);
        }
        Ok(Response::new(pb::ListCachesResponse {
            caches,
            next_page_token: page.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn delete(&self, request: pb::DeleteCacheRequest) -> Result<Response<()>, Failure> {
        let id = cache_id(&request.name)?;
        self.context.catalog.delete_cache(&id).await?;
        tracing::info!(cache = %id, "deleted a cache");
        Ok(Response::new(()))
    }

    async fn version(
        &self,
        request: pb::GetVersionRequest,
    ) -> Result<Response<pb::Version>, Failure> {
        let store = self.context.catalog.store();
        let reference: Reference = request.name.parse().map_err(Problem::from)?;
        let (id, number) = store.resolve(&reference).await?;
        let mut version = convert::version(&store.manifest(&id, number).await?);
        paging::mask(&mut version, request.read_mask.as_ref())?;
        Ok(Response::new(version))
    }

    async fn versions(
        &self,
        request: pb::ListVersionsRequest,
    ) -> Result<Response<pb::ListVersionsResponse>, Failure> {
        let store = self.context.catalog.store();
        let id = cache_id(&request.parent)?;
        let size = paging::size(request.page_size)?;
        // Newest first: the token is the last number that was returned.
        let below = match request.page_token.as_str() {
            "" => u64::MAX,
            token => token.parse::<u64>().map_err(|_| {
                RequestError::invalid("page_token", "it is not one that ListVersions returned")
            })?,
        };
        let numbers: Vec<VersionNumber> = store
            .versions(&id)
            .await?
            .iter()
            .map(|version| version.number)
            .filter(|number| number.get() < below)
            .collect();
        let mut versions = Vec::new();
        for number in numbers.iter().take(size) {
            match store.manifest(&id, *number).await {
                Ok(manifest) => {
                    let mut version = convert::version(&manifest);
                    paging::mask(&mut version, request.read_mask.as_ref())?;
                    versions.push(version);
                }
                Err(error) => {
                    tracing::warn!(cache = %id, version = %number, %error, "cannot be listed");
                }
            }
        }
        let next_page_token = match numbers.get(size) {
            Some(_) => numbers
                .get(size - 1)
                .map(|number| number.get().to_string())
                .unwrap_or_default(),
            None => String::new(),
        };
        Ok(Response::new(pb::ListVersionsResponse {
            versions,
            next_page_token,
        }))
    }

    async fn set_alias(
        &self,
        request: pb::SetAliasRequest,
    ) -> Result<Response<pb::Cache>, Failure> {
        let store = self.context.catalog.store();
        let id = cache_id(&request.cache)?;
        let alias: AliasName = request.alias.parse().map_err(Problem::from)?;
        let number = u64::try_from(request.version)
            .ok()
            .and_then(VersionNumber::new)
            .ok_or_else(|| {
                RequestError::invalid("version", format!("{} is not over 0", request.version))
            })?;
        let info = store.set_alias(&id, &alias, number, None).await?;
        tracing::info!(cache = %id, %alias, version = %number, "set an alias");
        Ok(Response::new(self.describe(&info).await?))
    }

    async fn delete_alias(
        &self,
        request: pb::DeleteAliasRequest,
    ) -> Result<Response<pb::Cache>, Failure> {
        let store = self.context.catalog.store();
        let id = cache_id(&request.cache)?;
        let alias: AliasName = request.alias.parse().map_err(Problem::from)?;
        let info = store.delete_alias(&id, &alias, None).await?;
        tracing::info!(cache = %id, %alias, "deleted an alias");
        Ok(Response::new(self.describe(&info).await?))
    }
}

#[tonic::async_trait]
impl CacheService for Caches {
    type CreateCacheStream = create::Events;

    async fn create_cache(
        &self,
        request: Request<Streaming<pb::CreateCacheRequest>>,
    ) -> Result<Response<Self::CreateCacheStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::new(&self.context.calls, "CreateCache");
        let context = Arc::clone(&self.context);
        let serving = create::serve(context, deadline, request.into_inner(), &call);
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

    type AddExamplesStream = tonic::codegen::BoxStream<pb::AddExamplesResponse>;

    async fn add_examples(
        &self,
        _: Request<Streaming<pb::AddExamplesRequest>>,
    ) -> Result<Response<Self::AddExamplesStream>, Status> {
        Err(Status::unimplemented("AddExamples"))
    }

    async fn list_examples(
        &self,
        _: Request<pb::ListExamplesRequest>,
    ) -> Result<Response<pb::ListExamplesResponse>, Status> {
        Err(Status::unimplemented("ListExamples"))
    }

    async fn delete_version(
        &self,
        _: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("DeleteVersion"))
    }

    async fn prune_versions(
        &self,
        _: Request<pb::PruneVersionsRequest>,
    ) -> Result<Response<pb::PruneVersionsResponse>, Status> {
        Err(Status::unimplemented("PruneVersions"))
    }

    type ExportVersionStream = tonic::codegen::BoxStream<pb::ExportVersionResponse>;

    async fn export_version(
        &self,
        _: Request<pb::ExportVersionRequest>,
    ) -> Result<Response<Self::ExportVersionStream>, Status> {
        Err(Status::unimplemented("ExportVersion"))
    }

    async fn import_version(
        &self,
        _: Request<Streaming<pb::ImportVersionRequest>>,
    ) -> Result<Response<pb::Version>, Status> {
        Err(Status::unimplemented("ImportVersion"))
    }
}
