//! What is recorded, and how the process is asked for it.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    build::{self, DefaultBundle},
    bundles,
    names::*,
    process, series,
};
use tipserve_api::code_name;
use tipserve_engine::{Engine, EngineSettings};

/// Seconds, from a tenth of a millisecond to ten.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Seconds that an RPC may take: a unary one some milliseconds, a stream hours.
const REQUEST_SECONDS: [f64; 15] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0,
];
/// Seconds that an epoch may take.
const EPOCH_SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0];
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Installs the process's recorder, with every series present at zero.
///
/// # Errors
/// If a recorder is installed already.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &SIZES)?
        .set_buckets_for_metric(Matcher::Full(REQUEST.to_owned()), &REQUEST_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(EPOCH.to_owned()), &EPOCH_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    let handle = builder.install_recorder()?;
    series::describe();
    process::describe();
    super::auth::describe();
    super::connections::describe();
    series::register();
    Ok(handle)
}

/// Every series, as Prometheus reads them.
pub fn render(handle: &PrometheusHandle) -> String {
    let mut text = handle.render();
    build::render(&mut text);
    super::versions::render(&mut text);
    text
}

/// An RPC ended; `method` is one of [`tipserve_api::methods::labels`].
pub fn request(method: &'static str, code: tonic::Code, took: Duration) {
    counter!(REQUESTS, "method" => method, "code" => code_name(code)).increment(1);
    histogram!(REQUEST, "method" => method).record(took);
}

/// Counts an item that was answered, with or without an error.
pub fn item(ok: bool) {
    let [good, bad] = OUTCOMES;
    counter!(ITEMS, "outcome" => if ok { good } else { bad }).increment(1);
}

/// A version said whether it knows an item's class.
pub fn recognised(version: &str, accepted: bool) {
    let [known, unknown] = RECOGNITION;
    let outcome = if accepted { known } else { unknown };
    counter!(RECOGNISED, "outcome" => outcome).increment(1);
    super::versions::recognised(version, accepted);
}

/// Counts an item that admission refused; `reason` is one of [`REFUSALS`].
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A cache version was loaded.
pub fn cache_loaded(seconds: f64) {
    histogram!(CACHE_LOAD).record(seconds);
}

/// A cache version was made.
pub fn version_created() {
    counter!(VERSIONS).increment(1);
}

/// An epoch of fine-tuning ended.
pub fn epoch(took: Duration) {
    counter!(EPOCHS).increment(1);
    histogram!(EPOCH).record(took);
}

/// A server serves from now on, within limits that do not change while it
/// runs: the engines', and most bytes of resident cache versions.
pub fn serving(settings: &EngineSettings, resident_bytes: usize) {
    for (name, value) in [
        (LIMIT_ITEMS, settings.queue_items),
        (LIMIT_BYTES, settings.queue_bytes),
        (LIMIT_RESIDENT, resident_bytes),
        (LIMIT_EMBEDDING, settings.embedding_cache_bytes),
        (LIMIT_BATCH, settings.max_batch),
        (WORKERS, settings.threads.workers),
    ] {
        gauge!(name).set(value as f64);
    }
}

/// What the resident set has done, as totals.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResidentFigures {
    /// Versions that are in memory.
    pub count: u64,
    /// Bytes of memory that they take.
    pub bytes: u64,
    /// Look-ups of versions that were in memory.
    pub hits: u64,
    /// Versions loaded since the start.
    pub loads: u64,
    /// Versions that could not be loaded.
    pub failures: u64,
    /// Versions dropped to free memory for others.
    pub evictions: u64,
}

/// The engines' counts and sizes, one engine for each loaded bundle.
pub struct EngineFigures {
    /// The bundle that serves requests that name none.
    pub default: DefaultBundle,
    /// Each engine that runs, with its bundle's name.
    pub engines: Vec<(String, Engine)>,
    /// Pictures that the embedding cache held, missed, and coalesced, for all
    /// bundles, those that are gone included.
    pub embeddings: [u64; 3],
}

/// Brings the gauges up to date; called before each scrape.
pub fn refresh(figures: EngineFigures, resident: ResidentFigures, calls: usize) {
    super::connections::refresh();
    build::serves(figures.default);
    gauge!(IN_FLIGHT_REQUESTS).set(calls as f64);
    let engines = &figures.engines;
    let sum = |of: &dyn Fn(&Engine) -> usize| -> f64 {
        engines.iter().map(|(_, engine)| of(engine)).sum::<usize>() as f64
    };
    gauge!(IN_FLIGHT_ITEMS).set(sum(&|engine| engine.admission().items()));
    gauge!(IN_FLIGHT_BYTES).set(sum(&|engine| engine.admission().bytes()));
    let mut waiting = [0; STAGES.len()];
    for (_, engine) in engines {
        for (sum, depth) in waiting.iter_mut().zip(engine.queued()) {
            *sum += depth;
        }
    }
    for (stage, depth) in STAGES.into_iter().zip(waiting) {
        gauge!(QUEUE_DEPTH, "stage" => stage).set(depth as f64);
    }
    bundles::refresh(engines);
    gauge!(RESIDENT).set(resident.count as f64);
    gauge!(RESIDENT_BYTES).set(resident.bytes as f64);
    counter!(CACHE_HITS).absolute(resident.hits);
    counter!(CACHE_LOADS).absolute(resident.loads);
    counter!(CACHE_LOAD_FAILURES).absolute(resident.failures);
    counter!(CACHE_EVICTIONS).absolute(resident.evictions);
    let names = [EMBEDDING_HITS, EMBEDDING_MISSES, EMBEDDING_COALESCED];
    for (name, count) in names.into_iter().zip(figures.embeddings) {
        counter!(name).absolute(count);
    }
    // One cache for all.
    let held = engines.first().map(|(_, engine)| engine.embeddings_held());
    let (entries, bytes) = held.unwrap_or_default();
    gauge!(EMBEDDING_ENTRIES).set(entries as f64);
    gauge!(EMBEDDING_BYTES).set(bytes as f64);
    process::collect();
}
