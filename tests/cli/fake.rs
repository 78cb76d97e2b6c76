//! A server in this process. Its "pictures" are files that hold "IMG c": they
//! are classified as class c; embeddings as their largest coordinate. All
//! other files are undecodable. Every request is kept for the tests to see.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tipserve::proto::v1::{
    self as pb,
    cache_service_server::{CacheService, CacheServiceServer},
    classify_service_server::{ClassifyService, ClassifyServiceServer},
    fine_tune_service_server::{FineTuneService, FineTuneServiceServer},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the server holds and saw.
#[derive(Default)]
pub struct State {
    /// Versions of each cache; version n is at n - 1.
    pub caches: BTreeMap<String, Vec<pb::Version>>,
    pub aliases: BTreeMap<String, BTreeMap<String, i64>>,
    pub specs: Vec<pb::CacheSpec>,
    pub examples: Vec<pb::Example>,
    pub largest_message: usize,
    pub configs: Vec<pb::ClassifyStreamConfig>,
    pub fine_tunes: Vec<pb::FineTuneRequest>,
    pub cancelled: Vec<String>,
}

pub struct Behaviour {
    /// The message limit that it tells and keeps.
    pub message_bytes: usize,
    /// ClassifyStream answers in reverse within a message.
    pub shuffle: bool,
    /// CreateCache reads no example before the gate opens.
    pub gated: bool,
    /// Fine-tuning never ends.
    pub endless_training: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            shuffle: false,
            gated: false,
            endless_training: false,
        }
    }
}

/// The running server.
pub struct Fake {
    address: SocketAddr,
    inner: Arc<Inner>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What the services share.
#[derive(Clone)]
struct Service(Arc<Inner>);

impl std::ops::Deref for Service {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Service {
    fn arc(&self) -> Arc<Inner> {
        Arc::clone(&self.0)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct Inner {
    state: Mutex<State>,
    behaviour: Behaviour,
    gate: watch::Sender<bool>,
    creating: Notify,
    given_up: Notify,
    training: Notify,
    outstanding: AtomicUsize,
    most_outstanding: AtomicUsize,
}

impl Fake {
    pub fn start() -> Self {
        Self::with(Behaviour::default())
    }

    pub fn with(behaviour: Behaviour) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let limit = behaviour.message_bytes;
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            behaviour,
            gate: watch::channel(false).0,
            creating: Notify::new(),
            given_up: Notify::new(),
            training: Notify::new(),
            outstanding: AtomicUsize::new(0),
            most_outstanding: AtomicUsize::new(0),
        });
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(
                CacheServiceServer::new(Service(Arc::clone(&inner)))
                    .max_decoding_message_size(limit),
            )
            .add_service(
                ClassifyServiceServer::new(Service(Arc::clone(&inner)))
                    .max_decoding_message_size(limit),
            )
            .add_service(FineTuneServiceServer::new(Service(Arc::clone(&inner))));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            address,
            inner,
            runtime: Some(runtime),
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    pub fn open_gate(&self) {
        self.inner.gate.send_replace(true);
    }

    /// Waits until a fine-tuning run has begun.
    pub fn wait_for_training(&self) {
        self.runtime
            .as_ref()
            .unwrap()
            .block_on(self.inner.training.notified());
    }

    /// Waits until a creation has begun.
    pub fn wait_for_creation(&self) {
        self.runtime
            .as_ref()
            .unwrap()
            .block_on(self.inner.creating.notified());
    }

    /// Waits until a creation has ended without a version.
    pub fn wait_for_given_up(&self) {
        self.runtime
            .as_ref()
            .unwrap()
            .block_on(self.inner.given_up.notified());
    }

    pub fn most_outstanding(&self) -> usize {
        self.inner.most_outstanding.load(Ordering::SeqCst)
    }

