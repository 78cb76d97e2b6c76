//! Client streams that begin with a configuration and go on with items: what
//! ClassifyStream, Evaluate and SuggestExamples read.

use std::time::Instant;

use tonic::Streaming;

use super::{
    Context,
    error::ApiError,
    request::{RequestError, until},
};
use tipserve_api::v1 as pb;

/// A message of such a stream.
pub(super) trait ConfigThenItems: Send + 'static {
    /// What the first message carries.
    type Config;
    /// What every later message carries several of.
    type Item;

    /// The error if the first message carries items.
    const CONFIG_FIRST: &'static str;
    /// The error if a later message does not.
    const ITEMS_AFTER: &'static str;

    /// What the message carries; none if it is empty.
    fn part(self) -> Option<Part<Self::Config, Self::Item>>;
}

/// The content of one message: configuration or items.
pub(super) enum Part<C, I> {
    Config(C),
    Items(Vec<I>),
}

/// Reads the configuration, the first message of a stream.
///
/// # Errors
/// A first message that is missing, empty or carries items; the transport's.
pub(super) async fn config<M: ConfigThenItems>(
    incoming: &mut Streaming<M>,
) -> Result<M::Config, ApiError> {
    let message = incoming.message().await;
    let message = message.map_err(|status| ApiError::from_status(&status))?;
    match message.and_then(M::part) {
        Some(Part::Config(config)) => Ok(config),
        Some(Part::Items(_)) => Err(RequestError::Order {
            problem: M::CONFIG_FIRST,
        }
        .into()),
        None => Err(RequestError::missing("config").into()),
    }
}

/// Reads the items of the next message; none at the stream's end.
///
/// # Errors
/// A message without items; the transport's: a message over the size limit, or
/// a client that reset the stream.
pub(super) async fn items<M: ConfigThenItems>(
    incoming: &mut Streaming<M>,
) -> Result<Option<Vec<M::Item>>, ApiError> {
    let message = incoming.message().await;
    let Some(message) = message.map_err(|status| ApiError::from_status(&status))? else {
        return Ok(None);
    };
    match message.part() {
        Some(Part::Items(items)) => Ok(Some(items)),
        Some(Part::Config(_)) | None => Err(RequestError::Order {
            problem: M::ITEMS_AFTER,
        }
        .into()),
    }
}

/// The outcome of a call's work, unless its deadline or a shutdown comes first:
/// the work is then dropped, and what it began is cancelled with it.
pub(super) async fn within<T>(
    context: &Context,
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::select! {
        outcome = work => outcome,
        () = until(deadline) => Err(RequestError::DeadlineExceeded.into()),
        () = context.shutdown.cancelled() => Err(ApiError::shutting_down()),
    }
}

/// A message whose `oneof payload` is either `config` or `items`.
macro_rules! config_then_items {
    ($message:ident, $payload:ident, $config:ident, $item:ident, $rpc:literal) => {
        impl ConfigThenItems for pb::$message {
            type Config = pb::$config;
            type Item = pb::$item;

            const CONFIG_FIRST: &'static str = concat!(
                "the first message of ",
                $rpc,
                " must be its config, not items"
            );
            const ITEMS_AFTER: &'static str =
                concat!("every message of ", $rpc, " but the first must carry items");

            fn part(self) -> Option<Part<pb::$config, pb::$item>> {
                Some(match self.payload? {
                    pb::$payload::Payload::Config(config) => Part::Config(config),
                    pb::$payload::Payload::Items(batch) => Part::Items(batch.items),
                })
            }
        }
    };
}

config_then_items!(
    ClassifyStreamRequest,
    classify_stream_request,
    ClassifyStreamConfig,
    Item,
    "ClassifyStream"
);
config_then_items!(
    EvaluateRequest,
    evaluate_request,
    EvaluateConfig,
    LabelledItem,
    "Evaluate"
);
config_then_items!(
    SuggestExamplesRequest,
    suggest_examples_request,
    SuggestExamplesConfig,
    UnlabelledItem,
    "SuggestExamples"
);
