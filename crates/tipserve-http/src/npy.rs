//! NumPy's arrays (`np.save`) as bodies: each row is an embedding, and its floats
//! are on the wire as they are in the file.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tipserve_api::decode_cost;
use tonic::Status;

use crate::{call::Call, content::Picture, form::Batch, json::JsonError, json::wire};

/// What an array's file begins with.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// Memory that a row's message takes beside its floats: a stream's are all made
/// at once.
const ROW_BYTES: usize = 96;

/// Whether a method takes an array: embeddings, of which none needs a class.
pub fn is_taken(message: &MessageDescriptor) -> bool {
    let batch = Batch::of(message);
    batch.map_or(Picture::of(message).is_some(), |batch| !batch.has_classes())
}

/// The messages of a call whose body is an array: one with all rows, or one for
/// each of a streamed request, whose ids are the rows' numbers.
///
/// # Errors
/// A file that is no array of floats, or one that the method does not take.
pub fn messages(call: &Call, file: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Status> {
    let array = Array::read(file).map_err(|problem| JsonError::field("body", problem))?;
    let message = &call.rpc.input;
    if let Some(batch) = Batch::of(message) {
        let (rows, width) = (array.rows().len(), array.width);
        let most = limit
            .saturating_mul(4)
            .min(decode_cost::allowed(file.len()));
        if rows.saturating_mul(4 * width + ROW_BYTES) > most {
            let problem = format!("{rows} rows of {width} floats are too many at once: send fewer");
            return Err(JsonError::field("body", problem).into());
        }
        let row = |(at, row): (usize, _)| {
            let input = input_of(batch.input(), row)?;
            let put = |out: &mut Vec<u8>| out.extend_from_slice(&input);
            Some(batch.message(&at.to_string(), "", input.len(), put))
        };
        let own = call.has_fields().then(|| Some(call.fields()));
        let all = own.into_iter().chain(array.rows().enumerate().map(row));
        return all.collect::<Option<_>>().ok_or_else(not_taken);
    }
    let Picture { input, .. } = Picture::of(message).ok_or_else(not_taken)?;
    if !input.is_list() && array.rows().len() > 1 {
        let problem = "the method takes one row, and the array has more; classifyStream takes them";
        return Err(JsonError::field("body", problem).into());
    }
    let mut inputs = Vec::with_capacity(file.len());
    for row in array.rows() {
        let one = input_of(&input, row).ok_or_else(not_taken)?;
        wire::bytes(input.number(), &one, &mut inputs);
        if inputs.len() > limit {
            return Err(JsonError::TooLarge(limit).into());
        }
    }
    Ok(vec![call.around(&inputs)])
}

fn not_taken() -> Status {
    JsonError::field("body", "the method takes no array").into()
}

/// An `Input` that is an embedding of these floats.
fn input_of(input: &FieldDescriptor, floats: &[u8]) -> Option<Vec<u8>> {
    let field = |of: &FieldDescriptor, name| match of.kind() {
        Kind::Message(message) => message.get_field_by_name(name),
        _ => None,
    };
    let embedding = field(input, "embedding")?;
    let values = field(&embedding, "values")?;
    let mut out = Vec::with_capacity(floats.len() + 16);
    let Ok(()) = wire::delimited(embedding.number(), &mut out, |out| {
        wire::bytes(values.number(), floats, out);
        Ok::<(), std::convert::Infallible>(())
    });
    Some(out)
}

/// The rows of an array: little-endian floats of 32 bits, in C order.
struct Array<'a> {
    data: &'a [u8],
    width: usize,
}

impl<'a> Array<'a> {
    /// Reads the header, as NumPy writes it: a dictionary whose keys are sorted.
    fn read(file: &'a [u8]) -> Result<Array<'a>, String> {
        let broken = || "the array's header is not as np.save writes it".to_owned();
        let (length, rest) = match file.strip_prefix(MAGIC).ok_or_else(broken)? {
            [1, _, a, b, rest @ ..] => (u32::from_le_bytes([*a, *b, 0, 0]), rest),
            [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
            _ => return Err(broken()),
        };
        let (header, data) = rest.split_at_checked(length as usize).ok_or_else(broken)?;
        let header = str::from_utf8(header).map_err(|_| broken())?;
        let (kind, rest) = header.split_once(", 'shape': (").ok_or_else(broken)?;
        if kind != "{'descr': '<f4', 'fortran_order': False" {
            let problem = "save the array as 32-bit floats in C order: \
                           np.save(file, np.ascontiguousarray(array, '<f4'))";
            return Err(problem.to_owned());
        }
        let (shape, _) = rest.split_once(')').ok_or_else(broken)?;
        let sides = shape
            .split(',')
            .map(str::trim)
            .filter(|side| !side.is_empty());
        let sides: Option<Vec<usize>> = sides.map(|side| side.parse().ok()).collect();
        let (rows, width) = match sides.as_deref() {
            Some([width]) => (1, *width),
            Some([rows, width]) => (*rows, *width),
            _ => return Err(format!("the array's shape is ({shape}), not (rows, width)")),
        };
        let size = rows
            .checked_mul(width)
            .and_then(|count| count.checked_mul(4));
        match size == Some(data.len()) && !data.is_empty() {
            true => Ok(Array { data, width }),
            false => Err(format!(
                "{} bytes are no {rows} rows of {width}",
                data.len()
            )),
        }
    }

    fn rows(&self) -> std::slice::ChunksExact<'a, u8> {
        self.data.chunks_exact(4 * self.width)
    }
}
