//! A classification service that does to an item what its picture says:
//! "ANSWER", "REFUSE", "EXPIRE", "FAIL", "IGNORE" (no answer, ever), "TWICE"
//! (two answers), "BREAK" (ends the stream). It keeps what it was sent.

use std::{
    net::SocketAddr,
    pin::Pin,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
};

use tipserve_api::v1::{
    self as pb,
    classify_service_server::{ClassifyService, ClassifyServiceServer},
};
use tokio::sync::mpsc;
use tokio_stream::{
    Stream,
    wrappers::{TcpListenerStream, UnboundedReceiverStream},
};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What clients have sent so far.
#[derive(Default)]
pub struct Seen {
    /// The first message of each stream.
    pub configs: Vec<pb::ClassifyStreamConfig>,
    /// The items of each stream, in their order.
    pub items: Vec<Vec<pb::Item>>,
    /// Most items in one message.
    pub most_packed: usize,
    /// Unary calls, with their `grpc-timeout`.
    pub calls: Vec<(pb::ClassifyRequest, Option<String>)>,
}

/// A scripted server, which stops when it is dropped.
pub struct Scripted {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Scripted {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let service = ClassifyServiceServer::new(Service(Arc::clone(&seen)));
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            address,
            seen,
            runtime: Some(runtime),
        }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// The binary, told where the server is.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(crate::BINARY);
        command
            .args(args)
            .env("TIPSERVE_SERVER", self.address.to_string())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

struct Service(Arc<Mutex<Seen>>);

fn word(input: Option<&pb::Input>) -> String {
    match input.and_then(|input| input.content.as_ref()) {
        Some(pb::input::Content::EncodedImage(bytes)) => {
            String::from_utf8_lossy(bytes).trim().to_owned()
        }
        _ => "ANSWER".to_owned(),
    }
}

/// The status that a word stands for, if it stands for one.
fn status(word: &str) -> Option<Status> {
    let (code, reason) = match word {
        "REFUSE" => (Code::ResourceExhausted, "QUEUE_FULL"),
        "EXPIRE" => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "FAIL" => (Code::InvalidArgument, "PICTURE_UNDECODABLE"),
        _ => return None,
    };
    let details = ErrorDetails::with_error_info(reason, "tipserve", []);
    Some(Status::with_error_details(code, word, details))
}

fn answer() -> pb::Classification {
    pb::Classification {
        version: "caches/c/versions/1".into(),
        top: vec![pb::ClassScore::default(); 5],
        timings: Some(pb::Timings {
            encode_seconds: 0.25,
            batch_size: 16,
            ..Default::default()
        }),
        ..Default::default()
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::ClassifyStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClassifyService for Service {
    type ClassifyStreamStream = Answers;

    async fn classify_stream(
        &self,
        request: Request<Streaming<pb::ClassifyStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        use pb::{classify_stream_request::Payload, item_result::Outcome};
        let mut incoming = request.into_inner();
        let Some(Payload::Config(config)) = incoming.message().await?.and_then(|it| it.payload)
        else {
            return Err(Status::invalid_argument("the config must come first"));
        };
        let seen = Arc::clone(&self.0);
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.configs.push(config);
            seen.items.push(Vec::new());
            seen.items.len() - 1
        };
        let (answers, stream) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut sequence = 0;
            while let Ok(Some(message)) = incoming.message().await {
                let Some(Payload::Items(batch)) = message.payload else {
                    return;
                };
                let mut results = Vec::new();
                {
                    let mut seen = seen.lock().unwrap();
                    seen.most_packed = seen.most_packed.max(batch.items.len());
                    seen.items[number].extend(batch.items.iter().cloned());
                }
                let mut breaks = false;
                for item in batch.items {
                    let word = word(item.input.as_ref());
                    let outcome = match status(&word) {
                        Some(status) => {
                            let status: tonic_types::Status =
                                prost::Message::decode(status.details()).unwrap();
                            Outcome::Error(status)
                        }
                        None => Outcome::Classification(answer()),
                    };
                    let result = pb::ItemResult {
                        id: item.id,
                        sequence,
                        outcome: Some(outcome),
                    };
                    sequence += 1;
                    match word.as_str() {
                        "IGNORE" => {}
                        "TWICE" => results.extend([result.clone(), result]),
                        "BREAK" => breaks = true,
                        _ => results.push(result),
                    }
                }
                // The last first: answers may come in any order.
                results.reverse();
                let _ = answers.send(Ok(pb::ClassifyStreamResponse { results }));
                if breaks {
                    let details = ErrorDetails::with_error_info("SHUTTING_DOWN", "tipserve", []);
                    let status = Status::with_error_details(Code::Unavailable, "bye", details);
                    let _ = answers.send(Err(status));
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            stream,
        ))))
    }

    async fn classify(
        &self,
        request: Request<pb::ClassifyRequest>,
    ) -> Result<Response<pb::ClassifyResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout");
        let timeout = timeout.map(|it| it.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let word = word(request.input.as_ref());
        self.0.lock().unwrap().calls.push((request, timeout));
        match status(&word) {
            Some(status) => Err(status),
            None => Ok(Response::new(pb::ClassifyResponse {
                classification: Some(answer()),
            })),
        }
    }

    async fn embed(
        &self,
        _: Request<pb::EmbedRequest>,
    ) -> Result<Response<pb::EmbedResponse>, Status> {
        Err(Status::unimplemented("Embed"))
    }

    async fn evaluate(
        &self,
        _: Request<Streaming<pb::EvaluateRequest>>,
    ) -> Result<Response<pb::EvaluateResponse>, Status> {
        Err(Status::unimplemented("Evaluate"))
    }

    async fn get_server_info(
        &self,
        _: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        Ok(Response::new(pb::ServerInfo {
            bundle: Some(pb::BundleInfo {
                width: 8,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}
