//! Every metric, named once, and tracing.
//!
//! Names follow Prometheus's conventions: base units, `_total` on counters,
//! histograms and never summaries (summaries cannot be added up across
//! replicas), labels from small fixed sets. Caches are never a label: a
//! server with 10,000 of them must not make 10,000 series.

use std::{sync::atomic::Ordering, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::engine::{Engine, StageTimes};

const REQUESTS: &str = "tipserve_requests_total";
const ITEMS: &str = "tipserve_items_total";
const REFUSED: &str = "tipserve_refused_items_total";
const BATCHES: &str = "tipserve_batches_total";
const BATCH_SIZE: &str = "tipserve_batch_size_pictures";
const DECODE_QUEUE: &str = "tipserve_decode_queue_seconds";
const DECODE: &str = "tipserve_decode_seconds";
const QUEUE: &str = "tipserve_queue_seconds";
const ENCODE: &str = "tipserve_encode_seconds";
const HEAD: &str = "tipserve_head_seconds";
const ITEM: &str = "tipserve_item_seconds";
const IN_FLIGHT_REQUESTS: &str = "tipserve_in_flight_requests";
const IN_FLIGHT_ITEMS: &str = "tipserve_in_flight_items";
const IN_FLIGHT_BYTES: &str = "tipserve_in_flight_bytes";
const QUEUE_DEPTH: &str = "tipserve_queue_depth_items";
const RESIDENT: &str = "tipserve_resident_caches";
const RESIDENT_BYTES: &str = "tipserve_resident_cache_bytes";
const CACHE_HITS: &str = "tipserve_cache_hits_total";
const CACHE_LOADS: &str = "tipserve_cache_loads_total";
const CACHE_LOAD: &str = "tipserve_cache_load_seconds";
const CACHE_EVICTIONS: &str = "tipserve_cache_evictions_total";
const EMBEDDING_HITS: &str = "tipserve_embedding_cache_hits_total";
const EMBEDDING_MISSES: &str = "tipserve_embedding_cache_misses_total";
const EMBEDDING_COALESCED: &str = "tipserve_embedding_cache_coalesced_total";
const EMBEDDING_BYTES: &str = "tipserve_embedding_cache_bytes";
const EMBEDDING_ENTRIES: &str = "tipserve_embedding_cache_entries";
const VERSIONS: &str = "tipserve_versions_created_total";
const EPOCHS: &str = "tipserve_finetune_epochs_total";
const GUARD_RELOADS: &str = "tipserve_guard_reloads_total";
const TLS_HANDSHAKE_FAILURES: &str = "tipserve_tls_handshake_failures_total";
const TLS_EXPIRY: &str = "tipserve_tls_certificate_expiry_timestamp_seconds";
const TOKENS: &str = "tipserve_tokens";

/// Seconds, from a tenth of a millisecond to ten.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The RPC methods, the only values of the label `method`.
pub const METHODS: [&str; 24] = [
    "CreateCache",
    "AddExamples",
    "GetCache",
    "ListCaches",
    "DeleteCache",
    "GetVersion",
    "ListVersions",
    "ListExamples",
    "DeleteVersion",
    "PruneVersions",
    "ExportVersion",
    "ImportVersion",
    "SetAlias",
    "DeleteAlias",
    "ClassifyStream",
    "Classify",
    "Embed",
    "Evaluate",
    "GetServerInfo",
    "FineTune",
    "ListFineTunes",
    "GetFineTune",
    "CancelFineTune",
    "other",
];

/// Why items are refused, the only values of the label `reason`.
pub const REFUSALS: [&str; 4] = ["queue_items", "queue_bytes", "deadline", "items_per_second"];

/// Installs the process's recorder, with every series present at zero.
///
/// # Errors
/// Where a recorder is installed already.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &SIZES)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
    let handle = builder.install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(REQUESTS, "RPCs ended, by method and gRPC code.");
    describe_counter!(ITEMS, "Items answered, by outcome.");
    describe_counter!(REFUSED, "Items refused at the door, by reason.");
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
    describe_counter!(VERSIONS, "Cache versions made.");
    describe_counter!(EPOCHS, "Epochs of fine-tuning run.");
    describe_guard();

    for method in METHODS {
        counter!(REQUESTS, "method" => method, "code" => "OK").absolute(0);
    }
    for outcome in ["ok", "error"] {
        counter!(ITEMS, "outcome" => outcome).absolute(0);
    }
    for reason in REFUSALS {
        counter!(REFUSED, "reason" => reason).absolute(0);
    }
    for name in [
        BATCHES,
        CACHE_HITS,
        CACHE_LOADS,
        CACHE_EVICTIONS,
        EMBEDDING_HITS,
        EMBEDDING_MISSES,
        EMBEDDING_COALESCED,
        VERSIONS,
        EPOCHS,
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
    ] {
        gauge!(name).set(0.0);
    }
    for stage in ["decode", "encode", "head"] {
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
    ] {
        // Registers the series; nothing is recorded.
        let _ = histogram!(name);
    }
}

