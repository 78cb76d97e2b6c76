//! A whole server: bundles, engines, store, services and probes, started and
//! stopped as one. The binary and the tests run the same.

mod connections;
mod devices;
mod folders;
mod http2;
mod listener;
mod loader;
mod loading;
mod memory;
mod pictures;
mod probes;
mod protocol;
mod services;
mod upkeep;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    auth::{Authenticator, OpenError},
    catalog::{Catalog, CatalogError, MAX_BUNDLES},
    config::{Config, ListenAddress},
    rpc::{self, Calls, Context, UploadBudget},
    telemetry,
};
use tipserve_api::{
    inference::grpc_inference_service_server,
    v1::{
        analysis_service_server, bundle_service_server, cache_service_server,
        classify_service_server, fine_tune_service_server,
    },
};
use tipserve_clip::{BundleError, DeviceError, EncodeError, TokenizerError};
use tipserve_http::{Assets, HttpLayer};
use tipserve_store::{Store, StoreError, StoreOptions};

pub use loading::{settings, top_k_backend};
pub use pictures::{PictureEncoder, image_encoder};

pub use connections::ConnectionLimits;
use listener::{ApiListener, SocketFile};
use loading::{Loaded, load};
use probes::serve_probes;
use services::serve;
use upkeep::upkeep;

/// Of the time for a shutdown, what is kept for stopping the engine: a quarter
/// and at most this.
const ENGINE_STOP: Duration = Duration::from_secs(5);
/// What `grpc.health.v1` knows; the empty name is the server as a whole.
const SERVICES: [&str; 7] = [
    "",
    analysis_service_server::SERVICE_NAME,
    bundle_service_server::SERVICE_NAME,
    cache_service_server::SERVICE_NAME,
    classify_service_server::SERVICE_NAME,
    fine_tune_service_server::SERVICE_NAME,
    grpc_inference_service_server::SERVICE_NAME,
];

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Listen {
        /// The address that was asked for.
        address: ListenAddress,
        /// The setting that names it.
        setting: &'static str,
        /// The system's reason for refusing.
        source: std::io::Error,
    },
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// More bundles are named than are ever loaded at once.
    #[error(
        "--bundle names {count} bundles, those in its folders counted; the limit max_bundles is \
         {MAX_BUNDLES}: name fewer, and put a folder with the others into --bundle-folders, from \
         which they are loaded while the server runs"
    )]
    TooManyBundles {
        /// How many are named.
        count: usize,
    },
    /// What was loaded cannot be served.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An encoder does not load.
    #[error(transparent)]
    Encoder(#[from] EncodeError),
    /// An image encoder loads, and then fails on every picture.
    #[error(
        "the bundle {bundle} at {} cannot be used: its image encoder fails on every picture: \
         {detail}",
        dir.display()
    )]
    Warming {
        /// The bundle's name.
        bundle: String,
        /// Its folder.
        dir: PathBuf,
        /// What torch said, in one line.
        detail: String,
    },
    /// The tokenizer does not load.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate, key or tokens file cannot be used.
    #[error(transparent)]
    Guard(#[from] OpenError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A defect of the build.
    #[error("internal error: {0}")]
    Internal(String),
}

/// A running server, from [`Server::start`] on.
pub struct Server {
    /// Where the gRPC API is.
    pub address: ListenAddress,
    /// Where the metrics and probes are.
    pub metrics_address: SocketAddr,
    socket_file: Option<SocketFile>,
    context: Arc<Context>,
    serving: JoinHandle<Result<(), transport::Error>>,
    /// Ends the thread of the probes.
    stop_probes: CancellationToken,
    upkeep: JoinHandle<()>,
    health: HealthReporter,
    auth: Arc<Authenticator>,
    watch: JoinHandle<()>,
    limit: Duration,
}

