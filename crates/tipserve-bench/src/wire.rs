//! ClassifyStream's and Classify's messages, as cheap as a load generator
//! needs them: inputs are encoded once and sent many times, and of an answer
//! only what is counted is decoded. The bytes are those of `proto/`.

use bytes::Bytes;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use tipserve_api::v1::{ClassifyOptions, ClassifyStreamConfig, Input, Timings};
use tipserve_cli::credentials::AuthChannel;

const CLASSIFY_STREAM: &str = "/tipserve.v1.ClassifyService/ClassifyStream";
const CLASSIFY: &str = "/tipserve.v1.ClassifyService/Classify";

/// `ClassifyStreamRequest`: one of the two is set.
#[derive(Clone, PartialEq, Message)]
pub struct StreamRequest {
    #[prost(message, optional, tag = "1")]
    pub config: Option<ClassifyStreamConfig>,
    #[prost(message, optional, tag = "2")]
    pub items: Option<Items>,
}

/// `ItemBatch`, its inputs encoded once and shared by all messages.
#[derive(Clone, PartialEq, Message)]
pub struct Items {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<Item>,
}

/// `Item`, without an id: the answer's `sequence` says which it is.
#[derive(Clone, PartialEq, Message)]
pub struct Item {
    /// An `Input` that was encoded before the load began.
    #[prost(bytes = "bytes", tag = "2")]
    pub input: Bytes,
    #[prost(message, optional, tag = "3")]
    pub time_limit: Option<prost_types::Duration>,
}

/// `ClassifyStreamResponse`, of which sequence numbers, errors and times are decoded.
#[derive(Clone, PartialEq, Message)]
pub struct StreamResponse {
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<ItemResult>,
}

/// `ItemResult` without its top classes, which a load does not read.
#[derive(Clone, PartialEq, Message)]
pub struct ItemResult {
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(message, optional, tag = "3")]
    pub classification: Option<Answer>,
    #[prost(message, optional, tag = "4")]
    pub error: Option<tonic_types::Status>,
}

/// `Classification`, of which only the stage times are decoded.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    #[prost(message, optional, tag = "7")]
    pub timings: Option<Timings>,
}

/// `ClassifyRequest`, its input encoded once.
#[derive(Clone, PartialEq, Message)]
pub struct UnaryRequest {
    #[prost(string, tag = "1")]
    pub cache: String,
    /// An `Input` that was encoded before the load began.
    #[prost(bytes = "bytes", tag = "2")]
    pub input: Bytes,
    #[prost(message, optional, tag = "3")]
    pub options: Option<ClassifyOptions>,
    #[prost(int32, tag = "4")]
    pub priority: i32,
}

/// `ClassifyResponse`, of which only the stage times are decoded.
#[derive(Clone, PartialEq, Message)]
pub struct UnaryResponse {
    #[prost(message, optional, tag = "1")]
    pub classification: Option<Answer>,
}

/// An input as its bytes.
pub fn encode(input: &Input) -> Bytes {
    input.encode_to_vec().into()
}

/// Opens a stream; returns once the server has taken its configuration.
pub async fn open<S>(
    channel: AuthChannel,
    requests: S,
) -> Result<tonic::Streaming<StreamResponse>, tonic::Status>
where
    S: futures::Stream<Item = StreamRequest> + Send + 'static,
{
    let mut client = ready(channel).await?;
    let codec = ProstCodec::<StreamRequest, StreamResponse>::default();
    let path = PathAndQuery::from_static(CLASSIFY_STREAM);
    let answers = client
        .streaming(tonic::Request::new(requests), path, codec)
        .await?;
    Ok(answers.into_inner())
}

/// One unary Classify call; gives the server's stage times if it sent any.
pub async fn classify(
    channel: AuthChannel,
    request: tonic::Request<UnaryRequest>,
) -> Result<UnaryResponse, tonic::Status> {
    let mut client = ready(channel).await?;
    let codec = ProstCodec::<UnaryRequest, UnaryResponse>::default();
    let path = PathAndQuery::from_static(CLASSIFY);
    Ok(client.unary(request, path, codec).await?.into_inner())
}

async fn ready(channel: AuthChannel) -> Result<tonic::client::Grpc<AuthChannel>, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
    client
        .ready()
        .await
        .map_err(|error| tonic::Status::from_error(Box::new(error)))?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipserve_api::v1::{self, input::Content};

    fn input() -> Input {
        Input {
            content: Some(Content::Embedding(v1::Embedding {
                values: vec![0.5, -1.0],
            })),
        }
    }

    #[test]
    fn requests_are_those_of_the_api() {
        let time_limit = Some(prost_types::Duration {
            seconds: 1,
            nanos: 5,
        });
        let lean = StreamRequest {
            config: None,
            items: Some(Items {
                items: vec![
                    Item {
                        input: encode(&input()),
                        time_limit,
                    };
                    3
                ],
            }),
        };
        let full = v1::ClassifyStreamRequest {
            payload: Some(v1::classify_stream_request::Payload::Items(v1::ItemBatch {
                items: vec![
                    v1::Item {
                        id: String::new(),
                        input: Some(input()),
                        time_limit,
                    };
                    3
                ],
            })),
        };
        assert_eq!(lean.encode_to_vec(), full.encode_to_vec());

        let config = v1::ClassifyStreamConfig {
            cache: "c".into(),
            ..Default::default()
        };
        let lean = StreamRequest {
            config: Some(config.clone()),
            items: None,
        };
        let full = v1::ClassifyStreamRequest {
            payload: Some(v1::classify_stream_request::Payload::Config(config)),
        };
        assert_eq!(lean.encode_to_vec(), full.encode_to_vec());

        let options = Some(ClassifyOptions {
            top_k: 3,
            ..Default::default()
        });
        let lean = UnaryRequest {
            cache: "c@2".into(),
            input: encode(&input()),
            options,
            priority: 2,
        };
        let full = v1::ClassifyRequest {
            cache: "c@2".into(),
            input: Some(input()),
            options,
            priority: 2,
        };
        assert_eq!(lean.encode_to_vec(), full.encode_to_vec());
    }

    #[test]
    fn answers_are_those_of_the_api() {
        let timings = Some(Timings {
            batch_size: 7,
            ..Default::default()
        });
        let error = tonic_types::Status {
            code: 8,
            message: "full".into(),
            details: Vec::new(),
        };
        let full = v1::ClassifyStreamResponse {
            results: vec![
                v1::ItemResult {
                    id: "x".into(),
                    sequence: 9,
                    outcome: Some(v1::item_result::Outcome::Classification(
                        v1::Classification {
                            version: "caches/c/versions/1".into(),
                            top: vec![v1::ClassScore::default(); 2],
                            timings,
                            ..Default::default()
                        },
                    )),
                },
                v1::ItemResult {
                    id: "y".into(),
                    sequence: 10,
                    outcome: Some(v1::item_result::Outcome::Error(error.clone())),
                },
            ],
        };
        let lean = StreamResponse::decode(full.encode_to_vec().as_slice()).unwrap();
        assert_eq!(
            lean.results,
            [
                ItemResult {
                    sequence: 9,
                    classification: Some(Answer { timings }),
                    error: None,
                },
                ItemResult {
                    sequence: 10,
                    classification: None,
                    error: Some(error),
                },
            ]
        );
    }
}
