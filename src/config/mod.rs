//! One typed configuration: flags over environment over TOML file over
//! defaults, checked before anything is opened.
//!
//! [`Given`] is what was given, each setting absent if it was not;
//! [`Config`] is what it makes, every value there and in its range.

mod auth;
mod engine;
mod error;
mod given;
mod limits;
mod listen;
mod rule;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use engine::GivenThreads;
pub use error::ConfigError;
pub use given::{Given, SETTINGS, read_file};
pub use limits::Limits;
pub use listen::ListenAddress;
pub use rule::Setting;

use crate::{
    auth::{AuthSettings, Origin},
    telemetry::LogFormat,
};
use given::declared;
use tipserve_api::environment::variable;
use tipserve_clip::{DeviceChoice, DtypeChoice, GraphsChoice};
use tipserve_engine::EngineSettings;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bundles and folders of bundles to serve, at least one.
    pub bundles: Vec<PathBuf>,
    /// Folders of bundles that may be loaded later.
    pub bundle_folders: Vec<PathBuf>,
    /// Folder or URL of the store.
    pub store: String,
    /// Address of the gRPC API.
    pub listen: ListenAddress,
    /// Permissions of its socket file, if it is one.
    pub listen_mode: u32,
    /// Address of the metrics and probes.
    pub metrics_listen: SocketAddr,
    /// Origins of the pages that browsers may call from.
    pub web_origins: Vec<Origin>,
    /// The devices that the encoders run on.
    pub device: DeviceChoice,
    /// The number format that the encoders compute in.
    pub dtype: DtypeChoice,
    /// Whether small batches are replayed as CUDA graphs.
    pub cuda_graphs: GraphsChoice,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// URL of the collector that spans are sent to, if they are.
    pub otlp_endpoint: Option<String>,
    /// Settings of the engine without what the device decides: threads, and the
    /// size of batches.
    pub engine: EngineSettings,
    /// Thread settings as given, absent if the device decides.
    pub threads: GivenThreads,
    /// Limits on what requests may ask for.
    pub limits: Limits,
    /// How many of a cache's newest versions stay; 0: all.
    pub keep_versions: usize,
    /// Most bytes of caches in memory, on the CPU.
    pub resident_bytes: usize,
    /// Most bytes of caches in a GPU's memory, absent if the card decides.
    pub device_resident_bytes: Option<usize>,
    /// Most pictures in a batch as given, absent if the device decides.
    pub max_batch: Option<usize>,
    /// How long a shutdown waits for calls under way.
    pub shutdown: Duration,
    /// Who may call, and over what.
    pub auth: AuthSettings,
}

impl Config {
    /// The configuration that these settings make.
    ///
    /// # Errors
    /// The first setting that is missing or outside its range.
    pub fn resolve(given: Given) -> Result<Config, ConfigError> {
        let engine = engine::settings(&given)?;
        let auth = auth::settings(&given)?;
        let missing = ConfigError::Missing {
            name: declared::bundle.name,
            env: declared::bundle.variable,
        };
        let bundles = given.bundle.clone().filter(|paths| !paths.is_empty());
        let bundles = bundles.ok_or(missing)?;
        let listen = given.listen.clone().unwrap_or(local(50051));
        if listen.tcp().is_none() && auth.tls.is_some() {
            return Err(ConfigError::SocketTls);
        }
        let metrics_listen = given.metrics_listen.clone().unwrap_or(local(9090));
        let metrics_listen = metrics_listen
            .tcp()
            .ok_or_else(|| declared::metrics_listen.out_of_range(metrics_listen))?;
        auth.check_addresses(listen.tcp(), metrics_listen)?;
        Ok(Config {
            bundles,
            bundle_folders: given.bundle_folders.clone().unwrap_or_default(),
            listen,
            listen_mode: match given.listen_mode.as_deref() {
                None => 0o600,
                Some(text) => {
                    listen::mode(text).ok_or_else(|| declared::listen_mode.out_of_range(text))?
                }
            },
            metrics_listen,
            web_origins: auth::origins(&given)?,
            engine,
            threads: GivenThreads::resolve(&given)?,
            limits: Limits::resolve(&given)?,
            keep_versions: declared::keep_versions.value(given.keep_versions)?,
            resident_bytes: declared::resident_bytes.value(given.resident_bytes)?,
            device_resident_bytes: declared::device_resident_bytes
                .if_given(given.device_resident_bytes)?,
            max_batch: declared::max_batch.if_given(given.max_batch)?,
            shutdown: Duration::from_secs(
                declared::shutdown_seconds.value(given.shutdown_seconds)?,
            ),
            auth,
            store: given.store.unwrap_or_else(|| "tipserve-store".to_owned()),
            device: given.device.as_deref().unwrap_or("auto").parse()?,
            dtype: given.dtype.as_deref().unwrap_or("auto").parse()?,
            cuda_graphs: given.cuda_graphs.as_deref().unwrap_or("off").parse()?,
            log_format: given.log_format.unwrap_or_default(),
            otlp_endpoint: given.otlp_endpoint.or_else(standard_otlp_endpoint),
        })
    }
}