    /// Puts a cache with these classes into the store, as another version
    /// where it is there.
    pub fn add_cache(&self, id: &str, classes: &[&str]) {
        let classes = classes.iter().map(|name| (name.to_string(), 16)).collect();
        self.state().add(id, classes, 1);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl State {
    fn add(&mut self, id: &str, classes: Vec<(String, i32)>, method: i32) -> pb::Version {
        let versions = self.caches.entry(id.to_owned()).or_default();
        let number = versions.len() as i64 + 1;
        let method = if method <= 1 {
            pb::Method::TipAdapter as i32
        } else {
            method
        };
        let candidate = pb::Candidate {
            method,
            alpha: 1.17,
            beta: 5.5,
            accuracy: 0.875,
            cross_entropy: 0.4321,
            ..Default::default()
        };
        let skipped = pb::Candidate {
            method: pb::Method::Proker.into(),
            skipped: "M is over the bound".into(),
            ..Default::default()
        };
        let version = pb::Version {
            name: format!("caches/{id}/versions/{number}"),
            version: number,
            create_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            key_count: classes.iter().map(|(_, count)| i64::from(*count)).sum(),
            classes: classes
                .into_iter()
                .zip(0..)
                .map(|((display_name, example_count), index)| pb::ClassInfo {
                    index,
                    display_name,
                    example_count,
                    validation_count: 0,
                })
                .collect(),
            width: 8,
            views: 1,
            bundle_fingerprint: "f00d".into(),
            size_bytes: 12345,
            head: Some(pb::Head {
                method,
                alpha: 1.17,
                beta: 5.5,
                logit_scale: 100.0,
                class_balance: 1,
                temperature: 1.0,
                key_dtype: 1,
                selection: Some(pb::Selection {
                    source: pb::SelectionSource::LeaveOneOut.into(),
                    example_count: 48,
                    score: "accuracy, ties by cross-entropy".into(),
                    grid: "official, s_beta 7, s_alpha 3".into(),
                    candidates: vec![candidate, skipped],
                    reason: "it had the best leave-one-out accuracy".into(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        versions.push(version.clone());
        version
    }

    fn version(&self, name: &str) -> Result<&pb::Version, Status> {
        let name = name.strip_prefix("caches/").unwrap_or(name);
        let (id, wanted) = match name.split_once('@').or(name.split_once("/versions/")) {
            Some((id, wanted)) => (id, Some(wanted)),
            None => (name, None),
        };
        let versions = self.caches.get(id).ok_or_else(|| no_cache(id))?;
        let number = match wanted {
            None | Some("latest") => versions.len() as i64,
            Some(wanted) => match wanted.parse() {
                Ok(number) => number,
                Err(_) => *self
                    .aliases
                    .get(id)
                    .and_then(|aliases| aliases.get(wanted))
                    .ok_or_else(|| Status::not_found(format!("{id} has no alias {wanted:?}")))?,
            },
        };
        versions
            .get(usize::try_from(number - 1).unwrap_or(usize::MAX))
            .ok_or_else(|| Status::not_found(format!("{id} has no version {number}")))
    }

    fn cache(&self, name: &str) -> Result<pb::Cache, Status> {
        let id = name.strip_prefix("caches/").unwrap_or(name);
        let versions = self.caches.get(id).ok_or_else(|| no_cache(id))?;
        Ok(pb::Cache {
            name: format!("caches/{id}"),
            create_time: versions.first().and_then(|first| first.create_time),
            latest: versions.last().cloned(),
            aliases: self
                .aliases
                .get(id)
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            version_count: versions.len() as i32,
            ..Default::default()
        })
    }
}

fn no_cache(id: &str) -> Status {
    let details = ErrorDetails::with_error_info(
        "CACHE_NOT_FOUND",
        "tipserve",
        [("cache".to_owned(), id.to_owned())],
    );
    Status::with_error_details(Code::NotFound, format!("there is no cache {id:?}"), details)
}

/// The class that an input shows.
fn seen(input: Option<&pb::Input>) -> Result<usize, String> {
    match input.and_then(|input| input.content.as_ref()) {
        Some(pb::input::Content::EncodedImage(bytes)) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.strip_prefix("IMG "))
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| format!("these {} bytes are no picture", bytes.len())),
        Some(pb::input::Content::Embedding(embedding)) => {
            let best = embedding
                .values
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(index, _)| index)
                .ok_or_else(|| "an empty embedding".to_owned())
        }
        _ => Err("no content".to_owned()),
    }
}

fn undecodable(message: String) -> tonic_types::Status {
    tonic_types::Status {
        code: Code::InvalidArgument as i32,
        message,
        details: vec![],
    }
}

fn answer(
    version: &pb::Version,
    class: usize,
    options: &pb::ClassifyOptions,
) -> pb::Classification {
    let n = version.classes.len();
    let order = std::iter::once(class % n).chain((0..n).filter(|index| *index != class % n));
    let score = |index: usize| if index == class % n { 10.0 } else { 1.0 };
    let named = |index: usize| version.classes[index].display_name.clone();
    pb::Classification {
        version: version.name.clone(),
        top: order
            .take(if options.top_k == 0 {
                5
            } else {
                options.top_k as usize
            })
            .map(|index| pb::ClassScore {
                index: index as i32,
                display_name: named(index),
                logit: score(index),
                probability: if index == class % n {
                    0.9
                } else {
                    0.1 / (n - 1) as f32
                },
            })
            .collect(),
        logits: if options.logits {
            (0..n).map(score).collect()
        } else {
            vec![]
        },
        neighbours: (0..options.neighbours)
            .map(|rank| pb::Neighbour {
                example_id: format!("key/{rank}.jpg"),
                class_index: (class % n) as i32,
                display_name: named(class % n),
                similarity: 0.99 - 0.01 * rank as f32,
            })
            .collect(),
        ..Default::default()
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Tells of a creation that ended without a version.
struct Unfinished(Arc<Inner>, bool);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.1 {
            self.0.given_up.notify_one();
        }
    }
}

#[tonic::async_trait]
impl CacheService for Service {
    type CreateCacheStream = Events<pb::CreateCacheResponse>;

    async fn create_cache(
        &self,
        request: Request<Streaming<pb::CreateCacheRequest>>,
    ) -> Result<Response<Self::CreateCacheStream>, Status> {
        use pb::{create_cache_request::Payload, create_cache_response::Event};
        let mut incoming = request.into_inner();
        let Some(Payload::Spec(spec)) = incoming.message().await?.and_then(|it| it.payload) else {
            return Err(Status::invalid_argument("the spec must come first"));
        };
        if !spec
            .cache_id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            let mut details = ErrorDetails::new();
            details.set_error_info(
                "CACHE_ID_INVALID",
                "tipserve",
                [("value".to_owned(), spec.cache_id.clone())],
            );
            details.add_bad_request_violation("spec.cache_id", "must be of a-z, 0-9");
            details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
            let text = format!("{:?} is no cache id", spec.cache_id);
            return Err(Status::with_error_details(
                Code::InvalidArgument,
                text,
                details,
            ));
        }
        let mut gate = self.gate.subscribe();
        let gated = self.behaviour.gated;
        let this = self.arc();
        let (events, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut unfinished = Unfinished(Arc::clone(&this), true);
            this.creating.notify_one();
            if gated {
                let _ = gate.wait_for(|open| *open).await;
            }
            let mut counts = vec![0; spec.classes.len()];
            loop {
                let message = match incoming.message().await {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(_) => return,
                };
                let size = prost::Message::encoded_len(&message);
                let Some(Payload::Examples(batch)) = message.payload else {
                    return;
                };
                for example in batch.examples {
                    let rejected = seen(example.input.as_ref()).err();
                    if let Some(message) = rejected {
                        let rejected = pb::RejectedExample {
                            example_id: example.example_id,
                            code: 3,
                            message,
                            reason: "PICTURE_UNDECODABLE".into(),
                        };
                        let event = Some(Event::Rejected(rejected));
                        let _ = events.send(Ok(pb::CreateCacheResponse { event })).await;
                        continue;
                    }
                    if !example.validation {
                        counts[example.class_index as usize] += 1;
                    }
                    this.state.lock().unwrap().examples.push(example);
                }
                let mut state = this.state.lock().unwrap();
                state.largest_message = state.largest_message.max(size);
            }
            // tonic shows a cancelled request stream as one that has ended; the
            // side that answers learns of it a moment later.
            tokio::select! {
                () = events.closed() => return,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            let version = {
                let mut state = this.state.lock().unwrap();
                let names = spec.classes.iter().map(|class| class.display_name.clone());
                let version = state.add(&spec.cache_id, names.zip(counts).collect(), spec.method);
                state.specs.push(spec);
                version
            };
            unfinished.1 = false;
            let progress = pb::CreateProgress {
                stage: 3,
                ..Default::default()
            };
            let event = Some(Event::Progress(progress));
            let _ = events.send(Ok(pb::CreateCacheResponse { event })).await;
            let event = Some(Event::Version(version));
            let _ = events.send(Ok(pb::CreateCacheResponse { event })).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_cache(
        &self,
        request: Request<pb::GetCacheRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        self.locked()
            .cache(&request.get_ref().name)
            .map(Response::new)
    }

    /// Pages of one, so that paging is seen to work.
    async fn list_caches(
        &self,
        request: Request<pb::ListCachesRequest>,
    ) -> Result<Response<pb::ListCachesResponse>, Status> {
        let state = self.locked();
        let at: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let ids: Vec<_> = state.caches.keys().cloned().collect();
        let caches = ids
            .get(at)
            .map(|id| state.cache(id))
            .transpose()?
            .into_iter()
            .collect();
        let next_page_token = if at + 1 < ids.len() {
            (at + 1).to_string()
        } else {
            String::new()
        };
        Ok(Response::new(pb::ListCachesResponse {
            caches,
            next_page_token,
        }))
    }

    async fn delete_cache(
        &self,
        request: Request<pb::DeleteCacheRequest>,
    ) -> Result<Response<()>, Status> {
        let id = request.into_inner().name;
        self.locked()
            .caches
            .remove(&id)
            .map(|_| Response::new(()))
            .ok_or_else(|| no_cache(&id))
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        self.locked()
            .version(&request.get_ref().name)
            .cloned()
            .map(Response::new)
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let state = self.locked();
        let id = request.into_inner().parent;
        let mut versions = state
            .caches
            .get(&id)
            .cloned()
            .ok_or_else(|| no_cache(&id))?;
        versions.reverse();
        Ok(Response::new(pb::ListVersionsResponse {
            versions,
            next_page_token: String::new(),
        }))
    }

    async fn set_alias(
        &self,
        request: Request<pb::SetAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let pb::SetAliasRequest {
            cache,
            alias,
            version,
            ..
        } = request.into_inner();
        let mut state = self.locked();
        state.version(&format!("{cache}@{version}"))?;
        state
            .aliases
            .entry(cache.clone())
            .or_default()
            .insert(alias, version);
        state.cache(&cache).map(Response::new)
    }

    async fn delete_alias(
        &self,
        request: Request<pb::DeleteAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let pb::DeleteAliasRequest { cache, alias, .. } = request.into_inner();
        let mut state = self.locked();
        let removed = state
            .aliases
            .entry(cache.clone())
            .or_default()
            .remove(&alias);
        removed.ok_or_else(|| Status::not_found(format!("{cache} has no alias {alias:?}")))?;
        state.cache(&cache).map(Response::new)
    }

    type AddExamplesStream = tonic::codegen::BoxStream<pb::AddExamplesResponse>;

    async fn add_examples(
        &self,
        _: Request<Streaming<pb::AddExamplesRequest>>,
    ) -> Result<Response<Self::AddExamplesStream>, Status> {
        Err(Status::unimplemented("AddExamples"))
    }

    async fn list_examples(
        &self,
        _: Request<pb::ListExamplesRequest>,
    ) -> Result<Response<pb::ListExamplesResponse>, Status> {
        Err(Status::unimplemented("ListExamples"))
    }

    async fn delete_version(
        &self,
        _: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("DeleteVersion"))
    }

    async fn prune_versions(
        &self,
        _: Request<pb::PruneVersionsRequest>,
    ) -> Result<Response<pb::PruneVersionsResponse>, Status> {
        Err(Status::unimplemented("PruneVersions"))
    }

    type ExportVersionStream = tonic::codegen::BoxStream<pb::ExportVersionResponse>;

    async fn export_version(
        &self,
        _: Request<pb::ExportVersionRequest>,
    ) -> Result<Response<Self::ExportVersionStream>, Status> {
        Err(Status::unimplemented("ExportVersion"))
    }

    async fn import_version(
        &self,
        _: Request<Streaming<pb::ImportVersionRequest>>,
    ) -> Result<Response<pb::Version>, Status> {
        Err(Status::unimplemented("ImportVersion"))
    }
}

#[tonic::async_trait]
impl ClassifyService for Service {
    type ClassifyStreamStream = Events<pb::ClassifyStreamResponse>;

    async fn classify_stream(
        &self,
        request: Request<Streaming<pb::ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        use pb::{classify_stream_request::Payload, item_result::Outcome};
        let mut incoming = request.into_inner();
        let Some(Payload::Config(config)) = incoming.message().await?.and_then(|it| it.payload)
        else {
            return Err(Status::invalid_argument("the config must come first"));
        };
        let version = self.locked().version(&config.cache)?.clone();
        let options = config.options.unwrap_or_default();
        self.locked().configs.push(config);
        let this = self.arc();
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut sequence = 0;
            while let Ok(Some(message)) = incoming.message().await {
                let Some(Payload::Items(batch)) = message.payload else {
                    return;
                };
                let count = batch.items.len();
                let now = this.outstanding.fetch_add(count, Ordering::SeqCst) + count;
                this.most_outstanding.fetch_max(now, Ordering::SeqCst);
                // Lets a client that sends too much do so.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                let mut results: Vec<_> = batch
                    .items
                    .into_iter()
                    .map(|item| {
                        let outcome = match seen(item.input.as_ref()) {
                            Ok(class) => Outcome::Classification(answer(&version, class, &options)),
                            Err(message) => Outcome::Error(undecodable(message)),
                        };
                        sequence += 1;
                        pb::ItemResult {
                            id: item.id,
                            sequence: sequence - 1,
                            outcome: Some(outcome),
                        }
                    })
                    .collect();
                if this.behaviour.shuffle {
                    results.reverse();
                }
                for result in results {
                    this.outstanding.fetch_sub(1, Ordering::SeqCst);
                    let answer = pb::ClassifyStreamResponse {
                        results: vec![result],
                    };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn classify(
        &self,
        _: Request<pb::ClassifyRequest>,
    ) -> Result<Response<pb::ClassifyResponse>, Status> {
        Err(Status::unimplemented("the command line streams"))
    }

    async fn embed(
        &self,
        request: Request<pb::EmbedRequest>,
    ) -> Result<Response<pb::EmbedResponse>, Status> {
        use pb::embed_result::Outcome;
        let request = request.into_inner();
        let one = |outcome| pb::EmbedResult {
            outcome: Some(outcome),
        };
        let unit = |at: usize| {
            let values = (0..8)
                .map(|i| if i == at % 8 { 1.0 } else { 0.0 })
                .collect();
            Outcome::Embedding(pb::Embedding { values })
        };
        let inputs = request.inputs.iter().map(|input| match seen(Some(input)) {
            Ok(class) => one(unit(class)),
            Err(message) => one(Outcome::Error(undecodable(message))),
        });
        let texts = request.texts.iter().map(|text| one(unit(text.len())));
        Ok(Response::new(pb::EmbedResponse {
            inputs: inputs.collect(),
            texts: texts.collect(),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<Streaming<pb::EvaluateRequest>>,
    ) -> Result<Response<pb::EvaluateResponse>, Status> {
        use pb::evaluate_request::Payload;
        let mut incoming = request.into_inner();
        let Some(Payload::Config(config)) = incoming.message().await?.and_then(|it| it.payload)
        else {
            return Err(Status::invalid_argument("the config must come first"));
        };
        let versions = config
            .caches
            .iter()
            .map(|name| self.locked().version(name).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        let n = versions[0].classes.len();
        let mut confusion = vec![0_i64; n * n];
        let mut rejected = Vec::new();
        while let Some(Ok(message)) = incoming.next().await {
            let Some(Payload::Items(batch)) = message.payload else {
                continue;
            };
            for item in batch.items {
                match seen(item.input.as_ref()) {
                    Ok(class) => confusion[item.class_index as usize * n + class % n] += 1,
                    Err(message) => rejected.push(pb::RejectedExample {
                        example_id: item.id,
                        code: 3,
                        message,
                        reason: "PICTURE_UNDECODABLE".into(),
                    }),
                }
            }
        }
        let count: i64 = confusion.iter().sum();
        let right: i64 = (0..n).map(|i| confusion[i * n + i]).sum();
        let evaluations = versions
            .iter()
            .map(|version| pb::Evaluation {
                version: version.name.clone(),
                count,
                top1: right as f64 / count as f64,
                top5: 1.0,
                zero_shot_top1: (version.version == 1).then_some(1.0 / n as f64),
                cross_entropy: 0.5,
                expected_calibration_error: 0.0625,
                classes: version
                    .classes
                    .iter()
                    .enumerate()
                    .map(|(i, class)| {
                        let row = &confusion[i * n..(i + 1) * n];
                        let count: i64 = row.iter().sum();
                        pb::ClassEvaluation {
                            index: i as i32,
                            display_name: class.display_name.clone(),
                            count,
                            accuracy: if count == 0 {
                                0.0
                            } else {
                                row[i] as f64 / count as f64
                            },
                        }
                    })
                    .collect(),
                confusion: confusion.clone(),
            })
            .collect();
        let rejected_count = rejected.len() as i64;
        Ok(Response::new(pb::EvaluateResponse {
            evaluations,
            rejected,
            rejected_count,
        }))
    }

    async fn get_server_info(
        &self,
        _: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        Ok(Response::new(pb::ServerInfo {
            version: "0.0.0".into(),
            bundle: Some(pb::BundleInfo {
                name: "fake".into(),
                fingerprint: "f00d".into(),
                width: 8,
                has_image_encoder: true,
                has_text_encoder: true,
                logit_scale: 100.0,
                ..Default::default()
            }),
            device: "cpu".into(),
            dtype: "float32".into(),
            limits: [(
                "max_message_bytes".to_owned(),
                self.behaviour.message_bytes as i64,
            )]
            .into(),
        }))
    }
}

#[tonic::async_trait]
impl FineTuneService for Service {
    type FineTuneStream = Events<pb::FineTuneResponse>;

    async fn fine_tune(
        &self,
        request: Request<pb::FineTuneRequest>,
    ) -> Result<Response<Self::FineTuneStream>, Status> {
        use pb::{fine_tune_response::Event, fine_tune_run::State as RunState};
        let request = request.into_inner();
        let (parent, made) = {
            let mut state = self.locked();
            let parent = state.version(&request.cache)?.clone();
            let id = parent.name.split('/').nth(1).unwrap_or_default().to_owned();
            let classes = parent
                .classes
                .iter()
                .map(|it| (it.display_name.clone(), it.example_count));
            let mut made = pb::Version::default();
            if !self.behaviour.endless_training {
                made = state.add(&id, classes.collect(), pb::Method::TipAdapterF.into());
                made.parent = parent.name.clone();
                made.fine_tune = Some(pb::FineTuneRecord {
                    epochs: request.epochs,
                    best_epoch: 7,
                    accuracy_before: 0.5,
                    accuracy_after: 0.75,
                    source: pb::SelectionSource::HeldBackViews.into(),
                    ..Default::default()
                });
            }
            state.fine_tunes.push(request.clone());
            (parent, made)
        };
        let mut run = pb::FineTuneRun {
            name: "fineTunes/7".into(),
            state: RunState::Running.into(),
            parent: parent.name,
            ..Default::default()
        };
        let progress = pb::FineTuneProgress {
            epoch: 1,
            epochs: request.epochs,
            ..Default::default()
        };
        let endless = self.behaviour.endless_training;
        let this = self.arc();
        let (events, stream) = mpsc::channel(8);
        tokio::spawn(async move {
            let send = |event| events.send(Ok(pb::FineTuneResponse { event: Some(event) }));
            let _ = send(Event::Run(run.clone())).await;
            let _ = send(Event::Progress(progress)).await;
            if endless {
                // The first progress is on its way; give it to the client.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                this.training.notify_one();
                return events.closed().await;
            }
            run.state = RunState::Succeeded.into();
            run.alias_moved = !request.move_alias.is_empty();
            run.version = Some(made);
            let _ = send(Event::Run(run)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_fine_tunes(
        &self,
        _: Request<pb::ListFineTunesRequest>,
    ) -> Result<Response<pb::ListFineTunesResponse>, Status> {
        let run = pb::FineTuneRun {
            name: "fineTunes/7".into(),
            state: 2,
            ..Default::default()
        };
        Ok(Response::new(pb::ListFineTunesResponse {
            fine_tunes: vec![run],
            ..Default::default()
        }))
    }

    async fn get_fine_tune(
        &self,
        request: Request<pb::GetFineTuneRequest>,
    ) -> Result<Response<pb::FineTuneRun>, Status> {
        let name = request.into_inner().name;
        if name != "fineTunes/7" {
            return Err(Status::not_found(format!("there is no run {name}")));
        }
        Ok(Response::new(pb::FineTuneRun {
            name,
            state: 2,
            ..Default::default()
        }))
    }

    async fn cancel_fine_tune(
        &self,
        request: Request<pb::CancelFineTuneRequest>,
    ) -> Result<Response<pb::FineTuneRun>, Status> {
        let name = request.into_inner().name;
        self.locked().cancelled.push(name.clone());
        Ok(Response::new(pb::FineTuneRun {
            name,
            state: 5,
            ..Default::default()
        }))
    }
}
