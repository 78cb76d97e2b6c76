//! One typed configuration: flags over environment over TOML file over
//! defaults, checked before anything is opened.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    clip::PictureLimits,
    engine::{EngineSettings, ThreadPlan},
    guard::{ExposureError, GuardSettings, Origin, TlsFiles},
    telemetry::LogFormat,
};

/// Under what `--help` lists what guards the server.
const GUARD: &str = "Who may call";

/// Declares the settings once, as flags, environment and TOML keys alike.
macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// Settings as given, each absent where it was not. The same names
        /// serve as flags (`--queue-items`), environment
        /// (`TIPSERVE_QUEUE_ITEMS`) and keys of the TOML file
        /// (`queue_items`).
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Given {
            $($(#[$meta])* pub $name: Option<$type>,)*
        }

        impl Given {
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
    listen: SocketAddr,
    /// Address of /metrics, /healthz and /readyz [default: 127.0.0.1:9090].
    #[arg(long, env = "TIPSERVE_METRICS_LISTEN", value_name = "ADDR")]
    metrics_listen: SocketAddr,
    /// Origins of the pages that browsers may call from (gRPC-web), separated by commas; * for
    /// all [default: none].
    #[arg(long, env = "TIPSERVE_WEB_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    web_origins: Vec<String>,
    /// Device: auto, cpu, cuda, cuda:N; several GPUs: cuda:N,M,… or cuda:all [default: auto].
    #[arg(long, env = "TIPSERVE_DEVICE")]
    device: String,
    /// Number format of the encoders: auto, float32, bfloat16, float16 [default: auto].
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
    /// once [default: 10].
    #[arg(long, env = "TIPSERVE_RELOAD_SECONDS", value_name = "S", help_heading = GUARD)]
    reload_seconds: u64,
    /// Most calls under way in the server, streams and unary ones [default: 10,000].
    #[arg(long, env = "TIPSERVE_MAX_STREAMS", value_name = "N")]
    max_streams: usize,
    /// Most calls under way in one connection [default: 1024].
    #[arg(long, env = "TIPSERVE_MAX_CONNECTION_STREAMS", value_name = "N")]
    max_connection_streams: u32,
    /// Seconds that a shutdown may take [default: 30].
    #[arg(long, env = "TIPSERVE_SHUTDOWN_SECONDS", value_name = "S")]
    shutdown_seconds: u64,
}

/// Limits on what one request may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest gRPC message taken, bytes.
    pub max_message_bytes: usize,
    /// Most unanswered items of one stream.
    pub stream_window: usize,
    /// Most classes of a cache.
    pub max_classes: usize,
    /// Most examples in one CreateCache.
    pub max_examples: usize,
    /// Most bytes of features in one CreateCache.
    pub max_create_bytes: usize,
    /// Largest exported version taken, bytes.
    pub max_import_bytes: usize,
    /// Limits of one picture.
    pub picture: PictureLimits,
    /// Most calls under way in the server.
    pub max_streams: usize,
    /// Most calls under way in one connection.
    pub max_connection_streams: u32,
}

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the bundle.
    pub bundle: PathBuf,
    /// Folder or URL of the store.
    pub store: String,
    /// Address of the gRPC API.
    pub listen: SocketAddr,
    /// Address of the metrics and probes.
    pub metrics_listen: SocketAddr,
    /// Origins of the pages that browsers may call from.
    pub web_origins: Vec<Origin>,
    /// "auto", "cpu", "cuda", "cuda:N", "cuda:N,M", "cuda:all".
    pub device: String,
    /// "auto", "float32", "bfloat16", "float16".
    pub dtype: String,
    /// "off", "auto".
    pub cuda_graphs: String,
    /// Log format.
    pub log_format: LogFormat,
    /// URL of the collector that spans are sent to, if they are.
    pub otlp_endpoint: Option<String>,
    /// Of the engine.
    pub engine: EngineSettings,
    /// Thread settings as given, absent where the device decides.
    pub threads: GivenThreads,
    /// On requests.
    pub limits: Limits,
    /// How many of a cache's newest versions stay; 0: all.
    pub keep_versions: usize,
    /// Most bytes of caches in memory, on the CPU.
    pub resident_bytes: usize,
    /// Most bytes of caches in a GPU's memory, absent where the card decides.
    pub device_resident_bytes: Option<usize>,
    /// Most pictures in a batch as given, absent where the device decides.
    pub max_batch: Option<usize>,
    /// Longest shutdown.
    pub shutdown: Duration,
    /// Who may call.
    pub guard: GuardSettings,
}

/// Thread settings as given.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenThreads {
    /// Threads that decode.
    pub decoders: Option<usize>,
    /// Encoder workers.
    pub workers: Option<usize>,
    /// torch's threads per worker.
    pub intra_op: Option<usize>,
}

