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
        /// The path that was given.
        path: PathBuf,
        /// The system's reason for refusing.
        source: std::io::Error,
    },
    /// The file is not valid.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse {
        /// The path that was given.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A setting without a default is not set.
    #[error("no {name} given: set --{} or {env}", .name.replace('_', "-"))]
    Missing {
        /// The setting's name, as in the configuration file.
        name: &'static str,
        /// The environment variable that sets it.
        env: &'static str,
    },
    /// Of two settings that belong together one is absent.
    #[error("--{given} is set, and --{missing} is not: one is of no use without the other")]
    Half {
        /// The flag that is set.
        given: &'static str,
        /// The flag that must be set with it.
        missing: &'static str,
    },
    /// Something would be served beyond this machine unguarded.
    #[error(transparent)]
    Exposure(#[from] ExposureError),
    /// A device, number format or mode that does not exist here.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// TLS on a socket file, where no client speaks it.
    #[error(
        "--listen unix:… is served without TLS, which --tls-cert asks for: its file's permissions \
         say who may call"
    )]
    SocketTls,
    /// A value is outside its range.
    #[error("{name} = {value} is outside its range {range}")]
    Range {
        /// The setting's name, as in the configuration file.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// The values that it may have, in words.
        range: String,
    },
}
