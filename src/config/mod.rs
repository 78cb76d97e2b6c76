//! One typed configuration: flags over environment over TOML file over
//! defaults, checked before anything is opened.
//!
//! [`Given`] is what was given, each setting absent if it was not;
//! [`Config`] is what it makes, every value there and in its range.

mod engine;
mod error;
mod given;
mod guard;
mod limits;
mod listen;
mod range;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use engine::GivenThreads;
pub use error::ConfigError;
pub use given::{Given, read_file};
pub use limits::Limits;

use crate::{
    auth::{AuthSettings, Origin},
    telemetry::LogFormat,
};
use range::{bytes, within};
use tipserve_clip::{DeviceChoice, DtypeChoice, GraphsChoice};
use tipserve_engine::EngineSettings;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the bundle to serve.
    pub bundle: PathBuf,
    /// Folder or URL of the store.
    pub store: String,
    /// Address of the gRPC API.
    pub listen: SocketAddr,
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
    /// Of the engine, but for what the device decides: threads, and the size of
    /// its batches.
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
    pub guard: AuthSettings,
}

impl Config {
    /// The configuration that these settings make.
    ///
    /// # Errors
    /// The first setting that is missing or outside its range.
    pub fn resolve(given: Given) -> Result<Config, ConfigError> {
        let engine = engine::settings(&given)?;
        let guard = guard::settings(&given)?;
        let bundle = given.bundle.clone().ok_or(ConfigError::Missing {
            name: "bundle",
            flag: "bundle",
            env: "TIPSERVE_BUNDLE",
        })?;
        let listen = given.listen.map_or_else(|| local(50051), |it| it.0);
        let metrics_listen = given.metrics_listen.map_or_else(|| local(9090), |it| it.0);
        guard.check_addresses(listen, metrics_listen)?;
        Ok(Config {
            bundle,
            listen,
            metrics_listen,
            web_origins: guard::origins(&given)?,
            engine,
            threads: GivenThreads::resolve(&given)?,
            limits: Limits::resolve(&given)?,
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
            max_batch: given
                .max_batch
                .map(|most| within("max_batch", most, 1, 4096, "1 to 4096"))
                .transpose()?,
            shutdown: Duration::from_secs(within(
                "shutdown_seconds",
                given.shutdown_seconds.unwrap_or(30),
                0,
                86_400,
                "0 to 86,400",
            )?),
            guard,
            store: given.store.unwrap_or_else(|| "tipserve-store".to_owned()),
            device: given.device.as_deref().unwrap_or("auto").parse()?,
            dtype: given.dtype.as_deref().unwrap_or("auto").parse()?,
            cuda_graphs: given.cuda_graphs.as_deref().unwrap_or("off").parse()?,
            log_format: given.log_format.unwrap_or_default(),
            otlp_endpoint: given.otlp_endpoint.or_else(standard_otlp_endpoint),
        })
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
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

    #[test]
    fn the_table_of_the_documentation_has_every_setting() {
        let page = include_str!("../../docs/operations.md");
        let table: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
        for name in Given::NAMES {
            let flag = format!("`--{}`", name.replace('_', "-"));
            let variable = format!("`TIPSERVE_{}`", name.to_uppercase());
            let key = format!("`{name}`");
            let row = table.iter().find(|row| row.contains(&flag));
            let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for {flag}"));
            assert!(row.contains(&variable) && row.contains(&key), "{row}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_and_a_variable_of_its_name() {
        let command = <Given as clap::Args>::augment_args(clap::Command::new("serve"));
        for name in Given::NAMES {
            let argument = command.get_arguments().find(|arg| arg.get_id() == *name);
            let argument = argument.unwrap_or_else(|| panic!("{name} is no flag"));
            let flag = name.replace('_', "-");
            assert_eq!(argument.get_long(), Some(flag.as_str()));
            let variable = format!("TIPSERVE_{}", name.to_uppercase());
            assert_eq!(argument.get_env(), Some(std::ffi::OsStr::new(&variable)));
        }
        assert_eq!(command.get_arguments().count(), Given::NAMES.len());
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
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<Given>("max_batches = 3").is_err());
    }

    #[test]
    fn a_missing_bundle_says_how_to_give_one() {
        let error = Config::resolve(Given::default()).expect_err("refused");
        assert!(error.to_string().contains("--bundle"), "{error}");
    }
}
