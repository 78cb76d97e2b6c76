//! A whole server: bundle, engine, store, services and probes, started and
//! stopped as one. The binary and the tests run the same.

mod pictures;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{self, server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    catalog::{Catalog, Model, TextRoom},
    clip::{
        Bundle, BundleError, DeviceChoice, DeviceError, DtypeChoice, EncodeError, GraphsChoice,
        ImageSpec, TextEncoder, Tokenizer, TokenizerError, cuda,
        encoder::{device_name, kind_name},
    },
    config::Config,
    engine::{Choosing, Encoder, Engine, EngineSettings, ThreadPlan},
    guard::{Guard, OpenError, tls},
    proto::{
        inference::grpc_inference_service_server,
        v1::{cache_service_server, classify_service_server, fine_tune_service_server},
    },
    rpc::{self, Calls, Context, door::Door},
    store::{Store, StoreError},
    telemetry,
    tip::best,
};

pub use pictures::{PictureEncoder, image_encoder};

/// How often the metrics' histograms are folded; without it they grow where
/// nobody scrapes (metrics-rs 467).
const UPKEEP: Duration = Duration::from_secs(5);
/// How often what dead writers left behind is removed from the store.
const SWEEP: Duration = Duration::from_secs(3600);
/// Bytes that may be under way to the server, per stream and per connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Prometheus's text format, as it names it itself.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";
/// What `grpc.health.v1` knows; the empty name is the server as a whole.
const SERVICES: [&str; 5] = [
    "",
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
        /// The address.
        address: SocketAddr,
        /// Its setting.
        setting: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An encoder does not load.
    #[error(transparent)]
    Encoder(#[from] EncodeError),
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

/// A server that runs.
pub struct Server {
    /// Where the gRPC API is.
    pub address: SocketAddr,
    /// Where the metrics and probes are.
    pub metrics_address: SocketAddr,
    context: Arc<Context>,
    serving: JoinHandle<Result<(), transport::Error>>,
    probes: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    health: HealthReporter,
    guard: Arc<Guard>,
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
        let guard = Arc::new(Guard::new(&config.guard)?);
        let listener = listen(config.listen, "--listen").await?;
        let probes = listen(config.metrics_listen, "--metrics-listen").await?;
        let address = listener.local_addr()?;
        let metrics_address = probes.local_addr()?;

        let store = Store::open(&config.store).await?;
        let loading = config.clone();
        let Loaded {
            engine,
            model,
            text,
            device,
            resident_bytes,
        } = tokio::task::spawn_blocking(move || load(&loading))
            .await
            .map_err(|error| StartError::Internal(error.to_string()))??;
        let catalog = Catalog::new(
            store,
            resident_bytes,
            model,
            device,
            text,
            engine.clone(),
            config.keep_versions,
        );
        let context = Arc::new(Context {
            catalog: Arc::new(catalog),
            engine,
            limits: config.limits.clone(),
            shutdown: CancellationToken::new(),
            calls: Calls::default(),
        });

        telemetry::serving(
            &telemetry::About {
                bundle: context.catalog.model().name.clone(),
                device: context.catalog.model().device.clone(),
                dtype: context.catalog.model().dtype.clone(),
                resident_bytes: context.catalog.resident_bytes(),
            },
            &context.engine,
        );

        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = rpc::routes(&context)
            .map_err(|error| StartError::Internal(error.to_string()))?
            .add_service(health_service);
        set_health(&health, true).await;
        let stop = context.shutdown.clone();
        let router = transport::Server::builder()
            .max_concurrent_streams(config.limits.max_connection_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            // gRPC-web, which browsers may speak over HTTP/1.1. The outermost: what
            // is refused within must reach the browser too.
            .accept_http1(true)
            .layer(rpc::web::BrowserLayer::new(&config.web_origins))
            .layer(rpc::Observe::new(&context.calls))
            .layer(Door::new(Arc::clone(&guard), config.limits.max_streams))
            .add_routes(routes);
        let stop = async move { stop.cancelled().await };
        let serving = if guard.tls().is_some() {
            let incoming = tls::incoming(listener, Arc::clone(&guard));
            tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop))
        } else {
            // Asked of the sockets: the builder's own setting is for listeners that
            // it binds itself. Without it answers wait for delayed
            // acknowledgements.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop))
        };
        let watch = tokio::spawn(Arc::clone(&guard).watch());
        let probes = tokio::spawn(serve_probes(probes, Arc::clone(&context), metrics.clone()));
        let upkeep = tokio::spawn(upkeep(Arc::clone(&context), metrics, health.clone()));
        Ok(Server {
            address,
            metrics_address,
            context,
            serving,
            probes,
            upkeep,
            health,
            guard,
            watch,
            limit: config.shutdown,
        })
    }

    /// What the services share; for tests that hold the device.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What stands between the network and the services.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Stops: unready at once, no new streams, what was accepted is answered,
    /// out within the bound even where a connection is stuck.
    pub async fn shut_down(self) {
        set_health(&self.health, false).await;
        self.context.shutdown.cancel();
        let mut serving = self.serving;
        tokio::select! {
            _ = &mut serving => {}
            // A connection that says nothing, or never spoke, would hold the
            // server for the whole time (hyper 4170).
            () = idle(&self.context.calls) => serving.abort(),
            () = tokio::time::sleep(self.limit) => {
                tracing::warn!(
                    calls = self.context.calls.count(),
                    seconds = self.limit.as_secs(),
                    "calls were still under way when the time for shutting down was over"
                );
                serving.abort();
            }
        }
        let engine = self.context.engine.clone();
        let stopping = tokio::task::spawn_blocking(move || engine.shut_down());
        if tokio::time::timeout(self.limit, stopping).await.is_err() {
            tracing::warn!("the engine did not stop in time");
        }
        self.probes.abort();
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

/// What must be done again and again while a server runs.
async fn upkeep(context: Arc<Context>, metrics: PrometheusHandle, health: HealthReporter) {
    let mut fold = tokio::time::interval(UPKEEP);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut healthy = true;
    loop {
        tokio::select! {
            _ = fold.tick() => {
                metrics.run_upkeep();
                if healthy && !context.engine.is_healthy() {
                    healthy = false;
                    set_health(&health, false).await;
                }
            }
            _ = sweep.tick() => if let Err(error) = context.catalog.tidy().await {
                tracing::warn!(%error, "could not sweep the store");
            }
        }
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

async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            address,
            setting,
            source,
        })
}

/// What is loaded before a server can serve.
struct Loaded {
    engine: Engine,
    model: Model,
    text: Option<TextRoom>,
    /// Where heads and training are.
    device: tch::Device,
    /// Most bytes of caches there.
    resident_bytes: usize,
}

/// A bundle's encoders, those it has.
struct Encoders {
    image: Option<(Arc<dyn Encoder>, ImageSpec)>,
    text: Option<(Tokenizer, TextEncoder)>,
}

/// The bundle's encoders, loaded side by side: reading, hashing and optimising
/// the two takes most of a start. Graphs are recorded, if at all, when both
/// are there: nothing may run beside that.
///
/// The image encoder is on every device, with `lanes` on each that is CUDA's,
/// for batches of `max_batch`; the text encoder on the first.
fn encoders(
    bundle: &Bundle,
    devices: &[tch::Device],
    kind: tch::Kind,
    lanes: usize,
    max_batch: usize,
    graphs: GraphsChoice,
) -> Result<Encoders, StartError> {
    let device = first(devices);
    let load_text = || -> Result<_, StartError> {
        let encoder = TextEncoder::load(bundle, device, kind)?;
        tracing::info!("{}", encoder.loaded());
        Ok((Tokenizer::load(bundle)?, encoder))
    };
    std::thread::scope(|scope| {
        let text = bundle.text.as_ref().map(|_| scope.spawn(load_text));
        let image = match &bundle.image {
            None => None,
            Some(spec) => {
                let encoder = image_encoder(bundle, devices, kind, lanes, max_batch)?;
                Some((encoder, spec.clone()))
            }
        };
        let text = match text.map(std::thread::ScopedJoinHandle::join) {
            None => None,
            Some(Ok(loaded)) => Some(loaded?),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
        let image = image.map(|(encoder, spec)| {
            encoder.record(graphs);
            (Arc::new(encoder) as Arc<dyn Encoder>, spec)
        });
        Ok(Encoders { image, text })
    })
}

fn first(devices: &[tch::Device]) -> tch::Device {
    devices.first().copied().unwrap_or(tch::Device::Cpu)
}

/// "cpu", "cuda:0", "cuda:0,1".
fn devices_name(devices: &[tch::Device]) -> String {
    let mut name = device_name(first(devices));
    for device in devices.iter().skip(1) {
        if let tch::Device::Cuda(index) = device {
            name.push_str(&format!(",{index}"));
        }
    }
    name
}

/// The settings that a device and a machine of so many cores ask for, where
/// the configuration is silent.
pub fn settings(config: &Config, devices: &[tch::Device], cores: usize) -> EngineSettings {
    let (plan, max_batch) = match first(devices) {
        tch::Device::Cuda(_) => (
            ThreadPlan::for_cuda(cores, devices.len()),
            config
                .max_batch
                .unwrap_or(EngineSettings::MAX_BATCH_ON_CUDA),
        ),
        _ => (ThreadPlan::for_cpu(cores), config.engine.max_batch),
    };
    EngineSettings {
        max_batch,
        warm: match first(devices) {
            tch::Device::Cuda(_) => EngineSettings::warm_on_cuda(max_batch),
            _ => EngineSettings::warm_on_cpu(max_batch),
        },
        threads: config.threads.over(plan),
        ..config.engine.clone()
    }
}

/// Where the best classes are chosen: where the device decides, if it is found
/// to choose as the host does.
pub fn choosing(device: tch::Device) -> Choosing {
    if !device.is_cuda() {
        return Choosing::Automatic;
    }
    match best::verify(device) {
        Ok(()) => Choosing::Automatic,
        Err(reason) => {
            tracing::warn!(
                reason,
                "the best classes are chosen on the host: the device chose others"
            );
            Choosing::Host
        }
    }
}

/// Most bytes of caches on a device: on the CPU as set for the host, on CUDA
/// as set for the device, or half of what the card has left.
fn resident_bytes(config: &Config, device: tch::Device) -> usize {
    if !device.is_cuda() {
        return config.resident_bytes;
    }
    if let Some(bytes) = config.device_resident_bytes {
        return bytes;
    }
    match cuda::memory(device) {
        Ok(memory) => usize::try_from(memory.free / 2).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(error, "the card's memory is not known");
            config.resident_bytes
        }
    }
}

fn load(config: &Config) -> Result<Loaded, StartError> {
    let bundle = Bundle::open(&config.bundle)?;
    let devices = config.device.parse::<DeviceChoice>()?.open()?;
    let device = first(&devices);
    let kind = config.dtype.parse::<DtypeChoice>()?.on(device)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let graphs = config.cuda_graphs.parse::<GraphsChoice>()?;
    let settings = EngineSettings {
        choosing: choosing(device),
        ..settings(config, &devices, cores)
    };
    let lanes = settings.threads.workers.div_ceil(devices.len().max(1));
    let max_batch = settings.max_batch;
    let Encoders { image, text } = encoders(&bundle, &devices, kind, lanes, max_batch, graphs)?;
    tracing::info!(
        bundle = bundle.name,
        width = bundle.width,
        fingerprint = bundle.fingerprint,
        device = devices_name(&devices),
        dtype = kind_name(kind),
        decoders = settings.threads.decoders,
        workers = settings.threads.workers,
        torch_threads = settings.threads.intra_op,
        max_batch = settings.max_batch,
        "loaded the bundle"
    );
    let model = Model {
        name: bundle.name.clone(),
        fingerprint: bundle.fingerprint.clone(),
        width: bundle.width,
        image_size: bundle.image.as_ref().map_or(0, |image| image.size as usize),
        resize_to: bundle
            .image
            .as_ref()
            .map_or(0, |image| image.resize_to as usize),
        has_text: text.is_some(),
        logit_scale: bundle.logit_scale,
        templates: bundle.templates.clone(),
        device: devices_name(&devices),
        dtype: kind_name(kind).to_owned(),
    };
    let engine = Engine::start(settings, image, config.limits.picture)?;
    engine.wait_until_warm();
    // After warming: what batches need is taken by then.
    let resident_bytes = resident_bytes(config, device);
    let text = text.map(|(tokenizer, encoder)| TextRoom::new(tokenizer, encoder, engine.clone()));
    Ok(Loaded {
        engine,
        model,
        text,
        device,
        resident_bytes,
    })
}

async fn serve_probes(listener: TcpListener, context: Arc<Context>, metrics: PrometheusHandle) {
    let scraped = Arc::clone(&context);
    let probes = Router::new()
        .route(
            "/metrics",
            get(move || async move {
                telemetry::refresh(
                    &scraped.engine,
                    scraped.catalog.resident_figures(),
                    scraped.calls.count(),
                );
                ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render())
            }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if context.shutdown.is_cancelled() {
                    (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
                } else if !context.engine.is_healthy() {
                    (StatusCode::SERVICE_UNAVAILABLE, "the device is broken\n")
                } else {
                    (StatusCode::OK, "ready\n")
                }
            }),
        );
    if let Err(error) = axum::serve(listener, probes).await {
        tracing::error!(%error, "the metrics and probes are no longer served");
    }
}
