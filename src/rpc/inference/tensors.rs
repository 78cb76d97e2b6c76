//! Tensors on the wire: a request's elements, and an answer's.
//!
//! Raw contents are little-endian and row by row; of BYTES each element is its
//! length in four bytes, then itself.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use half::{bf16, f16};

use super::parameters::no_shared_memory;
use crate::rpc::request::{RequestError, unit};
use tipserve_api::inference::{
    InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor,
};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Content, Crop, Source};

/// The input of encoded pictures.
pub const IMAGE: &str = "image";
/// The name of the input that takes embeddings.
pub const EMBEDDING: &str = "embedding";

/// Where a request has its tensors' elements, and its answer too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In `raw_input_contents`, all elements of a tensor in one buffer.
    Raw,
    /// In each tensor's `contents`, a repeated field.
    Typed,
}

/// The elements of one request, to be classified one by one.
#[derive(Debug)]
pub struct Batch {
    /// The input that they came in.
    pub input: &'static str,
    /// Each element, checked as far as can be without decoding it.
    pub contents: Vec<Content>,
    /// How they came, and how the answer goes.
    pub form: Form,
}

/// One input with its elements, raw or typed.
enum Elements {
    Raw(Bytes),
    Typed(InferTensorContents),
}

impl Batch {
    /// A request's elements, for a model whose embeddings have `width` values
    /// and whose version does so with EXIF orientation; at most `limit` of them
    /// (the setting `stream_window`).
    ///
    /// # Errors
    /// Whatever does not fit together, by its field.
    pub fn read(
        request: &mut ModelInferRequest,
        width: usize,
        exif_orientation: ExifOrientation,
        limit: usize,
    ) -> Result<Batch, RequestError> {
        let mut inputs = std::mem::take(&mut request.inputs);
        let raw = std::mem::take(&mut request.raw_input_contents);
        let form = form(&inputs, &raw)?;
        let (Some(mut input), None) = (inputs.pop(), inputs.pop()) else {
            return Err(match inputs.is_empty() && raw.is_empty() {
                true => RequestError::missing("inputs"),
                false => RequestError::invalid(
                    "inputs",
                    "image and embedding are alternatives: a request has one input",
                ),
            });
        };
        let elements = match raw.into_iter().next() {
            Some(raw) => Elements::Raw(raw),
            None => Elements::Typed(input.contents.take().unwrap_or_default()),
        };
        no_shared_memory(&input.parameters)?;
        let (input, contents) = match input.name.as_str() {
            IMAGE => (IMAGE, pictures(&input, elements, exif_orientation, limit)?),
            EMBEDDING => (EMBEDDING, embeddings(&input, elements, width, limit)?),
            other => {
                return Err(RequestError::invalid(
                    "inputs",
                    format!("there is no input {other:?}: the inputs are image and embedding"),
                ));
            }
        };
        Ok(Batch {
            input,
            contents,
            form,
        })
    }
}

/// The path of an element, for errors.
pub fn element(input: &str, index: usize) -> String {
    format!("inputs.{input}[{index}]")
}

fn form(inputs: &[InferInputTensor], raw: &[Bytes]) -> Result<Form, RequestError> {
    if raw.is_empty() {
        return Ok(Form::Typed);
    }
    let is_typed = |input: &InferInputTensor| {
        input
            .contents
            .as_ref()
            .is_some_and(|contents| *contents != InferTensorContents::default())
    };
    if let Some(input) = inputs.iter().find(|input| is_typed(input)) {
        return Err(RequestError::invalid(
            format!("inputs.{}.contents", input.name),
            "contents and raw_input_contents cannot be mixed",
        ));
    }
    if raw.len() != inputs.len() {
        return Err(RequestError::invalid(
            "raw_input_contents",
            format!(
                "it has {} entries for {} inputs; there must be one for each",
                raw.len(),
                inputs.len()
            ),
        ));
    }
    Ok(Form::Raw)
}

/// The number of elements, from the first dimension.
fn count(input: &InferInputTensor, limit: usize) -> Result<usize, RequestError> {
    let shape = format!("inputs.{}.shape", input.name);
    let first = input.shape.first().copied().unwrap_or_default();
    let count = usize::try_from(first)
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| {
            RequestError::invalid(
                &shape,
                format!("{:?} has no elements: sizes are from 1", input.shape),
            )
        })?;
    RequestError::check(&shape, "stream_window", limit, count)?;
    Ok(count)
}

