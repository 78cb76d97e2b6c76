//! A request of tensors: JSON, and the bytes that may follow it.

use std::{collections::HashMap, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tipserve_api::inference::{
    InferParameter, ModelInferRequest,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use tonic::Status;

use super::{Binary, invalid};
use crate::json::{self, JsonError, Reader, without_mark};

/// Most inputs, outputs and parameters of one thing: the models have two of the
/// first and four of the second.
const MOST: usize = 64;

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(deserialize_with = "few")]
    inputs: Vec<Input>,
    #[serde(default, deserialize_with = "few")]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    datatype: String,
    #[serde(deserialize_with = "few")]
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// A request's JSON.
///
/// # Errors
/// What is no JSON, or not of this form.
pub(super) fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, JsonError> {
    serde_json::from_slice(without_mark(json)).map_err(|error| match error.is_data() {
        true => JsonError::field("body", error.to_string()),
        false => JsonError::Syntax(error.to_string()),
    })
}

/// A list of at most as many elements as a request may have.
fn few<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Few<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(one) = list.next_element()? {
                if read.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                read.push(one);
            }
            Ok(read)
        }
    }
    deserializer.deserialize_seq(Few(std::marker::PhantomData))
}

/// Parameters by name, at most as many as a request may have.
#[derive(Default)]
pub(super) struct Parameters(pub(super) HashMap<String, InferParameter>);

impl Parameters {
    fn flag(&mut self, name: &str) -> Result<Option<bool>, Status> {
        match self
            .0
            .remove(name)
            .map(|parameter| parameter.parameter_choice)
        {
            None => Ok(None),
            Some(Some(ParameterChoice::BoolParam(flag))) => Ok(Some(flag)),
            Some(_) => Err(invalid(format!("{name} is neither true nor false"))),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<usize>, Status> {
        let wrong = || invalid(format!("{name} is no size"));
        match self
            .0
            .remove(name)
            .map(|parameter| parameter.parameter_choice)
        {
            None => Ok(None),
            Some(Some(ParameterChoice::Int64Param(number))) => {
                usize::try_from(number).map(Some).map_err(|_| wrong())
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MOST} parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut read = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if read.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    let parameter_choice = Some(value.0);
                    read.insert(name, InferParameter { parameter_choice });
                }
                Ok(Parameters(read))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// A parameter's value: a bool, a number or a text.
struct Value(ParameterChoice);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a text, true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value(ParameterChoice::BoolParam(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value(ParameterChoice::Int64Param(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value(match i64::try_from(value) {
                    Ok(value) => ParameterChoice::Int64Param(value),
                    Err(_) => ParameterChoice::Uint64Param(value),
                }))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value(ParameterChoice::DoubleParam(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value(ParameterChoice::StringParam(value.to_owned())))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A tensor's values, flat or nested, as the bytes that they have on the wire:
/// numbers as FP32, texts with their length before them.
#[derive(Default)]
struct Data {
    bytes: BytesMut,
    numbers: bool,
    texts: bool,
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        // Serde would read numbers as floats of 64 bits, and those rounded again are not
        // always the nearest of 32.
        let text = <&RawValue>::deserialize(deserializer)?;
        let mut reader = Reader::new(text.get().as_bytes());
        let mut data = Data::default();
        match reader.value() {
            Ok(json::Value::List) => data.read(&mut reader).map_err(D::Error::custom)?,
            _ => return Err(D::Error::custom("data: expected a list")),
        }
        Ok(data)
    }
}

impl Data {
    /// Reads values into the tensor, lists of them in their order.
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        let wrong = |problem| Err(JsonError::field("data", problem));
        let mut first = true;
        while reader.element(first)? {
            first = false;
            if let Some((value, length)) = json::read_float(reader.rest()) {
                self.numbers = true;
                self.bytes.put_f32_le(value);
                reader.advance(length);
                continue;
            }
            match reader.value()? {
                json::Value::List => self.read(reader)?,
                json::Value::Text(text) => self.file(&text)?,
                json::Value::Number(_) => return wrong("a number is too large"),
                _ => return wrong("expected numbers, or pictures in base64"),
            }
        }
        Ok(())
    }

    /// JSON has no bytes, and a picture's file is never a text.
    fn file(&mut self, text: &str) -> Result<(), JsonError> {
        let wrong = |_| JsonError::field("data", "a text is not a picture's file in base64");
        let file = BASE64_STANDARD.decode(text).map_err(wrong)?;
        self.texts = true;
        let length = u32::try_from(file.len());
        let length = length.map_err(|_| JsonError::field("data", "a picture is too large"))?;
        self.bytes.put_u32_le(length);
        self.bytes.put_slice(&file);
        Ok(())
    }
}

/// The message that a request of tensors is, but for the model's name, and which outputs it wants as
/// bytes.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &Bytes, header_length: Option<usize>) -> Result<(Vec<u8>, Binary), Status> {
    let length = header_length.unwrap_or(body.len());
    if length > body.len() {
        let have = body.len();
        return Err(invalid(format!(
            "{} is {length}, but the body has {have} bytes",
            super::HEADER_LENGTH
        )));
    }
    let mut tensors = body.slice(length..);
    let json = body.slice(..length);
    let request: Request = from_json(&json)?;
    let mut parameters = request.parameters;
    let mut binary = Binary {
        by_default: parameters.flag("binary_data_output")?.unwrap_or(false),
        outputs: HashMap::new(),
    };
    let mut message = ModelInferRequest {
        id: request.id,
        ..ModelInferRequest::default()
    };
    for mut input in request.inputs {
        let raw = contents(&mut input, &mut tensors)?;
        message.raw_input_contents.push(raw);
        message.inputs.push(InferInputTensor {
            name: input.name,
            datatype: input.datatype,
            shape: input.shape,
            parameters: input.parameters.0,
            contents: None,
        });
    }
    if !tensors.is_empty() {
        let left = tensors.len();
        return Err(invalid(format!("{left} bytes follow the last tensor")));
    }
    for mut output in request.outputs {
        if let Some(flag) = output.parameters.flag("binary_data")? {
            binary.outputs.insert(output.name.clone(), flag);
        }
        message.outputs.push(InferRequestedOutputTensor {
            name: output.name,
            parameters: output.parameters.0,
        });
    }
    message.parameters = parameters.0;
    Ok((message.encode_to_vec(), binary))
}

/// The bytes of one input: from its JSON, or the next of those that follow.
fn contents(input: &mut Input, tensors: &mut Bytes) -> Result<Bytes, Status> {
    let name = &input.name;
    let size = input.parameters.number("binary_data_size")?;
    match (size, input.data.take()) {
        (Some(size), None) if size <= tensors.len() => Ok(tensors.split_to(size)),
        (Some(size), None) => {
            let left = tensors.len();
            Err(invalid(format!(
                "inputs.{name} has binary_data_size {size}, but {left} bytes are left"
            )))
        }
        (None, Some(data)) => {
            let fits = match input.datatype.as_str() {
                "BYTES" => !data.numbers,
                "FP32" => !data.texts,
                _ => {
                    return Err(invalid(format!(
                        "inputs.{name}: in JSON the datatype is FP32 or BYTES"
                    )));
                }
            };
            match fits {
                true => Ok(data.bytes.freeze()),
                false => Err(invalid(format!(
                    "inputs.{name}: its data are not of its datatype"
                ))),
            }
        }
        (Some(_), Some(_)) => Err(invalid(format!(
            "inputs.{name} has both data and binary_data_size"
        ))),
        (None, None) => Err(invalid(format!("inputs.{name} has no data"))),
    }
}