fn local(port: u16) -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The collector that OpenTelemetry's own variables name.
fn standard_otlp_endpoint() -> Option<String> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none")
    {
        return None;
    }
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipserve_clip::PictureLimits;

    fn parse(text: &str) -> Given {
        toml::from_str(text).expect("valid TOML")
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = parse("bundle = 'a'\nmax_batch = 8\nqueue_items = 5");
        let flags = parse("max_batch = 16");
        let config = Config::resolve(flags.over(file)).expect("valid");
        assert_eq!(config.max_batch, Some(16));
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

    /// The table between its head and the next empty line. With
    /// `TIPSERVE_WRITE_DOCS` set, it is written.
    #[test]
    fn the_table_of_the_documentation_is_what_is_declared() {
        const HEAD: &str = "| flag | environment | TOML key | default | range |\n| --- | --- | --- | \
                            --- | --- |\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let page = std::fs::read_to_string(path).expect("the page");
        let (before, rest) = page.split_once(HEAD).expect("the table's head");
        let (found, after) = rest.split_once("\n\n").expect("the table's end");
        let rows: Vec<String> = SETTINGS.iter().map(Setting::documentation).collect();
        let rows = rows.join("\n");
        if std::env::var_os("TIPSERVE_WRITE_DOCS").is_some() {
            let page = format!("{before}{HEAD}{rows}\n\n{after}");
            std::fs::write(path, page).expect("written");
        } else {
            let hint = "TIPSERVE_WRITE_DOCS=1 cargo test --lib config writes it anew";
            assert_eq!(found, rows, "{hint}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_and_a_variable_of_its_name() {
        let command = <Given as clap::Args>::augment_args(clap::Command::new("serve"));
        for setting in SETTINGS {
            let name = setting.name;
            let argument = command.get_arguments().find(|arg| arg.get_id() == name);
            let argument = argument.unwrap_or_else(|| panic!("{name} is no flag"));
            assert_eq!(argument.get_long(), Some(setting.flag().as_str()));
            assert_eq!(
                setting.variable,
                format!("TIPSERVE_{}", name.to_uppercase())
            );
            let variable = std::ffi::OsStr::new(setting.variable);
            assert_eq!(argument.get_env(), Some(variable));
        }
        assert_eq!(command.get_arguments().count(), SETTINGS.len());
    }

    #[test]
    fn defaults_are_those_of_the_crates() {
        let config = Config::resolve(parse("bundle = 'a'")).expect("valid");
        let (engine, picture) = (EngineSettings::default(), PictureLimits::default());
        assert_eq!(config.engine.queue_items, engine.queue_items);
        assert_eq!(config.engine.queue_bytes, engine.queue_bytes);
        assert_eq!(
            config.engine.embedding_cache_bytes,
            engine.embedding_cache_bytes
        );
        assert_eq!(config.limits.picture.encoded_bytes, picture.encoded_bytes);
        assert_eq!(config.limits.picture.pixels, picture.pixels);
        assert_eq!(config.limits.picture.side, picture.side);
        assert_eq!(config.limits.picture.frames, picture.frames);
        assert_eq!(config.limits.picture.decoder_bytes, picture.decoder_bytes);
    }

    #[test]
    fn the_limits_of_get_server_info_are_as_given_or_by_default() {
        let given = parse("bundle = 'a'\nmax_classes = 7");
        let named = Config::resolve(given).expect("valid").limits.named;
        assert_eq!(named.get("max_classes"), Some(&7));
        assert_eq!(named.get("max_examples"), Some(&2_000_000));
        assert_eq!(named.get("max_batch"), None, "the device decides");
        assert_eq!(named.get("keep_versions"), None, "no limit on requests");
    }

    #[test]
    fn a_device_is_known_before_anything_is_opened() {
        for text in ["device = 'tpu'", "dtype = 'int3'", "cuda_graphs = 'maybe'"] {
            let error = Config::resolve(parse(&format!("bundle = 'a'\n{text}"))).expect_err(text);
            let value = text.split('\'').nth(1).expect("a value");
            assert!(error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn a_socket_file_is_for_the_api_and_without_tls() {
        let config = Config::resolve(parse("bundle = 'a'\nlisten = 'unix:/x'")).expect("valid");
        assert_eq!((config.listen.tcp(), config.listen_mode), (None, 0o600));
        for (more, name) in [
            (
                "listen = 'unix:/x'\ntls_cert = 'c'\ntls_key = 'k'",
                "--tls-cert",
            ),
            ("metrics_listen = 'unix:/x'", "metrics_listen"),
            ("listen_mode = '999'", "listen_mode"),
        ] {
            let error = Config::resolve(parse(&format!("bundle = 'a'\n{more}"))).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
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
