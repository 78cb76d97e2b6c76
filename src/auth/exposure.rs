//! The loopback rule: an unguarded server listens on this machine only.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::AuthSettings;

/// An address that may not be listened on without more protection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExposureError {
    /// The API would be open to the network without TLS or tokens.
    #[error(
        "--listen {listen} reaches beyond this machine, and neither TLS nor tokens guard the API: \
         set --tls-cert and --tls-key (with --tokens or --tls-client-ca to say who may call), or \
         listen on 127.0.0.1, or set --insecure (TIPSERVE_INSECURE=true) if something else \
         guards the port"
    )]
    Unguarded {
        /// The address that reaches beyond this machine.
        listen: SocketAddr,
    },
    /// Tokens would cross the network in the open.
    #[error(
        "--listen {listen} reaches beyond this machine, and --tokens without TLS would send tokens \
         in the open: set --tls-cert and --tls-key, or listen on 127.0.0.1, or set --insecure \
         (TIPSERVE_INSECURE=true) if TLS ends in front of the server"
    )]
    TokensInTheOpen {
        /// The address that reaches beyond this machine.
        listen: SocketAddr,
    },
    /// Metrics would be open to the network.
    #[error(
        "--metrics-listen {listen} reaches beyond this machine, and /metrics asks for no token: set \
         --expose-metrics (TIPSERVE_EXPOSE_METRICS=true) where Prometheus or probes come from \
         elsewhere, or listen on 127.0.0.1"
    )]
    Metrics {
        /// The address that reaches beyond this machine.
        listen: SocketAddr,
    },
}

/// Whether only this machine reaches an address.
fn is_local(address: SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

impl AuthSettings {
    /// Checks the addresses that a server is to listen on; `None` stands for a
    /// socket file, which only this machine reaches. Returns what the operator
    /// should be warned of.
    ///
    /// # Errors
    /// An address that reaches beyond this machine, unguarded and not allowed
    /// to be.
    pub fn check_addresses(
        &self,
        listen: Option<SocketAddr>,
        metrics: SocketAddr,
    ) -> Result<Vec<&'static str>, ExposureError> {
        let mut warnings = Vec::new();
        if let Some(listen) = listen.filter(|listen| !is_local(*listen)) {
            match (&self.tls, &self.tokens, self.insecure) {
                (None, None, false) => return Err(ExposureError::Unguarded { listen }),
                (None, Some(_), false) => return Err(ExposureError::TokensInTheOpen { listen }),
                (None, None, true) => warnings.push(
                    "--insecure: listening beyond this machine without encryption or \
                     authentication: everybody who reaches the port may read and change every \
                     cache",
                ),
                (None, Some(_), true) => warnings.push(
                    "--insecure: listening beyond this machine without encryption: tokens are \
                     safe only if TLS ends in front of this server",
                ),
                (Some(tls), None, _) if tls.client_ca.is_none() => warnings.push(
                    "listening beyond this machine with TLS but neither --tokens nor \
                     --tls-client-ca: everybody who reaches the port may read and change every \
                     cache",
                ),
                (Some(_), _, _) => {}
            }
        }
        // With the API open to everybody, the metrics reveal nothing more.
        if !is_local(metrics) && !self.expose_metrics && !self.insecure {
            return Err(ExposureError::Metrics { listen: metrics });
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::TlsFiles, *};

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn settings(tls: bool, client_ca: bool, tokens: bool, insecure: bool) -> AuthSettings {
        AuthSettings {
            tls: tls.then(|| TlsFiles {
                certificate: PathBuf::from("c"),
                key: PathBuf::from("k"),
                client_ca: client_ca.then(|| PathBuf::from("a")),
                client_crl: None,
            }),
            tokens: tokens.then(|| PathBuf::from("t")),
            insecure,
            ..AuthSettings::default()
        }
    }

    #[test]
    fn this_machine_needs_no_guard() {
        for local in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            for tokens in [false, true] {
                let settings = settings(false, false, tokens, false);
                let warnings = settings.check_addresses(Some(address(local)), address(local));
                assert_eq!(warnings, Ok(Vec::new()), "{local}");
            }
        }
    }

    #[test]
    fn beyond_this_machine_something_must_guard_or_be_waived() {
        let local = address("127.0.0.1:1");
        for wide in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let wide = address(wide);
            let check = |tls, ca, tokens, insecure| {
                settings(tls, ca, tokens, insecure).check_addresses(Some(wide), local)
            };
            assert!(matches!(
                check(false, false, false, false),
                Err(ExposureError::Unguarded { .. })
            ));
            assert!(matches!(
                check(false, false, true, false),
                Err(ExposureError::TokensInTheOpen { .. })
            ));
            for (tls, ca, tokens, insecure, warned) in [
                (false, false, false, true, 1),
                (false, false, true, true, 1),
                (true, false, false, false, 1),
                (true, true, false, false, 0),
                (true, false, true, false, 0),
                (true, true, true, false, 0),
            ] {
                let warnings = check(tls, ca, tokens, insecure).expect("allowed");
                assert_eq!(warnings.len(), warned, "{tls} {ca} {tokens} {insecure}");
            }
        }
    }

    #[test]
    fn metrics_beyond_this_machine_are_asked_for() {
        let (local, wide) = (address("127.0.0.1:1"), address("0.0.0.0:9"));
        let mut settings = settings(true, true, true, false);
        let error = settings
            .check_addresses(Some(local), wide)
            .expect_err("refused");
        assert!(error.to_string().contains("--expose-metrics"), "{error}");
        settings.expose_metrics = true;
        assert_eq!(settings.check_addresses(Some(local), wide), Ok(Vec::new()));
    }
}
