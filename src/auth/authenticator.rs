//! Certificates and tokens, read again when their files change.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{AuthError, AuthSettings, OpenError, reload::Reloaded, tls::Tls, tokens::Tokens};

/// Identifies callers by their tokens and certificates.
pub struct Authenticator {
    tls: Option<Reloaded<Tls>>,
    tokens: Option<Reloaded<Tokens>>,
    every: Duration,
    reloads: watch::Sender<()>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// One that lets everybody do everything.
    pub fn open_to_all() -> Authenticator {
        Authenticator {
            tls: None,
            tokens: None,
            every: Duration::from_secs(3600),
            reloads: watch::Sender::new(()),
        }
    }

    /// Reads certificates and tokens.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn new(settings: &AuthSettings) -> Result<Authenticator, OpenError> {
        Ok(Authenticator {
            tls: settings.tls.clone().map(Reloaded::open).transpose()?,
            tokens: settings.tokens.clone().map(Reloaded::open).transpose()?,
            every: settings.reload,
            reloads: watch::Sender::new(()),
        })
    }

    /// The certificates in force, if the server speaks TLS.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.as_ref().map(Reloaded::now)
    }

    /// The tokens in force, if the server requires them.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.as_ref().map(Reloaded::now)
    }

    /// Whether the certificates that a client has shown are still valid: they
    /// were when it connected, but connections last.
    ///
    /// # Errors
    /// [`AuthError::Certificate`].
    pub fn check_certificates(&self, chain: &[CertificateDer<'static>]) -> Result<(), AuthError> {
        match self.tls() {
            Some(tls) => tls.check_client(chain),
            None => Ok(()),
        }
    }

    /// Says that something was reloaded.
    pub(super) fn reloads(&self) -> watch::Receiver<()> {
        self.reloads.subscribe()
    }

    /// Reads again what has changed. If a file cannot be used, that is logged,
    /// and what was in force stays.
    pub fn refresh(&self) {
        let tls = self.tls.as_ref().is_some_and(Reloaded::refresh);
        let tokens = self.tokens.as_ref().is_some_and(Reloaded::refresh);
        if tls || tokens {
            self.reloads.send_replace(());
        }
    }

    /// Whether there is anything to read again.
    pub fn is_reloadable(&self) -> bool {
        self.tls.is_some() || self.tokens.is_some()
    }

    /// Checks the files periodically; never ends.
    pub async fn watch(self: Arc<Self>) {
        if !self.is_reloadable() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(self.every).await;
            let authenticator = Arc::clone(&self);
            // Files may be on a disk that is slow to answer.
            let _ = tokio::task::spawn_blocking(move || authenticator.refresh()).await;
        }
    }
}
