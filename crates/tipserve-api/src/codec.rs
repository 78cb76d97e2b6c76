//! The codec of every service: prost's, behind a bound on what decoding may
//! allocate.

use std::marker::PhantomData;

use prost::{Message, Name};
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::decode_cost::{self, CostError, Excess};

/// prost's codec, which refuses messages that would take far more memory than
/// they have bytes (see [`decode_cost`]) before it decodes them.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes `U` within the bound.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use bytes::Buf as _;
        // tonic hands over one whole message in one piece. Answers are a
        // server's, whom its client trusts.
        let checked = match U::NAME.ends_with("Request") {
            true => decode_cost::check(&U::full_name(), buffer.chunk()),
            false => Ok(()),
        };
        match checked {
            Ok(()) => {}
            Err(CostError::TooManyElements(cost)) => {
                return Err(too_many_elements(cost));
            }
            // prost says what is wrong with it.
            Err(CostError::Malformed) => {}
        }
        let message = U::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }
}

fn too_many_elements(excess: Excess) -> Status {
    let metadata = [
        ("limit".to_owned(), "max_decoded_bytes".to_owned()),
        (
            "maximum".to_owned(),
            decode_cost::allowed(excess.wire).to_string(),
        ),
    ];
    let details = ErrorDetails::with_error_info("MESSAGE_TOO_LARGE", "tipserve", metadata);
    Status::with_error_details(Code::OutOfRange, excess.to_string(), details)
}
