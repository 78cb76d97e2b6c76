//! Every series, described and present at zero from the start. Those by version
//! are in [`super::versions`].

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{
    names::*,
    observers::{BUCKET_ANSWERS, DROPS},
    runs,
};
use tipserve_api::{CODES, code_name, methods};

/// Counters without labels, with their help.
const COUNTERS: [(&str, &str); 12] = [
    (BATCHES, "Batches that the encoder ran."),
    (CACHE_HITS, "Look-ups of a resident cache version."),
    (CACHE_LOADS, "Cache versions loaded from the store."),
    (
        CACHE_LOAD_FAILURES,
        "Cache versions that could not be loaded.",
    ),
    (
        CACHE_EVICTIONS,
        "Cache versions dropped from memory for others.",
    ),
    (EMBEDDING_HITS, "Pictures whose embedding was held."),
    (
        EMBEDDING_MISSES,
        "Pictures encoded because their embedding was not held.",
    ),
    (
        EMBEDDING_COALESCED,
        "Pictures that took the embedding of an equal one in flight.",
    ),
    (
        DISTRUSTED_WRITES,
        "Writes refused because the store's disk failed to make them durable.",
    ),
    (VERSIONS, "Cache versions made."),
    (EPOCHS, "Epochs of fine-tuning run."),
    (RUNS_STARTED, "Fine-tuning runs asked for."),
];
const LABELLED_COUNTERS: [(&str, &str); 9] = [
    (REQUESTS, "RPCs ended, by method and gRPC code."),
    (
        ITEMS,
        "Pictures, embeddings and texts answered by Classify, ClassifyStream, Embed and Evaluate, by outcome.",
    ),
    (
        RECOGNISED,
        "Items that a version recognised or rejected, by outcome.",
    ),
    (REFUSED, "Items refused at admission, by reason."),
    (
        DROPPED,
        "Items given up between admission and their answer, by reason.",
    ),
    (
        STORE_REQUESTS,
        "HTTP requests to the store's bucket, retries included, by outcome.",
    ),
    (RUNS_ENDED, "Fine-tuning runs ended, by outcome."),
    (
        BUNDLE_PICTURES,
        "Pictures that went through a bundle's encoder, by bundle.",
    ),
    (
        BUNDLE_BATCHES,
        "Batches that a bundle's encoder ran, by bundle.",
    ),
];
const GAUGES: [(&str, &str); 14] = [
    (IN_FLIGHT_REQUESTS, "RPCs under way."),
    (IN_FLIGHT_ITEMS, "Items admitted and not yet answered."),
    (IN_FLIGHT_BYTES, "Bytes that admitted items hold."),
    (RESIDENT, "Cache versions in memory."),
    (RESIDENT_BYTES, "Bytes that resident cache versions hold."),
    (EMBEDDING_BYTES, "Bytes that held embeddings take."),
    (EMBEDDING_ENTRIES, "Embeddings held."),
    (LIMIT_ITEMS, "Most items in the server at once."),
    (LIMIT_BYTES, "Most bytes that these items may hold."),
    (
        LIMIT_RESIDENT,
        "Most bytes of cache versions kept in memory.",
    ),
    (LIMIT_EMBEDDING, "Most bytes of embeddings kept; 0: none."),
    (LIMIT_BATCH, "Most pictures in a batch."),
    (WORKERS, "Workers that run the encoder."),
    (
        BUNDLES,
        "Bundles that are loaded, those that are being unloaded included.",
    ),
];
const LABELLED_GAUGES: [(&str, &str); 4] = [
    (QUEUE_DEPTH, "Items waiting, by stage."),
    (RUNS, "Fine-tuning runs that wait or train, by state."),
    (BUNDLE_LOADED, "1 while a bundle is loaded, by bundle."),
    (
        BUNDLE_ITEMS,
        "Items that a bundle has admitted and not yet answered, by bundle.",
    ),
];
const HISTOGRAMS: [(&str, &str); 10] = [
    (BATCH_SIZE, "Pictures in a batch."),
    (DECODE_QUEUE, "Seconds that a picture waits for a decoder."),
    (
        DECODE,
        "Seconds that decoding and resizing a picture takes.",
    ),
    (
        QUEUE,
        "Seconds that a prepared picture waits for its batch.",
    ),
    (ENCODE, "Seconds that a batch takes in the encoder."),
    (HEAD, "Seconds that a head takes for its part of a batch."),
    (ITEM, "Seconds from an item's arrival to its answer."),
    (CACHE_LOAD, "Seconds that loading a cache version takes."),
    (
        STORE_REQUEST,
        "Seconds until the store's bucket answers a request.",
    ),
    (EPOCH, "Seconds that an epoch of fine-tuning takes."),
];
const LABELLED_HISTOGRAMS: [(&str, &str); 1] = [(
    REQUEST,
    "Seconds from an RPC's arrival to its end, a stream's included.",
)];

/// Gives every metric its help.
pub(super) fn describe() {
    for (name, help) in COUNTERS.into_iter().chain(LABELLED_COUNTERS) {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES.into_iter().chain(LABELLED_GAUGES) {
        describe_gauge!(name, help);
    }
    for (name, help) in HISTOGRAMS.into_iter().chain(LABELLED_HISTOGRAMS) {
        describe_histogram!(name, help);
    }
}

/// Brings every series into being, at zero.
pub(super) fn register() {
    for method in methods::labels() {
        for code in CODES {
            counter!(REQUESTS, "method" => method, "code" => code_name(code)).absolute(0);
        }
        let _ = histogram!(REQUEST, "method" => method);
    }
    for (name, label, values) in [
        (STORE_REQUESTS, "outcome", &BUCKET_ANSWERS[..]),
        (DROPPED, "reason", &DROPS),
        (ITEMS, "outcome", &OUTCOMES),
        (RECOGNISED, "outcome", &RECOGNITION),
        (REFUSED, "reason", &REFUSALS),
    ] {
        for &value in values {
            counter!(name, label => value).absolute(0);
        }
    }
    runs::register();
    for (name, _) in COUNTERS {
        counter!(name).absolute(0);
    }
    for (name, _) in GAUGES {
        gauge!(name).set(0.0);
    }
    for stage in STAGES {
        gauge!(QUEUE_DEPTH, "stage" => stage).set(0.0);
    }
    for (name, _) in HISTOGRAMS {
        // Registers the series; nothing is recorded.
        let _ = histogram!(name);
    }
}
