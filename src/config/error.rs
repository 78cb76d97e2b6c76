//! Why a configuration cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use crate::auth::ExposureError;
use tipserve_clip::DeviceError;

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
    #[error("no {name} given: set --{} or {env}", .name.replace('_', "-"))]
    Missing {
        /// What.
        name: &'static str,
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
    /// A device, number format or mode that there is not.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A value is outside its range.
    #[error("{name} = {value} is outside its range {range}")]
    Range {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: String,
    },
}
