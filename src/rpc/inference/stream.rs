//! `ModelStreamInfer`: many requests on one stream, answered in their order.
//!
//! A reader takes requests no faster than the stream's window and the engine's
//! admission allow: it reads the next one when all elements of the last have
//! been admitted. A writer answers them. As in Triton a request that fails has
//! its error in its response, or ends the stream with it where the call's
//! metadata has `triton_grpc_error: true`.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    infer::{self, Client, Started},
    statistics::Statistics,
};
use crate::{
    auth::Caller,
    rpc::{
        Context,
        error::ApiError,
        flow_of_stream,
        observe::Call,
        request::{self, RequestError, until},
        unread::{Counted, CountedStream, Reader, UnreadBytes, counted},
    },
};
use tipserve_api::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
    infer_parameter::ParameterChoice,
};

/// The answers of a stream.
pub type Answers = CountedStream<ModelStreamInferResponse>;

/// Says in an answer that no other follows it.
const FINAL_RESPONSE: &str = "triton_final_response";
/// Asks in a call's metadata for errors as gRPC's own.
const GRPC_ERROR: &str = "triton_grpc_error";

/// A request on its way to the writer.
enum Pending {
    Started {
        started: Box<Started>,
        /// What its outcomes are counted with until the answer is made.
        bytes: UnreadBytes,
    },
    Refused {
        id: String,
        model: String,
        problem: ApiError,
        /// Even what is refused at once is not read without bound.
        _place: Option<OwnedSemaphorePermit>,
    },
}

/// Serves one stream, its requests answered in their order.
pub fn serve(
    context: Arc<Context>,
    statistics: Arc<Statistics>,
    request: Request<Streaming<ModelInferRequest>>,
    call: Call,
) -> Result<Response<Answers>, ApiError> {
    let metadata = request.metadata();
    let client = Reader::of(request.extensions())?;
    let deadline = request::deadline(metadata, Instant::now());
    let grpc_errors = metadata
        .get(GRPC_ERROR)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let (pending, started) = mpsc::unbounded_channel();
    let (answers, response) = mpsc::channel(4);
    let window = Arc::new(Semaphore::new(context.limits.stream_window));
    let caller = Caller::of(request.extensions());
    let reader = Requests {
        reader: client.clone(),
        client: Client {
            flow: flow_of_stream(&caller),
            caller,
            deadline,
            window: Some(Arc::clone(&window)),
            space: None,
        },
        window,
        context,
        statistics,
        pending,
    };
    let incoming = request.into_inner();
    tokio::spawn(async move {
        let reading = tokio::spawn(reader.run(incoming));
        let stop = reading.abort_handle();
        let last = tokio::select! {
            written = write(started, &client, &answers, grpc_errors) => match written {
                // Every answer is out: how did the reader end?
                Ok(()) => reading.await.ok().flatten().map_or(Ok(()), Err),
                Err(status) => Err(status),
            },
            () = answers.closed() => Err(Status::cancelled("")),
            () = until(deadline) => Err(ApiError::from(RequestError::DeadlineExceeded).into()),
        };
        stop.abort();
        call.ended(last.as_ref().map_or_else(Status::code, |()| Code::Ok));
        if let Err(status) = last {
            // A client that is gone does not hear it.
            let _ = answers.send(Counted::last(status)).await;
        }
    });
    Ok(Response::new(counted(response)))
}

struct Requests {
    reader: Reader,
    context: Arc<Context>,
    statistics: Arc<Statistics>,
    client: Client,
    window: Arc<Semaphore>,
    pending: mpsc::UnboundedSender<Pending>,
}

impl Requests {
    /// Reads until the client has said all, goes away, or the server shuts
    /// down. The status, if any, ends the stream after the last answer.
    async fn run(self, mut incoming: Streaming<ModelInferRequest>) -> Option<Status> {
        loop {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = self.context.shutdown.cancelled() => {
                    return Some(ApiError::shutting_down().into());
                }
            };
            let request = match message {
                Ok(Some(request)) => request,
                Ok(None) => return None,
                // A message over the size limit, or a client that reset the
                // stream: what was accepted before is still answered.
                Err(status) => return Some(ApiError::from_status(&status).into()),
            };
            let (id, model) = (request.id.clone(), request.model_name.clone());
            let started =
                infer::start(&self.context, &self.statistics, request, &self.client).await;
            let pending = match started {
                Ok(started) => Pending::Started {
                    bytes: self.reader.count(started.outcome_bytes()),
                    started: Box::new(started),
                },
                Err(problem) => Pending::Refused {
                    id,
                    model,
                    problem,
                    _place: Arc::clone(&self.window).acquire_owned().await.ok(),
                },
            };
            // A writer that is gone needs no answers.
            if self.pending.send(pending).is_err() {
                return None;
            }
        }
    }
}

/// Writes answers in the requests' order, until there are no more.
async fn write(
    mut started: mpsc::UnboundedReceiver<Pending>,
    client: &Reader,
    answers: &mpsc::Sender<Counted<ModelStreamInferResponse>>,
    grpc_errors: bool,
) -> Result<(), Status> {
    while let Some(pending) = started.recv().await {
        let (id, model, place, finished) = match pending {
            Pending::Started { mut started, bytes } => {
                let (id, model) = started.names();
                let place = started.place();
                let finished = started.finish().await;
                drop(bytes);
                (id, model, place, finished)
            }
            Pending::Refused {
                id,
                model,
                problem,
                _place,
            } => (id, model, _place, Err(problem)),
        };
        let answer = match finished {
            Ok(mut response) => {
                let last = InferParameter {
                    parameter_choice: Some(ParameterChoice::BoolParam(true)),
                };
                response.parameters.insert(FINAL_RESPONSE.to_owned(), last);
                ModelStreamInferResponse {
                    error_message: String::new(),
                    infer_response: Some(response),
                }
            }
            Err(problem) if grpc_errors => return Err(problem.into()),
            Err(problem) => ModelStreamInferResponse {
                error_message: format!("[{}] {}", problem.reason(), problem.message()),
                infer_response: Some(ModelInferResponse {
                    id,
                    model_name: model,
                    ..ModelInferResponse::default()
                }),
            },
        };
        let bytes = client.count_message(prost::Message::encoded_len(&answer));
        let counted = Counted {
            message: Ok(answer),
            bytes: Some(bytes),
        };
        let sent = answers.send(counted).await;
        sent.map_err(|_| Status::cancelled(""))?;
        drop(place);
    }
    Ok(())
}
