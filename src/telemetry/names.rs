//! The metrics' names and the values of their labels.

pub(super) const REQUESTS: &str = "tipserve_requests_total";
pub(super) const REQUEST: &str = "tipserve_request_seconds";
pub(super) const ITEMS: &str = "tipserve_items_total";
pub(super) const RECOGNISED: &str = "tipserve_recognised_items_total";
pub(super) const RECOGNISED_BY_VERSION: &str = "tipserve_version_recognised_items_total";
pub(super) const DRIFT: &str = "tipserve_version_drift_index";
pub(super) const REFUSED: &str = "tipserve_refused_items_total";
pub(super) const DROPPED: &str = "tipserve_dropped_items_total";
pub(super) const BATCHES: &str = "tipserve_batches_total";
pub(super) const BATCH_SIZE: &str = "tipserve_batch_size_pictures";
pub(super) const DECODE_QUEUE: &str = "tipserve_decode_queue_seconds";
pub(super) const DECODE: &str = "tipserve_decode_seconds";
pub(super) const QUEUE: &str = "tipserve_queue_seconds";
pub(super) const ENCODE: &str = "tipserve_encode_seconds";
pub(super) const HEAD: &str = "tipserve_head_seconds";
pub(super) const ITEM: &str = "tipserve_item_seconds";
pub(super) const IN_FLIGHT_REQUESTS: &str = "tipserve_in_flight_requests";
pub(super) const IN_FLIGHT_ITEMS: &str = "tipserve_in_flight_items";
pub(super) const IN_FLIGHT_BYTES: &str = "tipserve_in_flight_bytes";
pub(super) const QUEUE_DEPTH: &str = "tipserve_queue_depth_items";
pub(super) const RESIDENT: &str = "tipserve_resident_caches";
pub(super) const RESIDENT_BYTES: &str = "tipserve_resident_cache_bytes";
pub(super) const CACHE_HITS: &str = "tipserve_cache_hits_total";
pub(super) const CACHE_LOADS: &str = "tipserve_cache_loads_total";
pub(super) const CACHE_LOAD_FAILURES: &str = "tipserve_cache_load_failures_total";
pub(super) const CACHE_LOAD: &str = "tipserve_cache_load_seconds";
pub(super) const CACHE_EVICTIONS: &str = "tipserve_cache_evictions_total";
pub(super) const EMBEDDING_HITS: &str = "tipserve_embedding_cache_hits_total";
pub(super) const EMBEDDING_MISSES: &str = "tipserve_embedding_cache_misses_total";
pub(super) const EMBEDDING_COALESCED: &str = "tipserve_embedding_cache_coalesced_total";
pub(super) const EMBEDDING_BYTES: &str = "tipserve_embedding_cache_bytes";
pub(super) const EMBEDDING_ENTRIES: &str = "tipserve_embedding_cache_entries";
pub(super) const STORE_REQUESTS: &str = "tipserve_store_requests_total";
pub(super) const DISTRUSTED_WRITES: &str = "tipserve_store_distrusted_writes_total";
pub(super) const STORE_REQUEST: &str = "tipserve_store_request_seconds";
pub(super) const VERSIONS: &str = "tipserve_versions_created_total";
pub(super) const EPOCHS: &str = "tipserve_finetune_epochs_total";
pub(super) const EPOCH: &str = "tipserve_finetune_epoch_seconds";
pub(super) const RUNS_STARTED: &str = "tipserve_finetune_runs_started_total";
pub(super) const RUNS_ENDED: &str = "tipserve_finetune_runs_ended_total";
pub(super) const RUNS: &str = "tipserve_finetune_runs";
pub(super) const BUILD: &str = "tipserve_build_info";
pub(super) const LIMIT_ITEMS: &str = "tipserve_queue_limit_items";
pub(super) const LIMIT_BYTES: &str = "tipserve_queue_limit_bytes";
pub(super) const LIMIT_RESIDENT: &str = "tipserve_resident_cache_limit_bytes";
pub(super) const LIMIT_EMBEDDING: &str = "tipserve_embedding_cache_limit_bytes";
pub(super) const LIMIT_BATCH: &str = "tipserve_batch_limit_pictures";
pub(super) const BUNDLES: &str = "tipserve_bundles";
pub(super) const BUNDLE_LOADED: &str = "tipserve_bundle_loaded";
pub(super) const BUNDLE_ITEMS: &str = "tipserve_bundle_in_flight_items";
pub(super) const BUNDLE_PICTURES: &str = "tipserve_bundle_encoded_pictures_total";
pub(super) const BUNDLE_BATCHES: &str = "tipserve_bundle_batches_total";
pub(super) const CONNECTIONS: &str = "tipserve_connections";
pub(super) const REFUSED_CONNECTIONS: &str = "tipserve_refused_connections_total";
pub(super) const DROPPED_LOG_LINES: &str = "tipserve_dropped_log_lines_total";
pub(super) const WORKERS: &str = "tipserve_encoder_workers";

/// Where an item may wait: the label `stage`.
pub(super) const STAGES: [&str; 3] = ["decode", "encode", "head"];

/// How an item may be answered: the label `outcome`.
pub(super) const OUTCOMES: [&str; 2] = ["ok", "error"];

/// Whether an item counts as of a class that its version knows: the label
/// `outcome`.
pub(super) const RECOGNITION: [&str; 2] = ["accepted", "rejected"];

/// What may differ from a version's examples: the label `of`.
pub(super) const DRIFTS: [&str; 2] = ["similarity", "classes"];

/// Why items are refused, the only values of the label `reason`.
pub const REFUSALS: [&str; 4] = ["queue_items", "queue_bytes", "deadline", "items_per_second"];

/// Why connections are closed, the only values of their label `reason`.
pub(super) const CONNECTION_REFUSALS: [&str; 4] = [
    "max_connections",
    "max_address_connections",
    "timeout",
    "unread",
];
