//! The settings, each declared once: flags, environment, configuration file and
//! documentation are generated from the declaration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};

use super::{ConfigError, listen::ListenAddress, rule::Setting};
use crate::telemetry::LogFormat;

/// The heading under which `--help` lists the settings of authentication.
const GUARD: &str = "Who may call";

/// Declares the settings: each once, with its help, type, variable, value's
/// name and rule. Flags, environment, TOML keys, checks, the table in
/// docs/operations.md and `GetServerInfo`'s limits come from here.
macro_rules! settings {
    ($(
        $(#[doc = $help:literal])+
        $(#[arg($($arg:tt)*)])?
        $(#[serde($($serde:tt)*)])?
        $name:ident: $type:ty, $variable:literal, $value:literal, $rule:expr;
    )*) => {
        /// Settings as given, each absent if it was not. The same names
        /// serve as flags (`--queue-items`), environment
        /// (`TIPSERVE_QUEUE_ITEMS`) and keys of the TOML file
        /// (`queue_items`).
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Given {
            $(
                $(#[doc = $help])+
                #[arg(
                    long,
                    env = $variable,
                    value_name = $value,
                    help = declared::$name.help_text(),
                    $($($arg)*)?
                )]
                $(#[serde($($serde)*)])?
                pub $name: Option<$type>,
            )*
        }

        /// Every setting, by its name.
        #[allow(non_upper_case_globals)]
        pub(super) mod declared {
            use super::super::rule::*;

            $(
                pub const $name: Setting = Setting {
                    name: stringify!($name),
                    variable: $variable,
                    value_name: $value,
                    help: concat!($($help),+),
                    rule: $rule,
                };
            )*
        }

        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$(declared::$name),*];

        impl Given {
            /// These settings, and `under` where they are silent.
            #[must_use]
            pub fn over(self, under: Given) -> Given {
                Given { $($name: self.$name.or(under.$name),)* }
            }

            /// The limits that `GetServerInfo` reports: as given, or their
            /// defaults. Those whose default depends on the device are absent.
            pub(super) fn limits(&self) -> BTreeMap<&'static str, i64> {
                let values = [$(
                    (declared::$name, self.$name.as_ref().and_then(Whole::whole)),
                )*];
                values
                    .into_iter()
                    .filter(|(setting, _)| setting.is_limit())
                    .filter_map(|(setting, given)| {
                        let value = given.or(setting.default_number())?;
                        Some((setting.name, i64::try_from(value).unwrap_or(i64::MAX)))
                    })
                    .collect()
            }
        }
    };
}

/// A setting's value, which `GetServerInfo` reports if it is a whole number.
trait Whole {
    /// The value, if its type is a whole number's.
    fn whole(&self) -> Option<u64>;
}

macro_rules! whole {
    ($($number:ty),*; $($other:ty),*) => {
        $(impl Whole for $number {
            fn whole(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        })*
        $(impl Whole for $other {
            fn whole(&self) -> Option<u64> {
                None
            }
        })*
    };
}

whole!(
    usize, u64, u32;
    f64, bool, String, Vec<String>, PathBuf, Vec<PathBuf>, ListenAddress, LogFormat
);

/// One path, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a path or a list of paths")]
    enum Paths {
        One(PathBuf),
        Several(Vec<PathBuf>),
    }
    Ok(Some(match Paths::deserialize(from)? {
        Paths::One(path) => vec![path],
        Paths::Several(paths) => paths,
    }))
}

settings! {
    /// Bundle to serve (see `python -m tipserve_export`), or a folder of bundles; repeated, or
    /// separated by commas, several. The first is the default.
    #[arg(value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_several")]
    bundle: Vec<PathBuf>, "TIPSERVE_BUNDLE", "DIR",
        required("folders, separated by commas (in TOML a list): each a bundle, or with bundles \
            in it; the first is the default ([bundles.md](bundles.md#several-bundles))");
    /// Folder whose bundles may be loaded while the server runs; repeated, or separated by commas,
    /// several.
    #[arg(value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_several")]
    bundle_folders: Vec<PathBuf>, "TIPSERVE_BUNDLE_FOLDERS", "DIR",
        otherwise("none", "folders of bundles that `LoadBundle` may load, beside those of \
            `bundle`, separated by commas (in TOML a list)");
    /// Where caches are kept: a folder, or s3://, gs://, az://.
    store: String, "TIPSERVE_STORE", "DIR|URL",
        text("tipserve-store", "a folder, `s3://`, `gs://`, `az://` ([storage.md](storage.md))");
    /// Where the API listens: an address and a port, localhost:PORT, or unix:/path, a socket file.
    listen: ListenAddress, "TIPSERVE_LISTEN", "ADDR",
        text("127.0.0.1:50051", "address:port, `localhost:PORT` (127.0.0.1; other names are not \
            looked up), port 0 for a free one, or `unix:/path` ([a socket \
            file](#a-socket-file))");
    /// Permissions of the socket file that --listen names, in octal digits.
    listen_mode: String, "TIPSERVE_LISTEN_MODE", "MODE",
        text("600", "octal digits that let the owner read and write: `600`, `660`, `666`");
    /// Address of /metrics, /healthz and /readyz.
    metrics_listen: ListenAddress, "TIPSERVE_METRICS_LISTEN", "ADDR",
        text("127.0.0.1:9090", "address:port");
    /// Origins of the pages that browsers may call from (gRPC-web), separated by commas; * for all.
    #[arg(value_delimiter = ',')]
    web_origins: Vec<String>, "TIPSERVE_WEB_ORIGINS", "ORIGIN",
        otherwise("none", "origins of other pages that browsers may call from, and public names of a \
            server without tokens or TLS, separated by commas (in TOML a list): \
            `https://example.org`, `*` ([http.md](http.md#browsers))");
    /// Device: auto, cpu, cuda, cuda:N; several GPUs: cuda:N,M,… or cuda:all.
    device: String, "TIPSERVE_DEVICE", "DEVICE",
        text("auto", "`auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M,…`, `cuda:all` ([gpu.md](gpu.md))")
            .note(": the first GPU, if there is one");
    /// Number format of the encoders: auto, float32, bfloat16, float16, int8.
    dtype: String, "TIPSERVE_DTYPE", "DTYPE",
        text("auto", "`auto`, `float32`, `bfloat16`, `float16` (CUDA only), `int8` (x86-64 CPUs \
            with such instructions, bundles with an int8 archive)")
            .note(": float16 on CUDA; on a CPU int8 if it has int8 instructions (AVX-512 VNNI, \
                AVX-VNNI, AMX) and the bundle has [8-bit encoders](performance.md#8-bit-encoders) \
                that agree with the float ones (the text encoder is int8 only if it agrees, too), \
                else bfloat16 if it has instructions for that \
                (AMX, AVX512-BF16), else float32");
    /// Replay of small batches as CUDA graphs: off, or auto (those that a trial at the start finds
    /// right and quicker).
    cuda_graphs: String, "TIPSERVE_CUDA_GRAPHS", "CUDA_GRAPHS",
        text("off", "`off`; `auto`: small batches are replayed if a trial at the start \
            finds that right and quicker ([gpu.md](gpu.md#how-it-works))");
    /// Log format.
    #[arg(value_enum)]
    log_format: LogFormat, "TIPSERVE_LOG_FORMAT", "LOG_FORMAT",
        text("human", "`human`, `json`");
    /// OpenTelemetry collector (OTLP over gRPC) that spans are sent to, such as
    /// http://127.0.0.1:4317.
    otlp_endpoint: String, "TIPSERVE_OTLP_ENDPOINT", "URL",
        otherwise("OTEL_EXPORTER_OTLP_ENDPOINT, else none", "an `http://` or `https://` URL of a \
            collector of [traces](#traces)");
    /// Most pictures in one batch.
    max_batch: usize, "TIPSERVE_MAX_BATCH", "N",
        decided("16 on a CPU, 256 on CUDA", (1, 4096)).limit();
    /// How long an idle device waits for a batch to fill, in milliseconds.
    max_queue_delay_ms: u64, "TIPSERVE_MAX_QUEUE_DELAY_MS", "MS",
        number(0, (0, 60_000));
    /// Most items in the server at once.
    queue_items: usize, "TIPSERVE_QUEUE_ITEMS", "N",
        number(8192, COUNT).limit();
    /// Most bytes that these items may hold.
    queue_bytes: usize, "TIPSERVE_QUEUE_BYTES", "BYTES",
        number(1 << 30, BYTES).limit();
    /// Most bytes of embeddings kept for pictures sent again; 0 keeps none.
    embedding_cache_bytes: usize, "TIPSERVE_EMBEDDING_CACHE_BYTES", "BYTES",
        number(0, (0, 1 << 50)).note(": off").limit();
    /// Most unanswered items of one stream.
    stream_window: usize, "TIPSERVE_STREAM_WINDOW", "N",
        number(512, COUNT).limit();
    /// Decode large JPEGs at 1/2, 1/4 or 1/8, as long as each side keeps at least this many
    /// times the pixels that it is resized to (1 to 8; 0: never).
    jpeg_shrink: f64, "TIPSERVE_JPEG_SHRINK", "TIMES",
        otherwise("0", "0, or 1 to 8").note(": never ([large JPEGs](#large-jpegs))");
    /// Threads that decode pictures.
    decode_threads: usize, "TIPSERVE_DECODE_THREADS", "N",
        decided("one per core", THREADS);
    /// Workers that run the encoder, sharing its weights.
    workers: usize, "TIPSERVE_WORKERS", "N",
        decided("one per core on a CPU, 3 per GPU on CUDA", THREADS);
    /// torch's threads per worker.
    torch_threads: usize, "TIPSERVE_TORCH_THREADS", "N",
        decided("1", THREADS);
    /// The most torch threads of a batch that runs alone; 1: as any other.
    lone_batch_threads: usize, "TIPSERVE_LONE_BATCH_THREADS", "N",
        decided("as all workers have on a CPU, 1 on CUDA", THREADS);
    /// Largest gRPC message taken, in bytes.
    max_message_bytes: usize, "TIPSERVE_MAX_MESSAGE_BYTES", "BYTES",
        number(32 << 20, BYTES).limit();
    /// Largest picture file taken, in bytes.
    max_picture_bytes: u64, "TIPSERVE_MAX_PICTURE_BYTES", "BYTES",
        number(32 << 20, (1, 1 << 32)).limit();
    /// Most pixels of a picture.
    max_pixels: u64, "TIPSERVE_MAX_PIXELS", "N",
        number(64_000_000, (1, 1 << 32)).limit();
    /// Longest side of a picture, in pixels.
    max_side: u32, "TIPSERVE_MAX_SIDE", "N",
        number(32_768, (1, 1 << 20)).note(" pixels").limit();
    /// Most frames of an animation, of which the first is used.
    max_frames: u64, "TIPSERVE_MAX_FRAMES", "N",
        number(10_000, (1, 1 << 32)).note(" (of an animation, of which the first is used)").limit();
    /// Most bytes that decoding one picture may take.
    max_decoder_bytes: u64, "TIPSERVE_MAX_DECODER_BYTES", "BYTES",
        number(640 << 20, (1 << 10, 1 << 40)).note(" a picture").limit();
    /// Most classes of a cache.
    max_classes: usize, "TIPSERVE_MAX_CLASSES", "N",
        number(100_000, COUNT).limit();
    /// Most examples in one CreateCache.
    max_examples: usize, "TIPSERVE_MAX_EXAMPLES", "N",
        number(2_000_000, COUNT).limit();
    /// Most bytes of features in one CreateCache.
    max_create_bytes: usize, "TIPSERVE_MAX_CREATE_BYTES", "BYTES",
        number(8 << 30, BYTES).limit();
    /// Largest exported version taken by ImportVersion, in bytes.
    max_import_bytes: usize, "TIPSERVE_MAX_IMPORT_BYTES", "BYTES",
        number(4 << 30, BYTES).limit();
    /// Most bytes that uploads under way have been sent, in all; one caller may have half of them.
    upload_bytes: usize, "TIPSERVE_UPLOAD_BYTES", "BYTES",
        number(20 << 30, BYTES)
            .note(" that uploads under way have been sent, in all; one caller may have half, or as \
                much as the largest upload")
            .limit();
    /// How many of a cache's newest versions are kept, besides those with an alias; 0 keeps all.
    keep_versions: usize, "TIPSERVE_KEEP_VERSIONS", "N",
        number(0, (0, 1_000_000_000)).note(": all");
    /// Most bytes of caches kept in memory, on the CPU.
    resident_bytes: usize, "TIPSERVE_RESIDENT_BYTES", "BYTES",
        number(4 << 30, BYTES).note("; of the host, on a CPU").limit();
    /// Most bytes of caches kept in the memory of a GPU (the first, of several).
    device_resident_bytes: usize, "TIPSERVE_DEVICE_RESIDENT_BYTES", "BYTES",
        decided("half of what the card has left", BYTES).note("; of the GPU, on CUDA");
    /// PEM file of the server's certificate and those between it and its authority; with --tls-key
    /// the API is served by TLS.
    #[arg(help_heading = GUARD)]
    tls_cert: PathBuf, "TIPSERVE_TLS_CERT", "FILE",
        optional("no TLS", "a PEM file; needs `--tls-key`");
    /// PEM file of the certificate's private key.
    #[arg(help_heading = GUARD)]
    tls_key: PathBuf, "TIPSERVE_TLS_KEY", "FILE",
        optional("no TLS", "a PEM file; needs `--tls-cert`");
    /// PEM file of the authorities whose certificates clients must show (mTLS).
    #[arg(help_heading = GUARD)]
    tls_client_ca: PathBuf, "TIPSERVE_TLS_CLIENT_CA", "FILE",
        optional("clients need no certificate", "a PEM file");
    /// PEM file of the certificate revocation lists of these authorities: clients whose
    /// certificates are in one are refused.
    #[arg(help_heading = GUARD)]
    tls_client_crl: PathBuf, "TIPSERVE_TLS_CLIENT_CRL", "FILE",
        optional("no certificate counts as revoked", "a PEM file of revocation lists; needs \
            `--tls-client-ca`");
    /// TOML file of the tokens that clients must show (see `tipserve token new`).
    #[arg(help_heading = GUARD)]
    tokens: PathBuf, "TIPSERVE_TOKENS", "FILE",
        optional("no tokens", "a TOML file ([security.md](security.md#tokens))");
    /// Let the API listen beyond this machine without TLS or without tokens.
    #[arg(help_heading = GUARD, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    insecure: bool, "TIPSERVE_INSECURE", "BOOL",
        optional("false", "the API may listen beyond this machine without TLS or without tokens");
    /// Let /metrics, /healthz and /readyz listen beyond this machine.
    #[arg(help_heading = GUARD, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    expose_metrics: bool, "TIPSERVE_EXPOSE_METRICS", "BOOL",
        optional("false", "metrics and probes may listen beyond this machine");
    /// Seconds between checks for changed certificates and tokens; SIGHUP checks at once.
    #[arg(help_heading = GUARD)]
    reload_seconds: u64, "TIPSERVE_RELOAD_SECONDS", "S",
        number(1, (1, 86_400)).note(", between checks for changed certificates and tokens");
    /// Most calls under way in the server, streams and unary ones.
    max_streams: usize, "TIPSERVE_MAX_STREAMS", "N",
        number(10_000, COUNT).note(" calls under way in the server").limit();
    /// Most calls under way in one connection.
    max_connection_streams: u32, "TIPSERVE_MAX_CONNECTION_STREAMS", "N",
        number(1024, (1, 1_000_000))
            .note("; HTTP/2 makes clients wait, it causes no error")
            .limit();
    /// Most calls under way of one token whose entry has no max_streams.
    max_token_streams: usize, "TIPSERVE_MAX_TOKEN_STREAMS", "N",
        number(1000, COUNT)
            .note(" calls under way of a token whose entry has no `max_streams`")
            .limit();
    /// Most calls under way of one client certificate or else one address, if the server requires no
    /// tokens.
    max_peer_streams: usize, "TIPSERVE_MAX_PEER_STREAMS", "N",
        number(1000, COUNT)
            .note(" calls under way of one client certificate or else one address, without \
                tokens; behind a proxy all clients have its address")
            .limit();
    /// Most connections to the API.
    max_connections: usize, "TIPSERVE_MAX_CONNECTIONS", "N",
        number(4096, COUNT).note(", or as many as the limit on open files allows").limit();
    /// Most connections to the API from one address.
    max_address_connections: usize, "TIPSERVE_MAX_ADDRESS_CONNECTIONS", "N",
        number(512, COUNT).note("; behind a proxy all clients have its address").limit();
    /// Seconds after which a client is asked to connect anew; its connection is closed after twice
    /// as many; 0: never.
    max_connection_age_seconds: u64, "TIPSERVE_MAX_CONNECTION_AGE_SECONDS", "S",
        number(3600, (0, 31_536_000))
            .note(": then clients are asked to connect anew (GOAWAY) and calls go on; after twice \
                that it is closed; 0: never")
            .limit();
    /// Most bytes of messages that have begun to arrive, in the whole server; one caller may have
    /// half of them, one connection a quarter.
    max_unfinished_bytes: usize, "TIPSERVE_MAX_UNFINISHED_BYTES", "BYTES",
        number(512 << 20, BYTES)
            .note(" of messages that have begun to arrive; one caller may have half, one \
                connection a quarter, and less while others want some")
            .limit();
    /// Seconds that a message may take to arrive, the first of a stream from its call on; a second
    /// more for every 16 KiB.
    message_seconds: u64, "TIPSERVE_MESSAGE_SECONDS", "S",
        number(60, (1, 86_400))
            .note(", and a second more for every 16 KiB: for a message to arrive, the first of a \
                stream from the call on")
            .limit();
    /// Most prompts of one version: its classes' own, or classes times templates.
    max_prompts: usize, "TIPSERVE_MAX_PROMPTS", "N",
        number(1_000_000, COUNT)
            .note(" of a version: its classes' own, or classes times templates")
            .limit();
    /// Seconds that a shutdown may take.
    shutdown_seconds: u64, "TIPSERVE_SHUTDOWN_SECONDS", "S",
        number(30, (0, 86_400));
}

/// Reads settings from a TOML file.
///
/// # Errors
/// If it cannot be read, or holds a key or value that is not a setting's.
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
