//! A server in this process. Its "pictures" are files that hold "IMG c": they
//! are classified as class c; embeddings as their largest coordinate. All
//! other files are undecodable. Every request is kept for the tests to see.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tipserve_api::v1::{
    self as pb, analysis_service_server::AnalysisServiceServer,
    cache_service_server::CacheServiceServer, classify_service_server::ClassifyServiceServer,
    fine_tune_service_server::FineTuneServiceServer,
};
use tokio::sync::{Notify, watch};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Code, Status};

mod analysis;
mod caches;
mod classify;
mod finetune;
mod state;

pub use state::State;

pub struct Behaviour {
    /// The message limit that it tells and keeps.
    pub message_bytes: usize,
    /// ClassifyStream answers in reverse within a message.
    pub shuffle: bool,
    /// CreateCache reads no example before the gate opens.
    pub gated: bool,
    /// Fine-tuning reports progress and never ends.
    pub endless_training: bool,
    /// The file that ExportVersion sends.
    pub export: Vec<u8>,
    /// How many of its bytes ExportVersion keeps to itself.
    pub export_lacks: usize,
    /// ImportVersion ends with an error before it reads a file.
    pub refuses_imports: bool,
    /// Unary calls for caches are not answered, ever.
    pub silent: bool,
    /// What Evaluate leaves out: the confusion matrix.
    pub no_confusion: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            shuffle: false,
            gated: false,
            endless_training: false,
            export: b"a version".to_vec(),
            export_lacks: 0,
            refuses_imports: false,
            silent: false,
            no_confusion: false,
        }
    }
}

/// A fake server, which stops when it is dropped.
pub struct Fake {
    address: SocketAddr,
    inner: Arc<Inner>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// The state that all services share.
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
            .add_service(FineTuneServiceServer::new(Service(Arc::clone(&inner))))
            .add_service(
                AnalysisServiceServer::new(Service(Arc::clone(&inner)))
                    .max_decoding_message_size(limit),
            );
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
    /// if it exists.
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
