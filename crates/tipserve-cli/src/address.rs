//! Where the server is: what people write, as a URI or the path of a socket.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

use tonic::transport::Uri;

use crate::failure::Failure;

/// Where a server listens that is told nothing.
pub(crate) const DEFAULT_PORT: u16 = 50051;

/// A server's address, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Address {
    /// As people write it: "http://127.0.0.1:50051", or
    /// "unix:/run/tipserve.sock".
    shown: String,
    /// What HTTP requests name. A Unix socket has no host; any would do.
    uri: Uri,
    /// The socket's path, if it is one.
    socket: Option<PathBuf>,
}

impl Address {
    /// Takes `http://host:port`, `https://host:port`, `host:port`, `host`,
    /// `::1`, `[::1]:port`, `:port`, `unix:/path`, and of gRPC's names for
    /// addresses `dns:`, `ipv4:` and `ipv6:`. An address without a scheme
    /// means TLS if `tls`.
    pub(crate) fn parse(server: &str, tls: bool) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Usage(format!("--server {server:?} {why}"));
        let text = server.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::socket(path, tls).map_err(|why| wrong(&why));
        }
        let text = resolved(text).map_err(|why| wrong(&why))?;
        let (scheme, authority) = match text.split_once("://") {
            None => (if tls { "https" } else { "http" }, text),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "http" if tls => {
                    return Err(wrong(
                        "is without TLS, but --ca, --cert or --key asks for it",
                    ));
                }
                "http" => ("http", rest),
                "https" => ("https", rest),
                _ => return Err(wrong(&format!("has the unknown scheme {scheme:?}"))),
            },
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.is_empty() {
            return Err(wrong("names no host"));
        }
        // The parser takes a path or a query off, and we would drop it in silence.
        if authority.contains(['/', '?', '#']) {
            return Err(wrong("has a path; give the host and port alone"));
        }
        let authority = with_port(authority);
        let shown = format!("{scheme}://{authority}");
        let uri: Uri = shown
            .parse()
            .map_err(|error| wrong(&format!("is not an address: {error}")))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("names no host"));
        }
        if authority.contains('@') {
            return Err(wrong("names a user; give the host and port alone"));
        }
        // The parser drops a port that is not a number, and takes a sign.
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = authority.rsplit(':').next().filter(|port| digits(port));
        let port = port.and_then(|port| port.parse::<u16>().ok());
        if has_port(&authority) && port.is_none_or(|port| port == 0) {
            return Err(wrong("has a port that is not within 1 to 65535"));
        }
        Ok(Self {
            shown,
            uri,
            socket: None,
        })
    }

    /// Whether an address says that it is without TLS: "http://…", "unix:…".
    pub(crate) fn is_plain(server: &str) -> bool {
        let begins = |with: &str| {
            let start = server.trim().get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        begins("http://") || begins("unix:")
    }

    fn socket(path: &str, tls: bool) -> Result<Self, String> {
        // unix:/path, unix:path and unix:///path, as gRPC has them.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            return Err("names no socket".to_owned());
        }
        if tls {
            return Err(
                "is a Unix socket, which is served without TLS, but --ca, --cert or --key \
                 asks for it"
                    .to_owned(),
            );
        }
        Ok(Self {
            shown: format!("unix:{path}"),
            uri: Uri::from_static("http://localhost"),
            socket: Some(PathBuf::from(path)),
        })
    }

    /// The address as people write it.
    pub(crate) fn as_str(&self) -> &str {
        &self.shown
    }

    /// The URI that HTTP requests name.
    pub(crate) fn uri(&self) -> Uri {
        self.uri.clone()
    }

    /// The path of the Unix socket, if it is one.
    pub(crate) fn socket_path(&self) -> Option<PathBuf> {
        self.socket.clone()
    }

    /// Whether the connection is encrypted (https).
    pub(crate) fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// `host:port` as `tipserve serve --listen` takes it; none for a socket.
    pub(crate) fn listen(&self) -> Option<&str> {
        if self.socket.is_some() {
            return None;
        }
        self.shown.split_once("://").map(|(_, authority)| authority)
    }
}

