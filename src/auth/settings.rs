//! Settings of authentication.

use std::{path::PathBuf, time::Duration};

/// Files of a server that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then the intermediate ones.
    pub certificate: PathBuf,
    /// PEM: the private key of the server's certificate.
    pub key: PathBuf,
    /// PEM: authorities whose certificates clients must show; none: clients
    /// need no certificate.
    pub client_ca: Option<PathBuf>,
    /// PEM: certificates that these authorities have revoked; none: no
    /// certificate is taken to be revoked.
    pub client_crl: Option<PathBuf>,
}

/// What an [`super::Authenticator`] is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// TLS, if the server speaks it.
    pub tls: Option<TlsFiles>,
    /// File of the tokens, if the server requires them.
    pub tokens: Option<PathBuf>,
    /// Whether the API may listen beyond this machine unguarded.
    pub insecure: bool,
    /// Whether metrics and probes may.
    pub expose_metrics: bool,
    /// How often the files are read again.
    pub reload: Duration,
}

impl Default for AuthSettings {
    /// No TLS, no tokens, this machine only.
    fn default() -> AuthSettings {
        AuthSettings {
            tls: None,
            tokens: None,
            insecure: false,
            expose_metrics: false,
            reload: Duration::from_secs(10),
        }
    }
}
