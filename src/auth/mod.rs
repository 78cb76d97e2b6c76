//! Who may call, and what: TLS, tokens with roles and prefixes, rates, the
//! loopback rule. Knows nothing of caches beyond their ids, and nothing of
//! gRPC beyond the methods' names.
//!
//! [`Guard`] holds what can change while a server runs: certificates and
//! tokens, read again when their files change.

pub mod audit;
mod caller;
mod error;
mod exposure;
mod origin;
pub mod rates;
mod reload;
mod settings;
pub mod tls;
pub mod tokens;

use std::{sync::Arc, time::Duration};

pub use caller::Caller;
pub use error::{GuardError, OpenError};
pub use exposure::ExposureError;
pub use origin::{ORIGIN_RULE, Origin};
pub use settings::{GuardSettings, TlsFiles};

use reload::Reloaded;
use tls::Tls;
use tokens::Tokens;

/// What stands between the network and the services.
pub struct Guard {
    tls: Option<Reloaded<Tls>>,
    tokens: Option<Reloaded<Tokens>>,
    every: Duration,
}

impl Guard {
    /// A guard that lets everybody do everything.
    pub fn open_to_all() -> Guard {
        Guard {
            tls: None,
            tokens: None,
            every: Duration::from_secs(3600),
        }
    }

    /// Reads certificates and tokens.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn new(settings: &GuardSettings) -> Result<Guard, OpenError> {
        let tls = settings.tls.clone().map(Reloaded::open).transpose()?;
        let tokens = settings.tokens.clone().map(Reloaded::open).transpose()?;
        Ok(Guard {
            tls,
            tokens,
            every: settings.reload,
        })
    }

    /// The certificates in force, where the server speaks TLS.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.as_ref().map(Reloaded::now)
    }

    /// The tokens in force, where the server wants them.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.as_ref().map(Reloaded::now)
    }

    /// Reads again what has changed. What cannot be used is said, and what was
    /// in force stays.
    pub fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
        if let Some(tokens) = &self.tokens {
            tokens.refresh();
        }
    }

    /// Whether there is anything to read again.
    pub fn is_reloadable(&self) -> bool {
        self.tls.is_some() || self.tokens.is_some()
    }

    /// Looks at the files again and again; never ends.
    pub async fn watch(self: Arc<Self>) {
        if !self.is_reloadable() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(self.every).await;
            let guard = Arc::clone(&self);
            // Files may lie on a disk that is slow to answer.
            let _ = tokio::task::spawn_blocking(move || guard.refresh()).await;
        }
    }
}
