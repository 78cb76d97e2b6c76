//! Models: which version of which cache a name stands for, and what it is.

use std::collections::HashMap;

use tonic::Response;

use super::{
    outputs::Output,
    parameters::PRIORITY_LEVELS,
    tensors::{EMBEDDING, IMAGE},
};
use crate::{
    auth::Caller,
    catalog::CatalogError,
    rpc::{Context, error::ApiError, observe::about, request::RequestError},
};
use tipserve_api::inference::{
    self as v2, DataType, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
    ModelParameter, ModelQueuePolicy, ModelTransactionPolicy, ModelVersionPolicy,
    model_config::SchedulingChoice, model_instance_group::Kind,
    model_metadata_response::TensorMetadata, model_queue_policy::TimeoutAction,
    model_version_policy,
};
use tipserve_api::names::NameError;
use tipserve_store::{Details, Manifest, Reference, StoreError, VersionSelector};

/// The protocol's name for TorchScript.
const PLATFORM: &str = "pytorch_torchscript";
/// Triton's name for what runs it.
const BACKEND: &str = "pytorch";

/// The cache and version that a name and a version stand for. The version is a
/// number, an alias, "latest" or empty, which is the newest; or the name says
/// it, in any form that the API takes elsewhere (`CACHE@ALIAS`).
///
/// Every method of the service that names a model comes through here: whether
/// the caller may touch the cache is asked before it is looked for.
///
/// # Errors
/// What is no name or version, or a version said twice; a cache that is not
/// the caller's.
pub fn reference(caller: &Caller, name: &str, version: &str) -> Result<Reference, ApiError> {
    if name.is_empty() {
        return Err(RequestError::missing("model_name").into());
    }
    let named: Reference = name
        .parse()
        .map_err(|error: NameError| ApiError::from(error).field("model_name"))?;
    caller.check(&named.cache)?;
    about(&named);
    if version.is_empty() {
        return Ok(named);
    }
    if named.version != VersionSelector::Latest {
        let problem = format!("it is {version:?}, and the name {name:?} has a version too");
        return Err(RequestError::invalid("model_version", problem).into());
    }
    // As the API reads what follows the @.
    format!("{}@{version}", named.cache)
        .parse()
        .map_err(|error: NameError| ApiError::from(error).field("model_version"))
}

/// Whether the server takes requests now.
pub fn server_ready(context: &Context) -> bool {
    !context.shutdown.is_cancelled() && context.catalog.bundles().are_healthy()
}

/// Whether a version can be served: there, whole, and made for this bundle.
///
/// # Errors
/// Names that are none, and a storage that does not answer.
pub async fn ready(
    context: &Context,
    caller: &Caller,
    name: &str,
    version: &str,
) -> Result<bool, ApiError> {
    let reference = reference(caller, name, version)?;
    if !server_ready(context) {
        return Ok(false);
    }
    match context.catalog.classifier(&reference).await {
        Ok(_) => Ok(true),
        Err(
            error
            @ CatalogError::Store(StoreError::Unavailable { .. } | StoreError::Storage { .. }),
        ) => Err(error.into()),
        Err(error) => {
            tracing::debug!(model = %reference, %error, "is not ready");
            Ok(false)
        }
    }
}

async fn manifest(context: &Context, reference: &Reference) -> Result<Manifest, ApiError> {
    let store = context.catalog.store();
    let (id, number) = store.resolve(reference).await?;
    Ok(store.manifest(&id, number).await?)
}

/// Whether a version's bundle encodes pictures, as far as it is loaded.
fn takes_pictures(context: &Context, manifest: &Manifest) -> bool {
    let bundles = context.catalog.bundles();
    let bundle = bundles.of_fingerprint(&manifest.details.bundle_fingerprint);
    bundle.is_none_or(|bundle| bundle.engine.takes_pictures())
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The outputs of a version. Those of recognition are listed only if the
/// version can decide without a given threshold, since some clients request
/// every listed output.
fn outputs(details: &Details) -> impl Iterator<Item = Output> {
    let recognises = details.head.unseen.is_some();
    let all = Output::ALL.into_iter();
    all.filter(move |output| recognises || !output.recognises())
}

/// `ModelMetadata`.
///
/// # Errors
/// What there is not, or cannot be read.
pub async fn metadata(
    context: &Context,
    caller: &Caller,
    name: String,
    version: &str,
) -> Result<Response<v2::ModelMetadataResponse>, ApiError> {
    let reference = reference(caller, &name, version)?;
    let manifest = manifest(context, &reference).await?;
    let versions = match reference.version {
        VersionSelector::Latest => {
            let versions = context.catalog.store().versions(&reference.cache).await?;
            let oldest_first = versions.iter().rev();
            oldest_first
                .map(|version| version.number.to_string())
                .collect()
        }
        _ => vec![manifest.version.to_string()],
    };
    let tensor = |name: &str, datatype: &str, dims: &[i64]| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: [&[-1], dims].concat(),
    };
    let mut inputs = Vec::new();
    if takes_pictures(context, &manifest) {
        inputs.push(tensor(IMAGE, "BYTES", &[1]));
    }
    let details = &manifest.details;
    inputs.push(tensor(EMBEDDING, "FP32", &[signed(details.width)]));
    Ok(Response::new(v2::ModelMetadataResponse {
        name,
        versions,
        platform: PLATFORM.to_owned(),
        inputs,
        outputs: outputs(details)
            .map(|output| {
                let dims = output.dims(details.classes.len());
                tensor(output.name(), output.datatype(), &dims)
            })
            .collect(),
    }))
}

