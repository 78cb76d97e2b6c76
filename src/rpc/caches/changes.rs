//! Changing a cache: aliases moved, versions deleted.

use tonic::{Code, Response};

use super::Caches;
use crate::{
    auth::{Caller, audit::Change},
    rpc::{
        cache_id,
        problem::{Failure, Problem},
        reference,
        request::RequestError,
    },
};
use tipserve_api::v1 as pb;
use tipserve_store::{AliasName, VersionNumber, VersionSelector};

/// The etag that is expected; empty for none.
fn expected(etag: &str) -> Option<&str> {
    (!etag.is_empty()).then_some(etag)
}

impl Caches {
    pub(super) async fn delete(
        &self,
        caller: &Caller,
        request: pb::DeleteCacheRequest,
    ) -> Result<Response<()>, Failure> {
        let id = cache_id(caller, &request.name)?;
        let catalog = &self.context.catalog;
        catalog.delete_cache(&id, expected(&request.etag)).await?;
        Ok(Response::new(()))
    }

    pub(super) async fn delete_version(
        &self,
        caller: &Caller,
        request: pb::DeleteVersionRequest,
    ) -> Result<Response<()>, Failure> {
        let reference = reference(caller, &request.name)?;
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
        Ok(Response::new(()))
    }

    pub(super) async fn prune(
        &self,
        caller: &Caller,
        request: pb::PruneVersionsRequest,
    ) -> Result<Response<pb::PruneVersionsResponse>, Failure> {
        let id = cache_id(caller, &request.name)?;
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
            let mut change = Change::new(caller, "prune_versions", id.resource_name());
            let gone = catalog.prune(&id, keep, etag).await.map_err(Failure::from);
            if let Ok(gone) = &gone {
                let numbers: Vec<_> = gone.iter().map(ToString::to_string).collect();
                change.names(format!(
                    "{}/versions/[{}]",
                    id.resource_name(),
                    numbers.join(",")
                ));
            }
            change.ended(gone.as_ref().map_or_else(Failure::code, |_| Code::Ok));
            gone?
        };
        Ok(Response::new(pb::PruneVersionsResponse {
            deleted_versions: gone.iter().map(|number| number.as_i64()).collect(),
        }))
    }

    pub(super) async fn set_alias(
        &self,
        caller: &Caller,
        request: pb::SetAliasRequest,
    ) -> Result<Response<pb::Cache>, Failure> {
        let store = self.context.catalog.store();
        let id = cache_id(caller, &request.cache)?;
        let alias: AliasName = request.alias.parse().map_err(Problem::from)?;
        let number = u64::try_from(request.version)
            .ok()
            .and_then(VersionNumber::new)
            .ok_or_else(|| {
                RequestError::invalid("version", format!("{} is not over 0", request.version))
            })?;
        let etag = expected(&request.etag);
        let info = store.set_alias(&id, &alias, number, etag).await?;
        Ok(Response::new(self.describe(&info).await))
    }

    pub(super) async fn delete_alias(
        &self,
        caller: &Caller,
        request: pb::DeleteAliasRequest,
    ) -> Result<Response<pb::Cache>, Failure> {
        let store = self.context.catalog.store();
        let id = cache_id(caller, &request.cache)?;
        let alias: AliasName = request.alias.parse().map_err(Problem::from)?;
        let etag = expected(&request.etag);
        let info = store.delete_alias(&id, &alias, etag).await?;
        Ok(Response::new(self.describe(&info).await))
    }
}
