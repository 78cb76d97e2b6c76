//! Changing a cache: aliases moved, versions deleted.

use tonic::Response;

use super::Caches;
use crate::rpc::{
    cache_id,
    change::{Change, to_its_end},
    error::ApiError,
    reference,
    request::RequestError,
};
use tipserve_api::v1 as pb;
use tipserve_store::{AliasName, CacheInfo, StoreError, VersionNumber, VersionSelector};

/// The etag that is expected; empty for none.
fn expected(etag: &str) -> Option<&str> {
    (!etag.is_empty()).then_some(etag)
}

impl Caches {
    pub(super) async fn delete(
        self,
        Change { caller, audit }: Change,
        request: pb::DeleteCacheRequest,
    ) -> Result<Response<()>, ApiError> {
        audit.resource(&request.name);
        let id = cache_id(&caller, &request.name)?;
        to_its_end(audit, async move {
            let catalog = &self.context.catalog;
            catalog.delete_cache(&id, expected(&request.etag)).await?;
            Ok(Response::new(()))
        })
        .await
    }

    pub(super) async fn delete_version(
        self,
        Change { caller, audit }: Change,
        request: pb::DeleteVersionRequest,
    ) -> Result<Response<()>, ApiError> {
        audit.resource(&request.name);
        let reference = reference(&caller, &request.name)?;
        let VersionSelector::Number(number) = reference.version else {
            // An alias may point elsewhere by then, but the version to delete
            // must not change.
            let problem = format!(
                "{:?} names no version by its number, as {}@7 or {}/versions/7 would",
                request.name,
                reference.cache,
                reference.cache.resource_name()
            );
            return Err(RequestError::invalid("name", problem).into());
        };
        let id = reference.cache;
        to_its_end(audit, async move {
            let catalog = &self.context.catalog;
            catalog
                .delete_version(&id, number, expected(&request.etag))
                .await?;
            Ok(Response::new(()))
        })
        .await
    }

    pub(super) async fn prune_versions(
        self,
        Change { caller, audit }: Change,
        request: pb::PruneVersionsRequest,
    ) -> Result<Response<pb::PruneVersionsResponse>, ApiError> {
        audit.resource(&request.name);
        let id = cache_id(&caller, &request.name)?;
        let keep = usize::try_from(request.keep)
            .ok()
            .filter(|keep| *keep > 0)
            .ok_or_else(|| {
                RequestError::invalid("keep", format!("{} is not at least 1", request.keep))
            })?;
        let response = |deleted: &[VersionNumber]| pb::PruneVersionsResponse {
            deleted_versions: deleted.iter().map(|number| number.as_i64()).collect(),
        };
        if request.validate_only {
            let store = self.context.catalog.store();
            let superseded = store.superseded(&id, keep, expected(&request.etag)).await?;
            audit.discard();
            return Ok(Response::new(response(&superseded)));
        }
        let line = audit.clone();
        to_its_end(audit, async move {
            let catalog = &self.context.catalog;
            let deleted = catalog.prune(&id, keep, expected(&request.etag)).await?;
            let numbers: Vec<_> = deleted.iter().map(ToString::to_string).collect();
            let numbers = numbers.join(",");
            line.resource(format!("{}/versions/[{numbers}]", id.resource_name()));
            Ok(Response::new(response(&deleted)))
        })
        .await
    }

    pub(super) async fn set_alias(
        self,
        Change { caller, audit }: Change,
        request: pb::SetAliasRequest,
    ) -> Result<Response<pb::Cache>, ApiError> {
        audit.resource(format!("{}/aliases/{}", request.cache, request.alias));
        let id = cache_id(&caller, &request.cache)?;
        let alias: AliasName = request.alias.parse()?;
        let number = u64::try_from(request.version)
            .ok()
            .and_then(VersionNumber::new)
            .ok_or_else(|| {
                RequestError::invalid("version", format!("{} is not over 0", request.version))
            })?;
        to_its_end(audit, async move {
            let store = self.context.catalog.store();
            let etag = expected(&request.etag);
            let info = store.set_alias(&id, &alias, number, etag).await;
            self.changed(info).await
        })
        .await
    }

    pub(super) async fn delete_alias(
        self,
        Change { caller, audit }: Change,
        request: pb::DeleteAliasRequest,
    ) -> Result<Response<pb::Cache>, ApiError> {
        audit.resource(format!("{}/aliases/{}", request.cache, request.alias));
        let id = cache_id(&caller, &request.cache)?;
        let alias: AliasName = request.alias.parse()?;
        to_its_end(audit, async move {
            let store = self.context.catalog.store();
            let info = store
                .delete_alias(&id, &alias, expected(&request.etag))
                .await;
            self.changed(info).await
        })
        .await
    }

    /// The cache as it is after a change.
    async fn changed(
        &self,
        info: Result<CacheInfo, StoreError>,
    ) -> Result<Response<pb::Cache>, ApiError> {
        Ok(Response::new(self.describe(&info?).await))
    }
}
