//! Addresses of this machine, the only ones that need no TLS.

use std::net::IpAddr;

use reqwest::Url;

/// Whether a URL points at this machine.
pub(super) fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}