fn datatype(input: &InferInputTensor, allowed: &str) -> RequestError {
    RequestError::invalid(
        format!("inputs.{}.datatype", input.name),
        format!("it is {:?}; it must be {allowed}", input.datatype),
    )
}

/// Elements that do not fill the shape.
fn misfit(input: &InferInputTensor, form: &str, problem: &str) -> RequestError {
    RequestError::invalid(
        format!("inputs.{}.{form}", input.name),
        format!("{problem}; its shape is {:?}", input.shape),
    )
}

fn pictures(
    input: &InferInputTensor,
    elements: Elements,
    exif_orientation: ExifOrientation,
    limit: usize,
) -> Result<Vec<Content>, RequestError> {
    if input.datatype != "BYTES" {
        return Err(datatype(input, "BYTES"));
    }
    let count = count(input, limit)?;
    if !matches!(input.shape.as_slice(), [_] | [_, 1]) {
        return Err(RequestError::invalid(
            "inputs.image.shape",
            format!("it is {:?}; it must be [N] or [N, 1]", input.shape),
        ));
    }
    let files = match elements {
        Elements::Raw(raw) => split(input, raw, count)?,
        Elements::Typed(contents) => contents.bytes_contents,
    };
    if files.len() != count {
        let problem = format!("it has {} elements", files.len());
        return Err(misfit(input, "contents.bytes_contents", &problem));
    }
    Ok(files
        .into_iter()
        .map(|file| Content::Picture {
            source: Source::File {
                bytes: file,
                exif_orientation,
            },
            crop: Crop::Centre,
        })
        .collect())
}

/// The elements of raw BYTES; they share its memory.
fn split(
    input: &InferInputTensor,
    mut raw: Bytes,
    count: usize,
) -> Result<Vec<Bytes>, RequestError> {
    let mut elements = Vec::with_capacity(count);
    for index in 0..count {
        let length = raw.try_get_u32_le().ok().map(|length| length as usize);
        match length.filter(|length| *length <= raw.len()) {
            Some(length) => elements.push(raw.split_to(length)),
            None => {
                let problem = format!("it ends within element {index}");
                return Err(misfit(input, "raw_input_contents", &problem));
            }
        }
    }
    if !raw.is_empty() {
        let problem = format!("it has {} bytes after its last element", raw.len());
        return Err(misfit(input, "raw_input_contents", &problem));
    }
    Ok(elements)
}

fn embeddings(
    input: &InferInputTensor,
    elements: Elements,
    width: usize,
    limit: usize,
) -> Result<Vec<Content>, RequestError> {
    let count = count(input, limit)?;
    if !matches!(input.shape.as_slice(), [_, columns] if usize::try_from(*columns) == Ok(width)) {
        return Err(RequestError::invalid(
            "inputs.embedding.shape",
            format!(
                "it is {:?}; it must be [N, {width}], {width} being the bundle's width",
                input.shape
            ),
        ));
    }
    let values = match elements {
        Elements::Raw(raw) => floats(input, &raw, count * width)?,
        Elements::Typed(contents) if input.datatype == "FP32" => contents.fp32_contents,
        Elements::Typed(_) => return Err(datatype(input, "FP32, or raw FP16 or BF16")),
    };
    if values.len() != count * width {
        let problem = format!("it has {} values", values.len());
        return Err(misfit(input, "contents.fp32_contents", &problem));
    }
    values
        .chunks_exact(width)
        .enumerate()
        .map(|(index, row)| {
            unit(&element(EMBEDDING, index), row.to_vec(), width).map(Content::Embedding)
        })
        .collect()
}

fn floats(input: &InferInputTensor, raw: &[u8], count: usize) -> Result<Vec<f32>, RequestError> {
    let size = match input.datatype.as_str() {
        "FP32" => 4,
        "FP16" | "BF16" => 2,
        _ => return Err(datatype(input, "FP32, FP16 or BF16")),
    };
    if raw.len() != count * size {
        let problem = format!("it has {} bytes, not {}", raw.len(), count * size);
        return Err(misfit(input, "raw_input_contents", &problem));
    }
    let (words, _) = raw.as_chunks::<4>();
    let (halves, _) = raw.as_chunks::<2>();
    Ok(match input.datatype.as_str() {
        "FP32" => words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        "FP16" => halves
            .iter()
            .map(|half| f16::from_le_bytes(*half).to_f32())
            .collect(),
        _ => halves
            .iter()
            .map(|half| bf16::from_le_bytes(*half).to_f32())
            .collect(),
    })
}