impl Server {
    /// Starts a server and returns once it is ready. `metrics` is the
    /// process's recorder (see [`telemetry::install_metrics`]).
    ///
    /// # Errors
    /// The first thing that stands against it.
    pub async fn start(config: Config, metrics: PrometheusHandle) -> Result<Server, StartError> {
        // Bound first: a port in use is known before anything is loaded.
        let auth = Arc::new(Authenticator::new(&config.auth)?);
        let (listener, socket_file) = listen_api(&config).await?;
        let probes = listen(config.metrics_listen, "--metrics-listen").await?;
        let probes = probes.into_std()?;
        let address = match &listener {
            ApiListener::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            ApiListener::Unix(_) => config.listen.clone(),
        };
        let metrics_address = probes.local_addr()?;

        let context = open(&config).await?;
        telemetry::serving(
            context.catalog.bundles().default_bundle().engine.settings(),
            context.catalog.resident_bytes(),
        );

        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = rpc::routes(&context)
            .map_err(|error| StartError::Internal(error.to_string()))?
            .add_service(health_service);
        set_health(&health, true).await;
        let http = HttpLayer::new(
            tipserve_api::DESCRIPTORS,
            Assets::new(tipserve_page::ASSETS),
        )
        .map_err(|error| StartError::Internal(error.to_string()))?;
        let serving = serve(
            &config.limits,
            &config.web_origins,
            &context,
            &auth,
            routes,
            http,
            listener,
        );
        let watch = tokio::spawn(Arc::clone(&auth).watch());
        let stop_probes = CancellationToken::new();
        // Detached: it ends with the token, or with the process.
        drop(serve_probes(
            probes,
            Arc::clone(&context),
            metrics.clone(),
            stop_probes.clone(),
        )?);
        let upkeep = tokio::spawn(upkeep(Arc::clone(&context), metrics, health.clone()));
        Ok(Server {
            address,
            metrics_address,
            socket_file,
            context,
            serving,
            stop_probes,
            upkeep,
            health,
            auth,
            watch,
            limit: config.shutdown,
        })
    }

    /// What the services share; for tests that hold the device.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What stands between the network and the services.
    pub fn auth(&self) -> &Arc<Authenticator> {
        &self.auth
    }

    /// Stops: unready at once, no new streams, what was accepted is answered,
    /// out within the bound even where a connection or the engine is stuck.
    pub async fn shut_down(self) {
        let kept = (self.limit / 4).min(ENGINE_STOP);
        let start = tokio::time::Instant::now();
        set_health(&self.health, false).await;
        self.context.shutdown.cancel();
        if let Some(file) = &self.socket_file {
            file.remove();
        }
        let mut serving = self.serving;
        tokio::select! {
            _ = &mut serving => {}
            // A connection that says nothing, or never spoke, would hold the
            // server for the whole time (hyper 4170).
            () = idle(&self.context.calls) => serving.abort(),
            () = tokio::time::sleep_until(start + (self.limit - kept)) => {
                tracing::warn!(
                    calls = self.context.calls.count(),
                    seconds = self.limit.as_secs(),
                    "calls were still under way when the time for shutting down was over"
                );
                serving.abort();
            }
        }
        let engines = self.context.catalog.bundles().engines();
        let stopping = tokio::task::spawn_blocking(move || {
            for (_, engine) in engines {
                engine.shut_down();
            }
        });
        // A little earlier than the whole, so that this line is still written.
        let end = start + (self.limit - kept / 4);
        if tokio::time::timeout_at(end, stopping).await.is_err() {
            tracing::warn!("the engine did not stop in time");
        }
        self.stop_probes.cancel();
        self.upkeep.abort();
        self.watch.abort();
    }
}

/// Waits until no call has been under way for a second.
async fn idle(calls: &Calls) {
    const TICK: Duration = Duration::from_millis(100);
    let mut quiet = 0;
    while quiet < 10 {
        tokio::time::sleep(TICK).await;
        quiet = if calls.count() == 0 { quiet + 1 } else { 0 };
    }
}

async fn set_health(health: &HealthReporter, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}

/// Opens the store and loads what the services share.
async fn open(config: &Config) -> Result<Arc<Context>, StartError> {
    let options = StoreOptions {
        observer: Arc::new(telemetry::BucketMetrics),
        ..StoreOptions::default()
    };
    let store = Store::open_with(&config.store, options).await?;
    let Loaded {
        bundles,
        device,
        resident_bytes,
    } = load(config.clone()).await?;
    let catalog = Catalog::new(store, resident_bytes, bundles, device, config.keep_versions);
    Ok(Arc::new(Context {
        catalog: Arc::new(catalog),
        uploads: UploadBudget::new(
            config.limits.upload_bytes,
            config
                .limits
                .max_create_bytes
                .max(config.limits.max_import_bytes),
        ),
        limits: config.limits.clone(),
        shutdown: CancellationToken::new(),
        calls: Calls::default(),
    }))
}

async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            address: ListenAddress::Tcp(address),
            setting,
            source,
        })
}

async fn listen_api(config: &Config) -> Result<(ApiListener, Option<SocketFile>), StartError> {
    match &config.listen {
        ListenAddress::Tcp(address) => {
            let listener = listen(*address, "--listen").await?;
            Ok((ApiListener::Tcp(listener), None))
        }
        ListenAddress::Unix(path) => {
            let listening = SocketFile::listen(path, config.listen_mode);
            let (listener, file) = listening.map_err(|source| StartError::Listen {
                address: config.listen.clone(),
                setting: "--listen",
                source,
            })?;
            Ok((ApiListener::Unix(listener), Some(file)))
        }
    }
}