/// What an address in gRPC's own notation stands for: `dns:host:port`,
/// `dns:///host:port`, `ipv4:address:port`, `ipv6:[address]:port`. Of several
/// addresses the first one counts.
fn resolved(text: &str) -> Result<&str, String> {
    let Some((kind, rest)) = text.split_once(':') else {
        return Ok(text);
    };
    // A host may be called "dns", too.
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text);
    }
    match kind {
        "dns" => match rest.strip_prefix("//").map(|rest| rest.split_once('/')) {
            None => Ok(rest),
            Some(Some(("", name))) => Ok(name),
            Some(Some((server, _))) => Err(format!(
                "names the name server {server:?}; write dns:///host:port"
            )),
            Some(None) => Err("names no host; write dns:///host:port".to_owned()),
        },
        "ipv4" | "ipv6" => {
            let list = rest.trim_start_matches('/');
            Ok(list.split(',').next().unwrap_or(list))
        }
        "unix-abstract" | "vsock" | "xds" | "passthrough" => Err(format!(
            "is one of gRPC's {kind} addresses, which the command line cannot reach; give \
             host:port"
        )),
        _ => Ok(text),
    }
}

/// A host that names no port gets the default one.
fn with_port(authority: &str) -> String {
    if authority.starts_with(':') && authority.parse::<Ipv6Addr>().is_err() {
        return format!("127.0.0.1{authority}");
    }
    if let Ok(IpAddr::V6(address)) = authority.parse() {
        return format!("[{address}]:{DEFAULT_PORT}");
    }
    if has_port(authority) {
        return authority.to_owned();
    }
    format!("{authority}:{DEFAULT_PORT}")
}

fn has_port(authority: &str) -> bool {
    let after_bracket = authority.rsplit(']').next().unwrap_or(authority);
    after_bracket.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_taken() {
        for (given, shown) in [
            ("http://a:1", "http://a:1"),
            ("a:1/", "http://a:1"),
            ("a", "http://a:50051"),
            ("localhost:7", "http://localhost:7"),
            (":7", "http://127.0.0.1:7"),
            ("::1", "http://[::1]:50051"),
            ("[::1]:7", "http://[::1]:7"),
            ("[::1]", "http://[::1]:50051"),
            ("https://a:1", "https://a:1"),
            ("https://a", "https://a:50051"),
            ("HTTP://a/", "http://a:50051"),
            ("http://[::1]", "http://[::1]:50051"),
            ("dns:///a:1", "http://a:1"),
            ("dns:a:1", "http://a:1"),
            ("dns:///a", "http://a:50051"),
            ("dns:7", "http://dns:7"),
            ("ipv4:127.0.0.1:5,127.0.0.1:6", "http://127.0.0.1:5"),
            ("ipv6:[::1]:5", "http://[::1]:5"),
            ("unix:/run/t.sock", "unix:/run/t.sock"),
            ("unix:///run/t.sock", "unix:/run/t.sock"),
        ] {
            let address = Address::parse(given, false).unwrap();
            assert_eq!(address.as_str(), shown, "{given}");
        }
        for (given, shown) in [("a", "https://a:50051"), ("https://a:1", "https://a:1")] {
            assert_eq!(Address::parse(given, true).unwrap().as_str(), shown);
        }
    }

    #[test]
    fn an_address_that_cannot_be_meant_is_refused() {
        for tls in ["http://a:1", "unix:/x"] {
            assert!(matches!(Address::parse(tls, true), Err(Failure::Usage(_))));
        }
        for given in [
            "",
            "ftp://a",
            "http://a:1/x",
            "http://",
            "a:99999",
            "a b:1",
            "[::1:7",
            "user:password@a:1",
            "unix:",
            "dns:",
            "dns://8.8.8.8/a:1",
            "xds:///a",
            "a:1//",
            "a:0",
            "a:+1",
            "a:",
            "~/x",
            "http://a:1?x",
            "a#x",
        ] {
            assert!(
                matches!(Address::parse(given, false), Err(Failure::Usage(_))),
                "{given}"
            );
        }
    }

    #[test]
    fn a_server_can_listen_where_it_is_looked_for() {
        let listen = |text| {
            Address::parse(text, false)
                .unwrap()
                .listen()
                .map(str::to_owned)
        };
        assert_eq!(listen("a").as_deref(), Some("a:50051"));
        assert_eq!(listen("unix:/x"), None);
    }
}
