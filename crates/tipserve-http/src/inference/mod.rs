//! The Open Inference Protocol v2 over HTTP, with Triton's binary extension:
//! another way of writing what `inference.GRPCInferenceService` takes.

mod answer;
mod repository;
mod request;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, Method};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status};

use crate::{
    dialect::{Dialect, Shape},
    rules::{Route, Rpc, RulesError},
    status,
    template::Template,
};

pub use answer::{error, infer, plain};
pub use repository::read_parameters;
pub use request::read;

/// The header with the length of the JSON before the tensors' bytes.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Verb, path, method, and how its answer is shown.
const PATHS: [(&str, &str, &str, Shape); 19] = [
    ("GET", "/v2", "ServerMetadata", Shape::Whole),
    ("GET", "/v2/health/live", "ServerLive", Shape::Truth),
    ("GET", "/v2/health/ready", "ServerReady", Shape::Truth),
    ("GET", "/v2/models/{name}", "ModelMetadata", Shape::Whole),
    (
        "GET",
        "/v2/models/{name}/versions/{version}",
        "ModelMetadata",
        Shape::Whole,
    ),
    ("GET", "/v2/models/{name}/ready", "ModelReady", Shape::Truth),
    (
        "GET",
        "/v2/models/{name}/versions/{version}/ready",
        "ModelReady",
        Shape::Truth,
    ),
    (
        "GET",
        "/v2/models/{name}/config",
        "ModelConfig",
        Shape::Field("config"),
    ),
    (
        "GET",
        "/v2/models/{name}/versions/{version}/config",
        "ModelConfig",
        Shape::Field("config"),
    ),
    ("GET", "/v2/models/stats", "ModelStatistics", Shape::Whole),
    (
        "GET",
        "/v2/models/{name}/stats",
        "ModelStatistics",
        Shape::Whole,
    ),
    (
        "GET",
        "/v2/models/{name}/versions/{version}/stats",
        "ModelStatistics",
        Shape::Whole,
    ),
    (
        "POST",
        "/v2/models/{model_name}/infer",
        "ModelInfer",
        Shape::Tensors,
    ),
    (
        "POST",
        "/v2/models/{model_name}/versions/{model_version}/infer",
        "ModelInfer",
        Shape::Tensors,
    ),
    (
        "POST",
        "/v2/repository/index",
        "RepositoryIndex",
        Shape::Field("models"),
    ),
    (
        "POST",
        "/v2/repository/models/{model_name}/load",
        "RepositoryModelLoad",
        Shape::Whole,
    ),
    (
        "POST",
        "/v2/repository/models/{model_name=bundles/*}/load",
        "RepositoryModelLoad",
        Shape::Whole,
    ),
    (
        "POST",
        "/v2/repository/models/{model_name}/unload",
        "RepositoryModelUnload",
        Shape::Whole,
    ),
    (
        "POST",
        "/v2/repository/models/{model_name=bundles/*}/unload",
        "RepositoryModelUnload",
        Shape::Whole,
    ),
];

/// The protocol's routes.
///
/// # Errors
/// If the descriptors lack its service: a broken build.
pub fn routes(pool: &DescriptorPool) -> Result<Vec<Route>, RulesError> {
    let service = pool
        .get_service_by_name("inference.GRPCInferenceService")
        .ok_or_else(|| RulesError::Descriptors("they lack the inference service".to_owned()))?;
    PATHS
        .into_iter()
        .map(|(verb, path, name, shape)| {
            let method = service.methods().find(|method| method.name() == name);
            let method = method.ok_or_else(|| RulesError::Rule {
                method: name.to_owned(),
                problem: "there is no such method",
            })?;
            let route = Route {
                rpc: Arc::new(Rpc::new(method)?),
                method: if verb == "GET" {
                    Method::GET
                } else {
                    Method::POST
                },
                template: Template::parse(path).map_err(|source| RulesError::Template {
                    method: name.to_owned(),
                    source,
                })?,
                has_body: matches!(
                    name,
                    "ModelInfer"
                        | "RepositoryIndex"
                        | "RepositoryModelLoad"
                        | "RepositoryModelUnload"
                ),
                is_primary: !path.contains("{version}") && !path.contains("=bundles/"),
                dialect: Dialect::Inference(shape),
            };
            Ok(route)
        })
        .collect()
}

/// Which outputs are sent as bytes. Known once the request has been read.
#[derive(Debug, Default)]
pub struct Binary {
    /// Those that do not say.
    pub by_default: bool,
    /// The outputs that say for themselves, by name.
    pub outputs: HashMap<String, bool>,
}

/// The length of the JSON that a request of tensors begins with.
///
/// # Errors
/// A header that is no length.
pub fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Status> {
    let Some(value) = headers.get(HEADER_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| invalid(format!("{HEADER_LENGTH} is no length")))
}

fn invalid(problem: impl AsRef<str>) -> Status {
    status::error(Code::InvalidArgument, "FIELD_INVALID", problem)
}
