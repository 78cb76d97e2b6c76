//! Answers of the Open Inference Protocol.

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Response, StatusCode, header};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Map, Number, Value, json};
use tipserve_api::inference::{
    InferParameter, ModelInferResponse, infer_parameter::ParameterChoice,
};
use tonic::{Status, body::Body};

use super::{Binary, HEADER_LENGTH};
use crate::{
    dialect::Shape,
    json::{self, Style},
    response::{self, full},
    status::describe,
};

/// An answer that is no tensors.
///
/// # Errors
/// If the bytes are not such a message: a defect.
pub fn plain(
    output: &MessageDescriptor,
    message: &[u8],
    shape: Shape,
) -> Result<Response<Body>, String> {
    if shape == Shape::Truth {
        let answer = DynamicMessage::decode(output.clone(), message).map_err(|e| e.to_string())?;
        let flag = answer.get_field_by_number(1);
        let is_true = flag.and_then(|flag| flag.as_bool()).unwrap_or(false);
        let mut response = full(Bytes::new());
        if !is_true {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        return Ok(response);
    }
    let mut out = Vec::new();
    json::render(output, message, Style::Plain, &mut out)?;
    if let Shape::Field(name) = shape {
        let mut whole: Value = serde_json::from_slice(&out).map_err(|e| e.to_string())?;
        let field = whole.get_mut(name).map(Value::take);
        out = field.unwrap_or(Value::Null).to_string().into_bytes();
    }
    Ok(response::json(out))
}

/// An error, as the protocol has it.
pub fn error(status: &Status) -> Response<Body> {
    let body = json!({"error": status.message()});
    let mut response = response::json(body.to_string().into_bytes());
    describe(status, &mut response);
    response
}

/// An answer of tensors: JSON, and after it the bytes of those that are wanted
/// so.
///
/// # Errors
/// If the bytes are not such a message: a defect.
pub fn infer(message: &[u8], binary: &Binary) -> Result<Response<Body>, String> {
    let message = ModelInferResponse::decode(message).map_err(|e| e.to_string())?;
    let mut tensors: Vec<Bytes> = Vec::new();
    let mut outputs = Vec::new();
    for (output, raw) in message.outputs.iter().zip(message.raw_output_contents) {
        let mut shown = Map::new();
        shown.insert("name".to_owned(), output.name.as_str().into());
        shown.insert("datatype".to_owned(), output.datatype.as_str().into());
        shown.insert("shape".to_owned(), output.shape.clone().into());
        let mut parameters = parameters(&output.parameters);
        let wanted = binary.outputs.get(&output.name);
        if *wanted.unwrap_or(&binary.by_default) {
            parameters.insert("binary_data_size".to_owned(), raw.len().into());
            tensors.push(raw);
        } else {
            shown.insert("data".to_owned(), values(&output.datatype, raw)?);
        }
        if !parameters.is_empty() {
            shown.insert("parameters".to_owned(), parameters.into());
        }
        outputs.push(Value::Object(shown));
    }
    let mut whole = Map::new();
    whole.insert("model_name".to_owned(), message.model_name.into());
    whole.insert("model_version".to_owned(), message.model_version.into());
    if !message.id.is_empty() {
        whole.insert("id".to_owned(), message.id.into());
    }
    let all = parameters(&message.parameters);
    if !all.is_empty() {
        whole.insert("parameters".to_owned(), all.into());
    }
    whole.insert("outputs".to_owned(), outputs.into());
    let header = Value::Object(whole).to_string().into_bytes();
    if tensors.is_empty() {
        return Ok(response::json(header));
    }
    let length = header.len();
    let mut body = header;
    for tensor in &tensors {
        body.extend_from_slice(tensor);
    }
    let mut response = full(body.into());
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(HEADER_LENGTH, length.into());
    Ok(response)
}

fn parameters(of: &std::collections::HashMap<String, InferParameter>) -> Map<String, Value> {
    of.iter()
        .filter_map(|(name, parameter)| {
            let value = match parameter.parameter_choice.as_ref()? {
                ParameterChoice::BoolParam(value) => Value::from(*value),
                ParameterChoice::Int64Param(value) => Value::from(*value),
                ParameterChoice::Uint64Param(value) => Value::from(*value),
                ParameterChoice::DoubleParam(value) => Value::from(*value),
                ParameterChoice::StringParam(value) => Value::from(value.as_str()),
            };
            Some((name.clone(), value))
        })
        .collect()
}

/// A tensor's values from their little-endian bytes, as one flat list.
fn values(datatype: &str, mut raw: Bytes) -> Result<Value, String> {
    let mut values = Vec::new();
    match datatype {
        "FP32" => {
            while raw.remaining() >= 4 {
                let value = raw.get_f32_le();
                // In the fewest digits that read back to the same number.
                let text = value.to_string().parse::<f64>().unwrap_or(f64::NAN);
                values.push(Number::from_f64(text).map_or(Value::Null, Value::Number));
            }
        }
        "BOOL" => values.extend(raw.iter().map(|value| Value::from(*value != 0))),
        "BYTES" => {
            while raw.remaining() >= 4 {
                let length = raw.get_u32_le() as usize;
                if length > raw.len() {
                    return Err("a text is not whole".to_owned());
                }
                let text = raw.split_to(length);
                values.push(String::from_utf8_lossy(&text).into_owned().into());
            }
        }
        other => return Err(format!("{other} is no datatype of an output")),
    }
    Ok(values.into())
}
