//! Changing a cache: aliases moved, versions deleted.

use tonic::Response;

use super::{Caches, cache_id};
use crate::{
    proto::v1 as pb,
    rpc::{
        problem::{Failure, Problem},
        request::RequestError,
    },
    store::{AliasName, Reference, VersionNumber, VersionSelector},
};

/// The etag that is expected; empty for none.
fn expected(etag: &str) -> Option<&str> {
    (!etag.is_empty()).then_some(etag)
}

impl Caches {
    pub(super) async fn delete(
        &self,
        request: pb::DeleteCacheRequest,
    ) -> Result<Response<()>, Failure> {
        let id = cache_id(&request.name)?;
        let catalog = &self.context.catalog;
        catalog.delete_cache(&id, expected(&request.etag)).await?;
        tracing::info!(cache = %id, "deleted a cache");
        Ok(Response::new(()))
    }

    pub(super) async fn delete_version(
        &self,
        request: pb::DeleteVersionRequest,
    ) -> Result<Response<()>, Failure> {
        let reference: Reference = request.name.parse().map_err(Problem::from)?;
        let VersionSelector::Number(number) = reference.version else {
            // What an alias points at changes; what is deleted must not.
            let problem = format!(
                "{:?} names no version by its number, as {}@7 or {}/versions/7 would",
                request.name,
                reference.cache,
                reference.cache.resource_name()
            );
            return Err(RequestError::invalid("name", problem).into());
        };
        let id = reference.cache;
        let catalog = &self.context.catalog;
        catalog
            .delete_version(&id, number, expected(&request.etag))
            .await?;
        tracing::info!(version = id.version_name(number), "deleted a version");
        Ok(Response::new(()))
    }

    pub(super) async fn prune(
        &self,
        request: pb::PruneVersionsRequest,
    ) -> Result<Response<pb::PruneVersionsResponse>, Failure> {
        let id = cache_id(&request.name)?;
        let keep = usize::try_from(request.keep)
            .ok()
            .filter(|keep| *keep > 0)
            .ok_or_else(|| {
                RequestError::invalid("keep", format!("{} is not at least 1", request.keep))
            })?;
        let catalog = &self.context.catalog;
        let etag = expected(&request.etag);
        let gone = if request.validate_only {
            catalog.store().superseded(&id, keep, etag).await?
        } else {
            let gone = catalog.prune(&id, keep, etag).await?;
            tracing::info!(cache = %id, keep, deleted = ?gone, "pruned versions");
            gone
        };
        Ok(Response::new(pb::PruneVersionsResponse {
            deleted_versions: gone.iter().map(|number| number.as_i64()).collect(),
        }))
    }

    pub(super) async fn set_alias(
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
        let etag = expected(&request.etag);
        let info = store.set_alias(&id, &alias, number, etag).await?;
        tracing::info!(cache = %id, %alias, version = %number, "set an alias");
        Ok(Response::new(self.describe(&info).await))
    }

    pub(super) async fn delete_alias(
        &self,
        request: pb::DeleteAliasRequest,
    ) -> Result<Response<pb::Cache>, Failure> {
        let store = self.context.catalog.store();
        let id = cache_id(&request.cache)?;
        let alias: AliasName = request.alias.parse().map_err(Problem::from)?;
        let etag = expected(&request.etag);
        let info = store.delete_alias(&id, &alias, etag).await?;
        tracing::info!(cache = %id, %alias, "deleted an alias");
        Ok(Response::new(self.describe(&info).await))
    }
}
