//! Every metric: registered at zero, then recorded.

use std::{sync::atomic::Ordering, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use super::{
    names::*,
    observers::{BUCKET_ANSWERS, DROPS},
    runs,
};
use tipserve_api::{CODES, code_name, methods};
use tipserve_engine::Engine;

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
/// Where a recorder is installed already.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &SIZES)?
        .set_buckets_for_metric(Matcher::Full(REQUEST.to_owned()), &REQUEST_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(EPOCH.to_owned()), &EPOCH_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    let handle = builder.install_recorder()?;
    describe();
    register();
    Ok(handle)
}

fn describe() {
    describe_counter!(REQUESTS, "RPCs ended, by method and gRPC code.");
    describe_histogram!(
        REQUEST,
        "Seconds from an RPC's arrival to its end, a stream's included."
    );
    describe_counter!(
        ITEMS,
        "Pictures, embeddings and texts answered by Classify, ClassifyStream, Embed and Evaluate, \
         by outcome."
    );
    describe_counter!(REFUSED, "Items refused at the door, by reason.");
    describe_counter!(
        DROPPED,
        "Items given up between the door and their answer, by reason."
    );
    describe_counter!(BATCHES, "Batches that the encoder ran.");
    describe_histogram!(BATCH_SIZE, "Pictures in a batch.");
    describe_histogram!(DECODE_QUEUE, "Seconds that a picture waits for a decoder.");
    describe_histogram!(
        DECODE,
        "Seconds that decoding and resizing a picture takes."
    );
    describe_histogram!(
        QUEUE,
        "Seconds that a prepared picture waits for its batch."
    );
    describe_histogram!(ENCODE, "Seconds that a batch takes in the encoder.");
    describe_histogram!(HEAD, "Seconds that a head takes for its part of a batch.");
    describe_histogram!(ITEM, "Seconds from an item's arrival to its answer.");
    describe_gauge!(IN_FLIGHT_REQUESTS, "RPCs under way.");
    describe_gauge!(IN_FLIGHT_ITEMS, "Items admitted and not yet answered.");
    describe_gauge!(IN_FLIGHT_BYTES, "Bytes that admitted items hold.");
    describe_gauge!(QUEUE_DEPTH, "Items waiting, by stage.");
    describe_gauge!(RESIDENT, "Cache versions in memory.");
    describe_gauge!(RESIDENT_BYTES, "Bytes that resident cache versions hold.");
    describe_counter!(CACHE_HITS, "Look-ups of a resident cache version.");
    describe_counter!(CACHE_LOADS, "Cache versions loaded from the store.");
    describe_counter!(
        CACHE_LOAD_FAILURES,
        "Cache versions that could not be loaded."
    );
    describe_histogram!(CACHE_LOAD, "Seconds that loading a cache version takes.");
    describe_counter!(CACHE_EVICTIONS, "Cache versions dropped to make room.");
    describe_counter!(EMBEDDING_HITS, "Pictures whose embedding was held.");
    describe_counter!(
        EMBEDDING_MISSES,
        "Pictures encoded because their embedding was not held."
    );
    describe_counter!(
        EMBEDDING_COALESCED,
        "Pictures that took the embedding of an equal one in flight."
    );
    describe_gauge!(EMBEDDING_BYTES, "Bytes that held embeddings take.");
    describe_gauge!(EMBEDDING_ENTRIES, "Embeddings held.");
    describe_counter!(
        STORE_REQUESTS,
        "HTTP requests to the store's bucket, retries included, by outcome."
    );
    describe_histogram!(
        STORE_REQUEST,
        "Seconds until the store's bucket answers a request."
    );
    describe_counter!(
        DISTRUSTED_WRITES,
        "Writes refused because the store's disk failed to make them durable."
    );
    describe_counter!(VERSIONS, "Cache versions made.");
    describe_counter!(EPOCHS, "Epochs of fine-tuning run.");
    describe_histogram!(EPOCH, "Seconds that an epoch of fine-tuning takes.");
    describe_counter!(RUNS_STARTED, "Fine-tuning runs asked for.");
    describe_counter!(RUNS_ENDED, "Fine-tuning runs ended, by outcome.");
    describe_gauge!(RUNS, "Fine-tuning runs that wait or train, by state.");
    describe_gauge!(BUILD, "1, with what is served as labels.");
    describe_gauge!(LIMIT_ITEMS, "Most items in the server at once.");
    describe_gauge!(LIMIT_BYTES, "Most bytes that these items may hold.");
    describe_gauge!(
        LIMIT_RESIDENT,
        "Most bytes of cache versions kept in memory."
    );
    describe_gauge!(LIMIT_EMBEDDING, "Most bytes of embeddings kept; 0: none.");
    describe_gauge!(LIMIT_BATCH, "Most pictures in a batch.");
    describe_gauge!(WORKERS, "Workers that run the encoder.");
    process().describe();
    super::guard::describe();
    super::connections::describe();
}

fn process() -> Collector {
    Collector::default()
}

/// Brings every series into being, at zero.
fn register() {
    for method in methods::labels() {
        for code in CODES {
            counter!(REQUESTS, "method" => method, "code" => code_name(code)).absolute(0);
        }
        let _ = histogram!(REQUEST, "method" => method);
    }
    for outcome in BUCKET_ANSWERS {
        counter!(STORE_REQUESTS, "outcome" => outcome).absolute(0);
    }
    counter!(DISTRUSTED_WRITES).absolute(0);
    for reason in DROPS {
        counter!(DROPPED, "reason" => reason).absolute(0);
    }
    runs::register();
    for outcome in OUTCOMES {
        counter!(ITEMS, "outcome" => outcome).absolute(0);
    }
    for reason in REFUSALS {
        counter!(REFUSED, "reason" => reason).absolute(0);
    }
    for name in [
        BATCHES,
        CACHE_HITS,
        CACHE_LOADS,
        CACHE_LOAD_FAILURES,
        CACHE_EVICTIONS,
        EMBEDDING_HITS,
        EMBEDDING_MISSES,
        EMBEDDING_COALESCED,
        VERSIONS,
        EPOCHS,
        RUNS_STARTED,
    ] {
        counter!(name).absolute(0);
    }
    for name in [
        IN_FLIGHT_REQUESTS,
        IN_FLIGHT_ITEMS,
        IN_FLIGHT_BYTES,
        RESIDENT,
        RESIDENT_BYTES,
        EMBEDDING_BYTES,
        EMBEDDING_ENTRIES,
        LIMIT_ITEMS,
        LIMIT_BYTES,
        LIMIT_RESIDENT,
        LIMIT_EMBEDDING,
        LIMIT_BATCH,
        WORKERS,
    ] {
        gauge!(name).set(0.0);
    }
    for stage in STAGES {
        gauge!(QUEUE_DEPTH, "stage" => stage).set(0.0);
    }
    for name in [
        BATCH_SIZE,
        DECODE_QUEUE,
        DECODE,
        QUEUE,
        ENCODE,
        HEAD,
        ITEM,
        CACHE_LOAD,
        STORE_REQUEST,
        EPOCH,
    ] {
        // Registers the series; nothing is recorded.
        let _ = histogram!(name);
    }
}

/// An RPC ended; `method` is one of [`methods::labels`].
pub fn request(method: &'static str, code: tonic::Code, took: Duration) {
    counter!(REQUESTS, "method" => method, "code" => code_name(code)).increment(1);
    histogram!(REQUEST, "method" => method).record(took);
}

/// An item was answered.
pub fn item(ok: bool) {
    let [good, bad] = OUTCOMES;
    counter!(ITEMS, "outcome" => if ok { good } else { bad }).increment(1);
}

/// An item was refused at the door; `reason` is one of [`REFUSALS`].
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

/// What is served, and within which limits: what never changes while a server
/// runs.
#[derive(Clone, Debug)]
pub struct About {
    /// The bundle's name.
    pub bundle: String,
    /// "cpu", "cuda:0".
    pub device: String,
    /// "float32", "bfloat16", "float16".
    pub dtype: String,
    /// Most bytes of resident cache versions.
    pub resident_bytes: usize,
}

/// A server serves from now on.
pub fn serving(about: &About, engine: &Engine) {
    gauge!(
        BUILD,
        "version" => env!("CARGO_PKG_VERSION"),
        "bundle" => about.bundle.clone(),
        "device" => about.device.clone(),
        "dtype" => about.dtype.clone(),
    )
    .set(1.0);
    let settings = engine.settings();
    for (name, value) in [
        (LIMIT_ITEMS, settings.queue_items),
        (LIMIT_BYTES, settings.queue_bytes),
        (LIMIT_RESIDENT, about.resident_bytes),
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
    /// Versions in memory.
    pub count: u64,
    /// Bytes that they hold.
    pub bytes: u64,
    /// Look-ups that found theirs.
    pub hits: u64,
    /// Versions loaded.
    pub loads: u64,
    /// Versions that could not be loaded.
    pub failures: u64,
    /// Versions dropped for room.
    pub evictions: u64,
}

/// Brings the gauges up to date; called before each scrape.
pub fn refresh(engine: &Engine, resident: ResidentFigures, calls: usize) {
    super::connections::refresh();
    gauge!(IN_FLIGHT_REQUESTS).set(calls as f64);
    gauge!(IN_FLIGHT_ITEMS).set(engine.admission().items() as f64);
    gauge!(IN_FLIGHT_BYTES).set(engine.admission().bytes() as f64);
    for (stage, depth) in STAGES.into_iter().zip(engine.queued()) {
        gauge!(QUEUE_DEPTH, "stage" => stage).set(depth as f64);
    }
    gauge!(RESIDENT).set(resident.count as f64);
    gauge!(RESIDENT_BYTES).set(resident.bytes as f64);
    counter!(CACHE_HITS).absolute(resident.hits);
    counter!(CACHE_LOADS).absolute(resident.loads);
    counter!(CACHE_LOAD_FAILURES).absolute(resident.failures);
    counter!(CACHE_EVICTIONS).absolute(resident.evictions);
    let counters = engine.counters();
    for (name, count) in [
        (EMBEDDING_HITS, &counters.embedding_hits),
        (EMBEDDING_MISSES, &counters.embedding_misses),
        (EMBEDDING_COALESCED, &counters.embedding_coalesced),
    ] {
        counter!(name).absolute(count.load(Ordering::Relaxed));
    }
    let (entries, bytes) = engine.embeddings_held();
    gauge!(EMBEDDING_ENTRIES).set(entries as f64);
    gauge!(EMBEDDING_BYTES).set(bytes as f64);
    process().collect();
}
