//! `BundleService`: lists, loads and unloads bundles while the server runs.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Context,
    change::{Change, to_its_end},
    convert,
    error::ApiError,
    info,
    observe::observed,
    request::RequestError,
};
use crate::catalog::{BundleState, BundleStatus, CatalogError};
use tipserve_api::v1::{self as pb, bundle::State, bundle_service_server::BundleService};

/// `BundleService` on the catalog's bundles.
pub struct BundleAdmin {
    context: Arc<Context>,
}

impl BundleAdmin {
    /// The service on this server.
    pub fn new(context: Arc<Context>) -> BundleAdmin {
        BundleAdmin { context }
    }

    async fn list(&self) -> Result<Response<pb::ListBundlesResponse>, ApiError> {
        let statuses = statuses(&self.context).await?;
        Ok(Response::new(pb::ListBundlesResponse {
            bundles: statuses.iter().map(message).collect(),
        }))
    }
}

/// Loads the bundle in a folder, warms it and lets it serve.
///
/// # Errors
/// [`Bundles::load`](crate::catalog::Bundles::load)'s; a caller whose token is
/// for some caches only.
pub(super) async fn load(
    context: &Arc<Context>,
    Change { caller, audit }: Change,
    request: pb::LoadBundleRequest,
) -> Result<pb::Bundle, ApiError> {
    audit.resource(format!("bundles/{}", request.folder));
    caller.check_all_caches()?;
    if request.folder.is_empty() {
        return Err(RequestError::missing("folder").into());
    }
    let context = Arc::clone(context);
    to_its_end(audit, async move {
        let bundles = context.catalog.bundles();
        let loaded = bundles.load(request.folder, request.make_default).await;
        let loaded = loaded.map_err(|error| of_field(error, "folder"))?;
        let fingerprint = &loaded.model.fingerprint;
        let statuses = statuses(&context).await?;
        let mut statuses = statuses.iter();
        let status = statuses.find(|status| status.folder.fingerprint == *fingerprint);
        // Unloaded again in the meantime.
        let status = status.ok_or_else(|| CatalogError::BundleBusy {
            name: loaded.model.name.clone(),
            problem: "is unloaded again",
        })?;
        Ok(message(status))
    })
    .await
}

/// Unloads a bundle, named by its name or fingerprint, once its work is done.
///
/// # Errors
/// [`Catalog::unload_bundle`](crate::catalog::Catalog::unload_bundle)'s; a
/// caller whose token is for some caches only.
pub(super) async fn unload(
    context: &Arc<Context>,
    Change { caller, audit }: Change,
    bundle: String,
) -> Result<(), ApiError> {
    audit.resource(format!("bundles/{bundle}"));
    caller.check_all_caches()?;
    if bundle.is_empty() {
        return Err(RequestError::missing("bundle").into());
    }
    let context = Arc::clone(context);
    to_its_end(audit, async move {
        let unloaded = context.catalog.unload_bundle(&bundle).await;
        unloaded.map_err(|error| of_field(error, "bundle"))
    })
    .await
}

/// Reports an unknown name as a violation of the request's field.
fn of_field(error: CatalogError, field: &str) -> ApiError {
    let is_its_own = matches!(error, CatalogError::UnknownBundle { .. });
    let error = ApiError::from(error);
    match is_its_own {
        true => error.field(field),
        false => error,
    }
}

/// All bundles and their states; reads the disk.
pub(super) async fn statuses(context: &Context) -> Result<Vec<BundleStatus>, ApiError> {
    let bundles = Arc::clone(context.catalog.bundles());
    let listed = tokio::task::spawn_blocking(move || bundles.statuses());
    Ok(listed.await.map_err(CatalogError::internal)?)
}

fn message(status: &BundleStatus) -> pb::Bundle {
    let known = pb::Bundle {
        info: Some(pb::BundleInfo {
            name: status.folder.name.clone(),
            fingerprint: status.folder.fingerprint.clone(),
            ..pb::BundleInfo::default()
        }),
        folder: status.folder.folder.clone(),
        state: match status.state {
            BundleState::Available => State::Available,
            BundleState::Loading => State::Loading,
            BundleState::Ready => State::Ready,
            BundleState::Unloading => State::Unloading,
        }
        .into(),
        is_default: status.is_default,
        in_flight_items: i64::try_from(status.items).unwrap_or(i64::MAX),
        ..pb::Bundle::default()
    };
    let Some(loaded) = &status.loaded else {
        return known;
    };
    let text = loaded.model.text_precision;
    pb::Bundle {
        info: Some(info::bundle(loaded)),
        device: loaded.model.device.clone(),
        dtype: loaded.model.precision.name().to_owned(),
        text_dtype: text.map_or_else(String::new, |precision| precision.name().to_owned()),
        load_time: Some(convert::timestamp(loaded.loaded)),
        load_duration: prost_types::Duration::try_from(loaded.took).ok(),
        ..known
    }
}

#[tonic::async_trait]
impl BundleService for BundleAdmin {
    async fn list_bundles(
        &self,
        _: Request<pb::ListBundlesRequest>,
    ) -> Result<Response<pb::ListBundlesResponse>, Status> {
        observed(&self.context.calls, self.list()).await
    }

    async fn load_bundle(
        &self,
        request: Request<pb::LoadBundleRequest>,
    ) -> Result<Response<pb::Bundle>, Status> {
        let change = Change::of(&request);
        observed(&self.context.calls, async {
            let loaded = load(&self.context, change, request.into_inner()).await?;
            Ok(Response::new(loaded))
        })
        .await
    }

    async fn unload_bundle(
        &self,
        request: Request<pb::UnloadBundleRequest>,
    ) -> Result<Response<pb::UnloadBundleResponse>, Status> {
        let change = Change::of(&request);
        observed(&self.context.calls, async {
            unload(&self.context, change, request.into_inner().bundle).await?;
            Ok(Response::new(pb::UnloadBundleResponse {}))
        })
        .await
    }
}
