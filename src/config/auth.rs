//! Who may call: TLS, tokens, and what may be seen from beyond this machine.

use std::time::Duration;

use super::{ConfigError, Given, given::declared};
use crate::auth::{AuthSettings, Origin, TlsFiles};

/// The checked settings of authentication, from what was given.
pub(super) fn settings(given: &Given) -> Result<AuthSettings, ConfigError> {
    let half = |given, missing| Err(ConfigError::Half { given, missing });
    if given.tls_client_crl.is_some() && given.tls_client_ca.is_none() {
        return half("tls-client-crl", "tls-client-ca");
    }
    let tls = match (&given.tls_cert, &given.tls_key, &given.tls_client_ca) {
        (Some(certificate), Some(key), client_ca) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: client_ca.clone(),
            client_crl: given.tls_client_crl.clone(),
        }),
        (Some(_), None, _) => return half("tls-cert", "tls-key"),
        (None, Some(_), _) => return half("tls-key", "tls-cert"),
        (None, None, Some(_)) => return half("tls-client-ca", "tls-cert"),
        (None, None, None) => None,
    };
    Ok(AuthSettings {
        tls,
        tokens: given.tokens.clone(),
        insecure: given.insecure.unwrap_or_default(),
        expose_metrics: given.expose_metrics.unwrap_or_default(),
        reload: Duration::from_secs(declared::reload_seconds.value(given.reload_seconds)?),
    })
}

/// The origins of the pages that browsers may call from.
pub(super) fn origins(given: &Given) -> Result<Vec<Origin>, ConfigError> {
    given
        .web_origins
        .iter()
        .flatten()
        .map(|origin| {
            origin.parse().map_err(|range| ConfigError::Range {
                name: "web_origins",
                value: format!("{origin:?}"),
                range: str::to_owned(range),
            })
        })
        .collect()
}
