//! Settings as they are given: each declared once, for the command line, the
//! environment and the configuration file alike.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, listen::ListenAddress};
use crate::telemetry::LogFormat;

/// Under what `--help` lists what guards the server.
const GUARD: &str = "Who may call";

/// Declares the settings once, as flags, environment and TOML keys alike.
macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// Settings as given, each absent if it was not. The same names
        /// serve as flags (`--queue-items`), environment
        /// (`TIPSERVE_QUEUE_ITEMS`) and keys of the TOML file
        /// (`queue_items`).
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Given {
            $($(#[$meta])* pub $name: Option<$type>,)*
        }

        impl Given {
            /// The settings' names, as keys of the TOML file.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// These settings, and `under` where they are silent.
            #[must_use]
            pub fn over(self, under: Given) -> Given {
                Given { $($name: self.$name.or(under.$name),)* }
            }
        }
    };
}

settings! {
    /// Folder of the bundle to serve (see `python -m tipserve_export`).
    #[arg(long, env = "TIPSERVE_BUNDLE", value_name = "DIR")]
    bundle: PathBuf,
    /// Where caches are kept: a folder, or s3://, gs://, az:// [default: tipserve-store].
    #[arg(long, env = "TIPSERVE_STORE", value_name = "DIR|URL")]
    store: String,
    /// Address of the gRPC API [default: 127.0.0.1:50051].
    #[arg(long, env = "TIPSERVE_LISTEN", value_name = "ADDR")]
    listen: ListenAddress,
    /// Address of /metrics, /healthz and /readyz [default: 127.0.0.1:9090].
    #[arg(long, env = "TIPSERVE_METRICS_LISTEN", value_name = "ADDR")]
    metrics_listen: ListenAddress,
    /// Origins of the pages that browsers may call from (gRPC-web), separated by commas; * for
    /// all [default: none].
    #[arg(long, env = "TIPSERVE_WEB_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    web_origins: Vec<String>,
    /// Device: auto, cpu, cuda, cuda:N; several GPUs: cuda:N,M,… or cuda:all [default: auto].
    #[arg(long, env = "TIPSERVE_DEVICE")]
    device: String,
    /// Number format of the encoders: auto, float32, bfloat16, float16, int8 [default: auto].
    #[arg(long, env = "TIPSERVE_DTYPE")]
    dtype: String,
    /// Whether small batches are replayed as CUDA graphs: off, or auto for those that prove to be
    /// right and quicker at the start [default: off].
    #[arg(long, env = "TIPSERVE_CUDA_GRAPHS")]
    cuda_graphs: String,
    /// Log format [default: human].
    #[arg(long, env = "TIPSERVE_LOG_FORMAT", value_enum)]
    log_format: LogFormat,
    /// OpenTelemetry collector (OTLP over gRPC) that spans are sent to, such as
    /// http://127.0.0.1:4317 [default: OTEL_EXPORTER_OTLP_ENDPOINT, else none].
    #[arg(long, env = "TIPSERVE_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: String,
    /// Most pictures in one batch [default: CPU 32, CUDA 256].
    #[arg(long, env = "TIPSERVE_MAX_BATCH", value_name = "N")]
    max_batch: usize,
    /// How long an idle device waits for a batch to fill, in milliseconds [default: 0].
    #[arg(long, env = "TIPSERVE_MAX_QUEUE_DELAY_MS", value_name = "MS")]
    max_queue_delay_ms: u64,
    /// Most items in the server at once [default: 8192].
    #[arg(long, env = "TIPSERVE_QUEUE_ITEMS", value_name = "N")]
    queue_items: usize,
    /// Most bytes that these items may hold [default: 1 GiB].
    #[arg(long, env = "TIPSERVE_QUEUE_BYTES", value_name = "BYTES")]
    queue_bytes: usize,
    /// Most bytes of embeddings kept for pictures sent again; 0 keeps none [default: 0].
    #[arg(long, env = "TIPSERVE_EMBEDDING_CACHE_BYTES", value_name = "BYTES")]
    embedding_cache_bytes: usize,
    /// Most unanswered items of one stream [default: 512].
    #[arg(long, env = "TIPSERVE_STREAM_WINDOW", value_name = "N")]
    stream_window: usize,
    /// Decode large JPEGs at 1/2, 1/4 or 1/8, as long as each side keeps so many times the pixels
    /// that it is resized to (1 to 8; 0: never) [default: 0].
    #[arg(long, env = "TIPSERVE_JPEG_SHRINK", value_name = "TIMES")]
    jpeg_shrink: f64,
    /// Threads that decode pictures [default: one per core].
    #[arg(long, env = "TIPSERVE_DECODE_THREADS", value_name = "N")]
    decode_threads: usize,
    /// Workers that run the encoder, sharing its weights [default: CPU one per core, CUDA 3 per
    /// GPU].
    #[arg(long, env = "TIPSERVE_WORKERS", value_name = "N")]
    workers: usize,
    /// torch's threads per worker [default: 1].
    #[arg(long, env = "TIPSERVE_TORCH_THREADS", value_name = "N")]
    torch_threads: usize,
    /// Largest gRPC message taken, in bytes [default: 32 MiB].
    #[arg(long, env = "TIPSERVE_MAX_MESSAGE_BYTES", value_name = "BYTES")]
    max_message_bytes: usize,
    /// Largest picture file taken, in bytes [default: 32 MiB].
    #[arg(long, env = "TIPSERVE_MAX_PICTURE_BYTES", value_name = "BYTES")]
    max_picture_bytes: u64,
    /// Most pixels of a picture [default: 64,000,000].
    #[arg(long, env = "TIPSERVE_MAX_PIXELS", value_name = "N")]
    max_pixels: u64,
    /// Longest side of a picture, in pixels [default: 32,768].
    #[arg(long, env = "TIPSERVE_MAX_SIDE", value_name = "N")]
    max_side: u32,
    /// Most frames of an animation, of which the first is used [default: 10,000].
    #[arg(long, env = "TIPSERVE_MAX_FRAMES", value_name = "N")]
    max_frames: u64,
    /// Most bytes that decoding one picture may take [default: 640 MiB].
    #[arg(long, env = "TIPSERVE_MAX_DECODER_BYTES", value_name = "BYTES")]
    max_decoder_bytes: u64,
    /// Most classes of a cache [default: 100,000].
    #[arg(long, env = "TIPSERVE_MAX_CLASSES", value_name = "N")]
    max_classes: usize,
    /// Most examples in one CreateCache [default: 2,000,000].
    #[arg(long, env = "TIPSERVE_MAX_EXAMPLES", value_name = "N")]
    max_examples: usize,
    /// Most bytes of features in one CreateCache [default: 8 GiB].
    #[arg(long, env = "TIPSERVE_MAX_CREATE_BYTES", value_name = "BYTES")]
    max_create_bytes: usize,
    /// Largest exported version taken by ImportVersion, in bytes [default: 4 GiB].
    #[arg(long, env = "TIPSERVE_MAX_IMPORT_BYTES", value_name = "BYTES")]
    max_import_bytes: usize,
    /// How many of a cache's newest versions stay, beside those with an alias; 0 keeps all
    /// [default: 0].
    #[arg(long, env = "TIPSERVE_KEEP_VERSIONS", value_name = "N")]
    keep_versions: usize,
    /// Most bytes of caches kept in memory, on the CPU [default: 4 GiB].
    #[arg(long, env = "TIPSERVE_RESIDENT_BYTES", value_name = "BYTES")]
    resident_bytes: usize,
    /// Most bytes of caches kept in the memory of a GPU (the first, of several)
    /// [default: half of what the card has left].
    #[arg(long, env = "TIPSERVE_DEVICE_RESIDENT_BYTES", value_name = "BYTES")]
    device_resident_bytes: usize,
    /// PEM file of the server's certificate and those between it and its authority; with
    /// --tls-key the API is served by TLS.
    #[arg(long, env = "TIPSERVE_TLS_CERT", value_name = "FILE", help_heading = GUARD)]
    tls_cert: PathBuf,
    /// PEM file of the certificate's private key.
    #[arg(long, env = "TIPSERVE_TLS_KEY", value_name = "FILE", help_heading = GUARD)]
    tls_key: PathBuf,
    /// PEM file of the authorities whose certificates clients must show (mTLS).
    #[arg(long, env = "TIPSERVE_TLS_CLIENT_CA", value_name = "FILE", help_heading = GUARD)]
    tls_client_ca: PathBuf,
    /// PEM file of the certificate revocation lists of these authorities: clients whose
    /// certificates are in one are refused.
    #[arg(long, env = "TIPSERVE_TLS_CLIENT_CRL", value_name = "FILE", help_heading = GUARD)]
    tls_client_crl: PathBuf,
    /// TOML file of the tokens that clients must show (see `tipserve token new`).
    #[arg(long, env = "TIPSERVE_TOKENS", value_name = "FILE", help_heading = GUARD)]
    tokens: PathBuf,
    /// Let the API listen beyond this machine without TLS or without tokens.
    #[arg(long, env = "TIPSERVE_INSECURE", value_name = "BOOL", help_heading = GUARD,
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new())]
    insecure: bool,
    /// Let /metrics, /healthz and /readyz listen beyond this machine.
    #[arg(long, env = "TIPSERVE_EXPOSE_METRICS", value_name = "BOOL", help_heading = GUARD,
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new())]
    expose_metrics: bool,
    /// Seconds between two looks at whether certificates or tokens have changed; SIGHUP looks at
    /// once [default: 1].
    #[arg(long, env = "TIPSERVE_RELOAD_SECONDS", value_name = "S", help_heading = GUARD)]
    reload_seconds: u64,
    /// Most calls under way in the server, streams and unary ones [default: 10,000].
    #[arg(long, env = "TIPSERVE_MAX_STREAMS", value_name = "N")]
    max_streams: usize,
    /// Most calls under way in one connection [default: 1024].
    #[arg(long, env = "TIPSERVE_MAX_CONNECTION_STREAMS", value_name = "N")]
    max_connection_streams: u32,
    /// Most calls under way of one token whose entry has no max_streams [default: 1000].
    #[arg(long, env = "TIPSERVE_MAX_TOKEN_STREAMS", value_name = "N")]
    max_token_streams: usize,
    /// Most connections to the API [default: 4096].
    #[arg(long, env = "TIPSERVE_MAX_CONNECTIONS", value_name = "N")]
    max_connections: usize,
    /// Most connections to the API from one address [default: 512].
    #[arg(long, env = "TIPSERVE_MAX_ADDRESS_CONNECTIONS", value_name = "N")]
    max_address_connections: usize,
    /// Seconds after which a connection is asked to go once its calls have ended; after twice as
    /// many it is closed; 0: never [default: 3600].
    #[arg(long, env = "TIPSERVE_MAX_CONNECTION_AGE_SECONDS", value_name = "S")]
    max_connection_age_seconds: u64,
    /// Most bytes of messages that have begun to arrive, in the whole server; one caller may have
    /// half of them, one connection a quarter [default: 512 MiB].
    #[arg(long, env = "TIPSERVE_MAX_UNFINISHED_BYTES", value_name = "BYTES")]
    max_unfinished_bytes: usize,
    /// Seconds that a message may take to arrive, the first of a stream from its call on; a second
    /// more for every 16 KiB [default: 60].
    #[arg(long, env = "TIPSERVE_MESSAGE_SECONDS", value_name = "S")]
    message_seconds: u64,
    /// Most prompts of one version: its classes' own, or classes times templates
    /// [default: 1,000,000].
    #[arg(long, env = "TIPSERVE_MAX_PROMPTS", value_name = "N")]
    max_prompts: usize,
    /// Seconds that a shutdown may take [default: 30].
    #[arg(long, env = "TIPSERVE_SHUTDOWN_SECONDS", value_name = "S")]
    shutdown_seconds: u64,
}

/// Reads settings from a TOML file.
///
/// # Errors
/// Where it cannot be read, or holds a key or value that is not a setting's.
pub fn read_file(path: &Path) -> Result<Given, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}
