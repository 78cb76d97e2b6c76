//! The model repository: every version of every cache, as Triton lists models.

use std::collections::HashMap;

use tonic::Response;

use super::{answer_size::AnswerSize, model};
use crate::{
    auth::Caller,
    rpc::{Context, error::ApiError, request::RequestError},
};
use tipserve_api::inference::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, repository_index_response::ModelIndex,
};
use tipserve_store::StoreError;

/// Caches examined in one go.
const PAGE: usize = 256;

fn only_repository(name: &str) -> Result<(), RequestError> {
    match name {
        "" => Ok(()),
        _ => Err(RequestError::invalid(
            "repository_name",
            "there is one repository, the store: leave it empty",
        )),
    }
}

/// `RepositoryIndex`.
///
/// # Errors
/// The storage's, and an index that takes more than a message.
pub async fn index(
    context: &Context,
    caller: &Caller,
    request: RepositoryIndexRequest,
) -> Result<Response<RepositoryIndexResponse>, ApiError> {
    only_repository(&request.repository_name)?;
    let store = context.catalog.store();
    let set_aside: HashMap<String, String> = store
        .set_aside()
        .into_iter()
        .filter_map(|error| match &error {
            StoreError::Damaged { what, .. } => Some((what.clone(), error.to_string())),
            _ => None,
        })
        .collect();
    let row = |name: String, version: String, reason: String| ModelIndex {
        name,
        version,
        state: if reason.is_empty() {
            "READY"
        } else {
            "UNAVAILABLE"
        }
        .to_owned(),
        reason,
    };
    let mut index = RepositoryIndexResponse::default();
    let mut size = AnswerSize::new("use tipserve.v1.CacheService.ListCaches");
    let mut after = None;
    loop {
        let page = store.list_caches(PAGE, after.as_ref()).await?;
        let seen = page.caches.iter().filter(|cache| caller.sees(&cache.id));
        let versions = seen.flat_map(|cache| {
            cache.versions.iter().rev().map(|version| {
                let reason = set_aside.get(&cache.id.version_name(version.number));
                let reason = reason.cloned().unwrap_or_default();
                row(cache.id.to_string(), version.number.to_string(), reason)
            })
        });
        let damaged = page
            .damaged
            .iter()
            .filter(|(id, _)| caller.sees(id))
            .map(|(id, error)| row(id.to_string(), String::new(), error.to_string()));
        for row in versions.chain(damaged) {
            if request.ready && !row.reason.is_empty() {
                continue;
            }
            size.add(&row)?;
            index.models.push(row);
        }
        after = page.next;
        if after.is_none() {
            return Ok(Response::new(index));
        }
    }
}

/// `RepositoryModelLoad`: brings a version into memory before it is asked for.
/// It may be dropped again when others need the memory.
///
/// # Errors
/// What cannot be served, and any parameter: they would change the model.
pub async fn load(
    context: &Context,
    caller: &Caller,
    request: RepositoryModelLoadRequest,
) -> Result<Response<RepositoryModelLoadResponse>, ApiError> {
    only_repository(&request.repository_name)?;
    if let Some(name) = request.parameters.keys().min() {
        return Err(RequestError::invalid(
            format!("parameters.{name}"),
            "a cache is loaded as it was made: no parameters are taken",
        )
        .into());
    }
    let reference = model::reference(caller, &request.model_name, "")?;
    context.catalog.classifier(&reference).await?;
    Ok(Response::new(RepositoryModelLoadResponse {}))
}