impl GivenThreads {
    /// The device's plan, but for what was given.
    pub fn over(self, plan: ThreadPlan) -> ThreadPlan {
        ThreadPlan {
            decoders: self.decoders.unwrap_or(plan.decoders),
            workers: self.workers.unwrap_or(plan.workers),
            intra_op: self.intra_op.unwrap_or(plan.intra_op),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not valid.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse {
        /// Its path.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Something needed is absent.
    #[error("no {name} given: set --{flag} or {env}")]
    Missing {
        /// What.
        name: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Its variable.
        env: &'static str,
    },
    /// Of two settings that belong together one is absent.
    #[error("--{given} is set, and --{missing} is not: one is of no use without the other")]
    Half {
        /// What is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// Something would be served beyond this machine unguarded.
    #[error(transparent)]
    Exposure(#[from] ExposureError),
    /// A value is outside its range.
    #[error("{name} = {value} is outside its range {range}")]
    Range {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
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

/// A value in its range.
fn within<T: PartialOrd + ToString>(
    name: &'static str,
    value: T,
    low: T,
    high: T,
    range: &'static str,
) -> Result<T, ConfigError> {
    // Not a number is in no range.
    if !(low..=high).contains(&value) {
        return Err(ConfigError::Range {
            name,
            value: value.to_string(),
            range,
        });
    }
    Ok(value)
}

const SOME: &str = "1 to 1,000,000,000";
const BYTES: &str = "1 KiB to 1 PiB";

fn count(name: &'static str, given: Option<usize>, default: usize) -> Result<usize, ConfigError> {
    within(name, given.unwrap_or(default), 1, 1_000_000_000, SOME)
}

fn bytes(name: &'static str, given: Option<usize>, default: usize) -> Result<usize, ConfigError> {
    within(name, given.unwrap_or(default), 1 << 10, 1 << 50, BYTES)
}

fn threads(name: &'static str, given: Option<usize>) -> Result<Option<usize>, ConfigError> {
    given
        .map(|value| within(name, value, 1, 1024, "1 to 1024"))
        .transpose()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The guard that these settings make.
fn guard(given: &Given) -> Result<GuardSettings, ConfigError> {
    let half = |given, missing| Err(ConfigError::Half { given, missing });
    let tls = match (&given.tls_cert, &given.tls_key, &given.tls_client_ca) {
        (Some(certificate), Some(key), client_ca) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: client_ca.clone(),
        }),
        (Some(_), None, _) => return half("tls-cert", "tls-key"),
        (None, Some(_), _) => return half("tls-key", "tls-cert"),
        (None, None, Some(_)) => return half("tls-client-ca", "tls-cert"),
        (None, None, None) => None,
    };
    Ok(GuardSettings {
        tls,
        tokens: given.tokens.clone(),
        insecure: given.insecure.unwrap_or_default(),
        expose_metrics: given.expose_metrics.unwrap_or_default(),
        reload: Duration::from_secs(within(
            "reload_seconds",
            given.reload_seconds.unwrap_or(10),
            1,
            86_400,
            "1 to 86,400",
        )?),
    })
}

/// The collector that OpenTelemetry's own variables name.
fn standard_otlp_endpoint() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none")
    {
        return None;
    }
    set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

impl Config {
    /// The configuration that these settings make.
    ///
    /// # Errors
    /// The first setting that is missing or outside its range.
    pub fn resolve(given: Given) -> Result<Config, ConfigError> {
        let defaults = EngineSettings::default();
        let picture = PictureLimits::default();
        let max_batch = within(
            "max_batch",
            given.max_batch.unwrap_or(defaults.max_batch),
            1,
            4096,
            "1 to 4096",
        )?;
        let guard = guard(&given)?;
        let listen = given.listen.unwrap_or_else(|| local(50051));
        let metrics_listen = given.metrics_listen.unwrap_or_else(|| local(9090));
        let bundle = given.bundle.ok_or(ConfigError::Missing {
            name: "bundle",
            flag: "bundle",
            env: "TIPSERVE_BUNDLE",
        })?;
        guard.check_addresses(listen, metrics_listen)?;
        Ok(Config {
            bundle,
            guard,
            store: given.store.unwrap_or_else(|| "tipserve-store".to_owned()),
            listen,
            metrics_listen,
            web_origins: given
                .web_origins
                .unwrap_or_default()
                .iter()
                .map(|origin| {
                    origin.parse().map_err(|range| ConfigError::Range {
                        name: "web_origins",
                        value: format!("{origin:?}"),
                        range,
                    })
                })
                .collect::<Result<_, _>>()?,
            device: given.device.unwrap_or_else(|| "auto".to_owned()),
            dtype: given.dtype.unwrap_or_else(|| "auto".to_owned()),
            cuda_graphs: given.cuda_graphs.unwrap_or_else(|| "off".to_owned()),
            log_format: given.log_format.unwrap_or_default(),
            otlp_endpoint: given.otlp_endpoint.or_else(standard_otlp_endpoint),
            engine: EngineSettings {
                max_batch,
                max_queue_delay: Duration::from_millis(within(
                    "max_queue_delay_ms",
                    given.max_queue_delay_ms.unwrap_or(0),
                    0,
                    60_000,
                    "0 to 60,000",
                )?),
                queue_items: count("queue_items", given.queue_items, defaults.queue_items)?,
                queue_bytes: bytes("queue_bytes", given.queue_bytes, defaults.queue_bytes)?,
                embedding_cache_bytes: within(
                    "embedding_cache_bytes",
                    given
                        .embedding_cache_bytes
                        .unwrap_or(defaults.embedding_cache_bytes),
                    0,
                    1 << 50,
                    "0 to 1 PiB",
                )?,
                jpeg_shrink: match given.jpeg_shrink.unwrap_or(0.0) {
                    never if never == 0.0 => never,
                    times => within("jpeg_shrink", times, 1.0, 8.0, "0, or 1 to 8")?,
                },
                ..defaults
            },
            threads: GivenThreads {
                decoders: threads("decode_threads", given.decode_threads)?,
                workers: threads("workers", given.workers)?,
                intra_op: threads("torch_threads", given.torch_threads)?,
            },
            limits: Limits {
                max_message_bytes: bytes("max_message_bytes", given.max_message_bytes, 32 << 20)?,
                stream_window: count("stream_window", given.stream_window, 512)?,
                max_classes: count("max_classes", given.max_classes, 100_000)?,
                max_examples: count("max_examples", given.max_examples, 2_000_000)?,
                max_create_bytes: bytes("max_create_bytes", given.max_create_bytes, 8 << 30)?,
                max_import_bytes: bytes("max_import_bytes", given.max_import_bytes, 4 << 30)?,
                picture: PictureLimits {
                    encoded_bytes: within(
                        "max_picture_bytes",
                        given.max_picture_bytes.unwrap_or(picture.encoded_bytes),
                        1,
                        1 << 32,
                        "1 to 4 GiB",
                    )?,
                    pixels: within(
                        "max_pixels",
                        given.max_pixels.unwrap_or(picture.pixels),
                        1,
                        1 << 32,
                        "1 to 2^32",
                    )?,
                    side: within(
                        "max_side",
                        given.max_side.unwrap_or(picture.side),
                        1,
                        1 << 20,
                        "1 to 1,048,576",
                    )?,
                    frames: within(
                        "max_frames",
                        given.max_frames.unwrap_or(picture.frames),
                        1,
                        1 << 32,
                        "1 to 2^32",
                    )?,
                    decoder_bytes: within(
                        "max_decoder_bytes",
                        given.max_decoder_bytes.unwrap_or(picture.decoder_bytes),
                        1 << 10,
                        1 << 40,
                        "1 KiB to 1 TiB",
                    )?,
                },
                max_streams: count("max_streams", given.max_streams, 10_000)?,
                max_connection_streams: within(
                    "max_connection_streams",
                    given.max_connection_streams.unwrap_or(1024),
                    1,
                    1_000_000,
                    "1 to 1,000,000",
                )?,
            },
            keep_versions: within(
                "keep_versions",
                given.keep_versions.unwrap_or(0),
                0,
                1_000_000_000,
                "0 to 1,000,000,000",
            )?,
            resident_bytes: bytes("resident_bytes", given.resident_bytes, 4 << 30)?,
            device_resident_bytes: given
                .device_resident_bytes
                .map(|given| bytes("device_resident_bytes", Some(given), 0))
                .transpose()?,
            max_batch: given.max_batch,
            shutdown: Duration::from_secs(within(
                "shutdown_seconds",
                given.shutdown_seconds.unwrap_or(30),
                0,
                86_400,
                "0 to 86,400",
            )?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Given {
        toml::from_str(text).expect("valid TOML")
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = parse("bundle = 'a'\nmax_batch = 8\nqueue_items = 5");
        let flags = parse("max_batch = 16");
        let config = Config::resolve(flags.over(file)).expect("valid");
        assert_eq!(config.engine.max_batch, 16);
        assert_eq!(config.engine.queue_items, 5);
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let error = Config::resolve(parse("bundle = 'a'\nmax_batch = 0")).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "max_batch = 0 is outside its range 1 to 4096"
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<Given>("max_batches = 3").is_err());
    }

    #[test]
    fn a_missing_bundle_says_how_to_give_one() {
        let error = Config::resolve(Given::default()).expect_err("refused");
        assert!(error.to_string().contains("--bundle"), "{error}");
    }
}