/// What guards the server: present at zero where it is not asked for.
fn describe_guard() {
    describe_counter!(
        GUARD_RELOADS,
        "Changed certificates and tokens files read anew, by kind and outcome."
    );
    describe_counter!(
        TLS_HANDSHAKE_FAILURES,
        "TLS handshakes that failed or took too long."
    );
    describe_gauge!(
        TLS_EXPIRY,
        "When the server's certificate ends, seconds since 1970; 0 without TLS."
    );
    describe_gauge!(TOKENS, "Tokens that the server knows.");
    for kind in ["tls", "tokens"] {
        for outcome in ["ok", "error"] {
            counter!(GUARD_RELOADS, "kind" => kind, "outcome" => outcome).absolute(0);
        }
    }
    counter!(TLS_HANDSHAKE_FAILURES).absolute(0);
    gauge!(TLS_EXPIRY).set(0.0);
    gauge!(TOKENS).set(0.0);
}

/// A changed file of the guard was read anew, or could not be used.
pub fn guard_reloaded(kind: &'static str, ok: bool) {
    let outcome = if ok { "ok" } else { "error" };
    counter!(GUARD_RELOADS, "kind" => kind, "outcome" => outcome).increment(1);
}

/// A TLS handshake failed.
pub fn handshake_failed() {
    counter!(TLS_HANDSHAKE_FAILURES).increment(1);
}

/// The certificate in force ends then (seconds since 1970).
pub fn certificate_ends(at: i64) {
    gauge!(TLS_EXPIRY).set(at as f64);
}

/// So many tokens are in force.
pub fn tokens_known(count: usize) {
    gauge!(TOKENS).set(count as f64);
}

/// An RPC ended.
pub fn request(method: &str, code: tonic::Code) {
    let method = METHODS.iter().find(|m| **m == method).unwrap_or(&"other");
    counter!(REQUESTS, "method" => *method, "code" => code_name(code)).increment(1);
}

/// A code as gRPC spells it.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// An item was answered.
pub fn item(ok: bool) {
    counter!(ITEMS, "outcome" => if ok { "ok" } else { "error" }).increment(1);
}

/// An item was refused at the door; `reason` is one of [`REFUSALS`].
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A picture was decoded.
pub(crate) fn decoded(times: &StageTimes) {
    histogram!(DECODE_QUEUE).record(times.decode_queue);
    histogram!(DECODE).record(times.decode);
}

/// The encoder ran a batch.
pub(crate) fn batch(size: usize, took: Duration) {
    counter!(BATCHES).increment(1);
    histogram!(BATCH_SIZE).record(size as f64);
    histogram!(ENCODE).record(took);
}

/// A head ran.
pub(crate) fn head(took: Duration) {
    histogram!(HEAD).record(took);
}

/// An item left the engine.
pub(crate) fn answered(times: &StageTimes) {
    histogram!(QUEUE).record(times.queue);
    histogram!(ITEM).record(times.total);
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
pub fn epoch() {
    counter!(EPOCHS).increment(1);
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
    /// Versions dropped for room.
    pub evictions: u64,
}

/// Brings the gauges up to date; called before each scrape.
pub fn refresh(engine: &Engine, resident: ResidentFigures, calls: usize) {
    gauge!(IN_FLIGHT_REQUESTS).set(calls as f64);
    gauge!(IN_FLIGHT_ITEMS).set(engine.admission().items() as f64);
    gauge!(IN_FLIGHT_BYTES).set(engine.admission().bytes() as f64);
    for (stage, depth) in ["decode", "encode", "head"]
        .into_iter()
        .zip(engine.queued())
    {
        gauge!(QUEUE_DEPTH, "stage" => stage).set(depth as f64);
    }
    gauge!(RESIDENT).set(resident.count as f64);
    gauge!(RESIDENT_BYTES).set(resident.bytes as f64);
    counter!(CACHE_HITS).absolute(resident.hits);
    counter!(CACHE_LOADS).absolute(resident.loads);
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
}

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The filter, with audit lines let through unless it names them itself.
fn with_audit(filter: tracing_subscriber::EnvFilter) -> tracing_subscriber::EnvFilter {
    use crate::guard::audit::TARGET;
    let named = filter.to_string().contains(TARGET);
    match format!("{TARGET}=info").parse() {
        Ok(directive) if !named => filter.add_directive(directive),
        _ => filter,
    }
}

/// Starts logging to standard error. `RUST_LOG` filters; default `info`.
pub fn install_tracing(format: LogFormat) {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = with_audit(filter);
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second installation (tests in one process) changes nothing.
    let _ = match format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
