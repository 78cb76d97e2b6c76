//! The flags that every command takes.

use std::time::Duration;

use clap::Args;

use crate::credentials::{CONNECTION, Credentials};

/// Where the server is, how the caller is known to it, and what is printed.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Address of the server: "host:port", "https://host:port" for TLS, or "unix:/path". A host
    /// alone means port 50051.
    #[arg(
        long,
        global = true,
        env = "TIPSERVE_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "ADDRESS",
        help_heading = CONNECTION
    )]
    pub server: String,

    /// Give up after this long without a sign of life from the server; 0 waits for ever.
    /// Connecting takes at most 5 seconds of it.
    #[arg(
        long,
        global = true,
        env = "TIPSERVE_TIMEOUT",
        default_value = "60",
        value_name = "SECONDS",
        value_parser = seconds,
        help_heading = CONNECTION
    )]
    pub timeout: Duration,

    /// Who calls, and whom it trusts.
    #[command(flatten)]
    pub credentials: Credentials,

    /// Print JSON (docs/cli.md lists the fields) instead of text.
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub json: bool,

    /// Print neither progress bars nor notes on standard error, only errors.
    #[arg(short, long, global = true, help_heading = OUTPUT)]
    pub quiet: bool,
}

const OUTPUT: &str = "Output";

/// 0 to a million seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    text.trim()
        .parse::<f64>()
        .ok()
        .filter(|value| (0.0..=1e6).contains(value))
        .and_then(|value| Duration::try_from_secs_f64(value).ok())
        .ok_or_else(|| "must be a number of seconds from 0 to 1000000".to_owned())
}
