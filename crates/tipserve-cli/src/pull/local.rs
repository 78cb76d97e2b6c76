//! Addresses of this machine, the only ones that need no TLS.

use reqwest::Url;

/// Whether a URL points at this machine.
pub(super) fn is_local(url: &Url) -> bool {
    matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
}