/// The values of one output tensor.
pub enum Values {
    /// Values of FP32, row by row.
    Floats(Vec<f32>),
    /// Values of BYTES, UTF-8 texts.
    Texts(Vec<String>),
    /// BOOL, one byte for each element.
    Flags(Vec<bool>),
}

impl Values {
    /// Bytes that the values take on the wire.
    pub fn bytes(&self) -> usize {
        match self {
            Values::Floats(values) => values.len() * size_of::<f32>(),
            Values::Texts(texts) => texts.iter().map(|text| size_of::<u32>() + text.len()).sum(),
            Values::Flags(flags) => flags.len(),
        }
    }

    /// Their tensor, and their raw contents where they are sent so.
    pub fn tensor(
        self,
        name: &str,
        shape: &[usize],
        form: Form,
    ) -> (InferOutputTensor, Option<Bytes>) {
        let mut tensor = InferOutputTensor {
            name: name.to_owned(),
            datatype: match self {
                Values::Floats(_) => "FP32",
                Values::Texts(_) => "BYTES",
                Values::Flags(_) => "BOOL",
            }
            .to_owned(),
            shape: shape
                .iter()
                .map(|size| i64::try_from(*size).unwrap_or(i64::MAX))
                .collect(),
            ..InferOutputTensor::default()
        };
        if form == Form::Raw {
            return (tensor, Some(self.raw()));
        }
        let mut contents = InferTensorContents::default();
        match self {
            Values::Floats(values) => contents.fp32_contents = values,
            Values::Texts(texts) => {
                contents.bytes_contents = texts.into_iter().map(Bytes::from).collect();
            }
            Values::Flags(flags) => contents.bool_contents = flags,
        }
        tensor.contents = Some(contents);
        (tensor, None)
    }

    fn raw(self) -> Bytes {
        let mut raw = BytesMut::with_capacity(self.bytes());
        match self {
            Values::Floats(values) => {
                for value in values {
                    raw.put_f32_le(value);
                }
            }
            Values::Texts(texts) => {
                for text in texts {
                    // A class's name is far shorter.
                    raw.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
                    raw.put_slice(text.as_bytes());
                }
            }
            Values::Flags(flags) => raw.extend(flags.into_iter().map(u8::from)),
        }
        raw.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(shape: &[i64], raw: &[u8]) -> Result<Batch, RequestError> {
        let mut request = ModelInferRequest {
            inputs: vec![InferInputTensor {
                name: IMAGE.to_owned(),
                datatype: "BYTES".to_owned(),
                shape: shape.to_vec(),
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![Bytes::copy_from_slice(raw)],
            ..ModelInferRequest::default()
        };
        Batch::read(&mut request, 2, ExifOrientation::Apply, 3)
    }

    #[test]
    fn raw_bytes_are_split_and_nothing_may_be_left() {
        let raw = Values::Texts(vec!["ab".to_owned(), String::new()]).raw();
        assert_eq!(raw.as_ref(), b"\x02\0\0\0ab\0\0\0\0");
        assert_eq!(image(&[2], &raw).expect("two").contents.len(), 2);
        assert_eq!(image(&[2, 1], &raw).expect("two").contents.len(), 2);
        for (shape, words) in [
            (&[1][..], "4 bytes after its last element"),
            (&[3], "it ends within element 2"),
            (&[4], "over the server's limit stream_window = 3"),
            (&[0], "has no elements"),
            (&[-1], "has no elements"),
            (&[], "has no elements"),
            (&[1, 2], "must be [N] or [N, 1]"),
        ] {
            let error = image(shape, &raw).expect_err("refused").to_string();
            assert!(error.contains(words), "{shape:?}: {error}");
        }
        // A length that no message has.
        assert!(image(&[1], b"\xff\xff\xff\xffa").is_err());
    }

    #[test]
    fn half_precision_is_read_raw() {
        let mut input = InferInputTensor {
            name: EMBEDDING.to_owned(),
            datatype: "FP16".to_owned(),
            shape: vec![1, 2],
            ..InferInputTensor::default()
        };
        let raw = [f16::from_f32(1.5), f16::from_f32(-2.0)]
            .map(f16::to_le_bytes)
            .concat();
        assert_eq!(floats(&input, &raw, 2).expect("two"), [1.5, -2.0]);
        input.datatype = "BF16".to_owned();
        let raw = [bf16::from_f32(1.5), bf16::from_f32(-2.0)]
            .map(bf16::to_le_bytes)
            .concat();
        assert_eq!(floats(&input, &raw, 2).expect("two"), [1.5, -2.0]);
        input.datatype = "INT8".to_owned();
        assert!(floats(&input, &raw, 2).is_err());
    }
}