/// `ModelConfig`.
///
/// # Errors
/// As [`metadata`].
pub async fn config(
    context: &Context,
    caller: &Caller,
    name: String,
    version: &str,
) -> Result<Response<v2::ModelConfigResponse>, ApiError> {
    let reference = reference(caller, &name, version)?;
    let manifest = manifest(context, &reference).await?;
    let details = &manifest.details;
    let pictures = takes_pictures(context, &manifest);
    let input = |name: &str, data_type: DataType, dims: Vec<i64>| ModelInput {
        name: name.to_owned(),
        data_type: data_type.into(),
        dims,
        // One of two must be sent; the only one must.
        optional: pictures,
    };
    let image = pictures.then(|| input(IMAGE, DataType::TypeString, vec![1]));
    let embedding = input(EMBEDDING, DataType::TypeFp32, vec![signed(details.width)]);
    let output = |output: Output| ModelOutput {
        name: output.name().to_owned(),
        data_type: match output {
            Output::Label | Output::Classification => DataType::TypeString,
            Output::Score | Output::Logits | Output::KnownScore => DataType::TypeFp32,
            Output::Accepted => DataType::TypeBool,
        }
        .into(),
        dims: output.dims(details.classes.len()),
    };
    let facts = [
        ("bundle", details.bundle_name.clone()),
        ("bundle_fingerprint", details.bundle_fingerprint.clone()),
        ("version", manifest.version.to_string()),
        ("method", details.head.method.api_name().to_owned()),
        ("classes", details.classes.len().to_string()),
        ("description", details.description.clone()),
    ];
    let parameters: HashMap<String, ModelParameter> = facts
        .into_iter()
        .map(|(name, string_value)| (name.to_owned(), ModelParameter { string_value }))
        .collect();
    let config = v2::ModelConfig {
        platform: PLATFORM.to_owned(),
        backend: BACKEND.to_owned(),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(model_version_policy::PolicyChoice::All(
                model_version_policy::All {},
            )),
        }),
        max_batch_size: i32::try_from(context.limits.stream_window).unwrap_or(i32::MAX),
        input: image.into_iter().chain([embedding]).collect(),
        output: outputs(details).map(output).collect(),
        instance_group: vec![instances(context, &name)],
        scheduling_choice: Some(SchedulingChoice::DynamicBatching(batching(context))),
        parameters,
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        name,
    };
    Ok(Response::new(v2::ModelConfigResponse {
        config: Some(config),
    }))
}

/// The workers that run the encoder, for all models.
fn instances(context: &Context, name: &str) -> ModelInstanceGroup {
    let bundle = context.catalog.bundles().default_bundle();
    let device = &bundle.model.device;
    let gpu = device.strip_prefix("cuda:").map(str::parse);
    let kind = if gpu.is_some() { Kind::Gpu } else { Kind::Cpu };
    let workers = bundle.engine.settings().threads.workers;
    ModelInstanceGroup {
        name: name.to_owned(),
        count: i32::try_from(workers).unwrap_or(i32::MAX),
        gpus: gpu.into_iter().flatten().collect(),
        kind: kind.into(),
    }
}

/// How the engine batches, for all models.
fn batching(context: &Context) -> ModelDynamicBatching {
    let bundle = context.catalog.bundles().default_bundle();
    let settings = bundle.engine.settings();
    let delay = settings.max_queue_delay.as_micros();
    ModelDynamicBatching {
        max_queue_delay_microseconds: u64::try_from(delay).unwrap_or(u64::MAX),
        preserve_ordering: true,
        priority_levels: PRIORITY_LEVELS,
        default_priority_level: 1,
        default_queue_policy: Some(ModelQueuePolicy {
            timeout_action: TimeoutAction::Reject.into(),
            default_timeout_microseconds: 0,
            allow_timeout_override: true,
            max_queue_size: u32::try_from(settings.queue_items).unwrap_or(u32::MAX),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number_an_alias_or_nothing() {
        let caller = Caller::default();
        for (name, version, means) in [
            ("birds", "", "caches/birds"),
            ("birds", "latest", "caches/birds"),
            ("birds", "3", "caches/birds/versions/3"),
            ("birds", "stable", "caches/birds/aliases/stable"),
            ("birds@stable", "", "caches/birds/aliases/stable"),
            ("caches/birds/versions/3", "", "caches/birds/versions/3"),
            ("caches/birds", "3", "caches/birds/versions/3"),
        ] {
            let reference = reference(&caller, name, version).expect("a reference");
            assert_eq!(reference.to_string(), means, "{name:?} {version:?}");
        }
        for (name, version, field) in [
            ("", "", "model_name"),
            ("Birds!", "", "model_name"),
            ("birds", "-1", "model_version"),
            ("birds", "0", "model_version"),
            ("birds", "1@2", "model_version"),
            ("birds@2", "2", "model_version"),
        ] {
            let problem = reference(&caller, name, version).expect_err("refused");
            assert_eq!(problem.field_path(), Some(field), "{name:?} {version:?}");
        }
    }
}
