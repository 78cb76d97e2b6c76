//! The body of a load or an unload: parameters by name, with plain values, as
//! Triton's clients send them.

use prost::Message as _;
use serde::Deserialize;
use tipserve_api::inference::{
    InferParameter, ModelRepositoryParameter, RepositoryModelLoadRequest,
    infer_parameter::ParameterChoice, model_repository_parameter::ParameterChoice as Choice,
};
use tonic::Status;

use super::{
    invalid,
    request::{Parameters, from_json},
};

#[derive(Default, Deserialize)]
struct Request {
    #[serde(default)]
    parameters: Parameters,
}

/// The parameters as a request's message; loads and unloads have the same
/// fields.
///
/// # Errors
/// What is not JSON, or has a parameter of another kind.
pub fn read_parameters(body: &[u8]) -> Result<Vec<u8>, Status> {
    let request = match body.trim_ascii() {
        [] => Request::default(),
        json => from_json::<Request>(json)?,
    };
    let mut message = RepositoryModelLoadRequest::default();
    for (name, InferParameter { parameter_choice }) in request.parameters.0 {
        let choice = match parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Choice::BoolParam(value),
            Some(ParameterChoice::Int64Param(value)) => Choice::Int64Param(value),
            Some(ParameterChoice::StringParam(value)) => Choice::StringParam(value),
            _ => {
                let problem = format!("{name} is neither a whole number nor text, true or false");
                return Err(invalid(problem));
            }
        };
        let parameter = ModelRepositoryParameter {
            parameter_choice: Some(choice),
        };
        message.parameters.insert(name, parameter);
    }
    Ok(message.encode_to_vec())
}
