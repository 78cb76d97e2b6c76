//! The model repository as Triton has it: every version of every cache is a
//! model, and so is every bundle, called `bundles/` and its folder. Caches are
//! loaded ahead of their first request; bundles are loaded and unloaded, as
//! `BundleService` does it.

use std::{collections::HashMap, sync::Arc};

use tonic::Response;

use super::{answer_size::AnswerSize, model};
use crate::{
    auth::{AuthError, Caller, audit::AuditLine},
    catalog::{BundleState, BundleStatus},
    rpc::{Context, bundles, change::Change, error::ApiError, request::RequestError},
};
use tipserve_api::{
    inference::{
        RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
        RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
        repository_index_response::ModelIndex,
    },
    methods::Role,
    v1::LoadBundleRequest,
};
use tipserve_store::StoreError;

/// What the names of bundles begin with; no cache's id has a slash.
const BUNDLES: &str = "bundles/";

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
    for status in bundles::statuses(context).await? {
        if request.ready && status.state != BundleState::Ready {
            continue;
        }
        let row = bundle_row(&status);
        size.add(&row)?;
        index.models.push(row);
    }
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

/// A bundle in Triton's words.
fn bundle_row(status: &BundleStatus) -> ModelIndex {
    let (state, reason) = match status.state {
        BundleState::Ready => ("READY", ""),
        BundleState::Loading => ("LOADING", ""),
        BundleState::Unloading => ("UNLOADING", ""),
        BundleState::Available => ("UNAVAILABLE", "unloaded"),
    };
    ModelIndex {
        name: format!("{BUNDLES}{}", status.folder.folder),
        version: String::new(),
        state: state.to_owned(),
        reason: reason.to_owned(),
    }
}

/// `RepositoryModelUnload`: unloads a bundle once its work is done.
///
/// # Errors
/// What is no bundle: caches leave memory by themselves.
pub async fn unload(
    context: &Arc<Context>,
    change: Change,
    request: RepositoryModelUnloadRequest,
) -> Result<Response<RepositoryModelUnloadResponse>, ApiError> {
    change.audit.resource(&request.model_name);
    only_repository(&request.repository_name)?;
    // tritonclient sends it with each call; no bundle depends on another.
    no_parameters(request.parameters.keys(), &["unload_dependents"])?;
    let Some(folder) = request.model_name.strip_prefix(BUNDLES) else {
        return Err(RequestError::NotOffered {
            what: "RepositoryModelUnload of a cache",
            instead: "caches leave memory when room is needed, CacheService.DeleteCache deletes \
                      one, and bundles/FOLDER unloads a bundle",
        }
        .into());
    };
    let bundle = loaded_from(context, folder).await?;
    // A folder that is not loaded is named as it was, for the error.
    let bundle = bundle.unwrap_or_else(|| folder.to_owned());
    bundles::unload(context, change, bundle).await?;
    Ok(Response::new(RepositoryModelUnloadResponse {}))
}

/// The fingerprint of the bundle that was loaded from a folder. It holds no
/// reference to the bundle, whose unloading would wait for that.
async fn loaded_from(context: &Context, folder: &str) -> Result<Option<String>, ApiError> {
    let statuses = bundles::statuses(context).await?;
    let mut loaded = statuses
        .into_iter()
        .filter(|status| status.loaded.is_some());
    let found = loaded.find(|status| status.folder.folder == folder);
    Ok(found.map(|status| status.folder.fingerprint))
}

/// Loads a bundle, which asks for more than bringing a cache into memory does.
async fn load_bundle(
    context: &Arc<Context>,
    caller: &Caller,
    folder: &str,
) -> Result<(), ApiError> {
    let audit = AuditLine::begin(caller, "load_bundle");
    audit.resource(format!("{BUNDLES}{folder}"));
    if caller.role() < Role::Admin {
        let error = ApiError::from(AuthError::Role {
            name: caller.who(),
            role: caller.role(),
            needed: Role::Admin,
            method: "RepositoryModelLoad of a bundle".to_owned(),
        });
        audit.result(error.code());
        return Err(error);
    }
    let change = Change {
        caller: caller.clone(),
        audit: audit.clone(),
    };
    let request = LoadBundleRequest {
        folder: folder.to_owned(),
        make_default: false,
    };
    let loaded = bundles::load(context, change, request).await;
    if let Err(error) = &loaded {
        audit.result(error.code());
    }
    loaded.map(drop)
}

fn no_parameters<'a>(
    given: impl Iterator<Item = &'a String>,
    known: &[&str],
) -> Result<(), RequestError> {
    match given.filter(|name| !known.contains(&name.as_str())).min() {
        None => Ok(()),
        Some(name) => Err(RequestError::invalid(
            format!("parameters.{name}"),
            "a cache is loaded as it was made, and a bundle as it is on disk: no parameters are \
             taken",
        )),
    }
}

/// `RepositoryModelLoad`: loads a bundle, or brings a version into memory before it is asked for.
/// It may be dropped again when others need the memory.
///
/// # Errors
/// What cannot be served, and any parameter: they would change the model.
pub async fn load(
    context: &Arc<Context>,
    caller: &Caller,
    request: RepositoryModelLoadRequest,
) -> Result<Response<RepositoryModelLoadResponse>, ApiError> {
    only_repository(&request.repository_name)?;
    no_parameters(request.parameters.keys(), &[])?;
    if let Some(folder) = request.model_name.strip_prefix(BUNDLES) {
        load_bundle(context, caller, folder).await?;
        return Ok(Response::new(RepositoryModelLoadResponse {}));
    }
    let reference = model::reference(caller, &request.model_name, "")?;
    context.catalog.classifier(&reference).await?;
    Ok(Response::new(RepositoryModelLoadResponse {}))
}
