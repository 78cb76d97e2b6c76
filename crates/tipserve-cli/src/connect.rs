//! The connection to the server.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status, transport::Endpoint};

use super::{
    Global,
    credentials::{Credentials, Wire},
    failure::Failure,
};
use tipserve_api::v1::{
    GetServerInfoRequest, ServerInfo, cache_service_client::CacheServiceClient,
    classify_service_client::ClassifyServiceClient,
    fine_tune_service_client::FineTuneServiceClient,
};

const DEFAULT_PORT: u16 = 50051;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// gRPC's own limit, where the server names none.
const DEFAULT_MESSAGE_BYTES: usize = 4 << 20;

/// Under which names `ServerInfo.limits` may carry the message limit.
const MESSAGE_LIMIT_NAMES: [&str; 2] = ["max_message_bytes", "message_bytes"];

/// A connection to one server.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Wire,
    address: Address,
}

impl Connection {
    /// Connects as the command line says; `Unreachable` where nobody answers.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        Self::connect(&global.server, &global.credentials).await
    }

    /// Connects to a server of this process's own, which knows no credentials.
    pub async fn open_local(server: &str) -> Result<Self, Failure> {
        Self::connect(server, &Credentials::default()).await
    }

    async fn connect(server: &str, credentials: &Credentials) -> Result<Self, Failure> {
        let address = Address::parse(server, credentials.ask_for_tls())?;
        let wrong =
            |error: &dyn std::error::Error| Failure::Usage(format!("--server {server:?}: {error}"));
        let mut endpoint = Endpoint::from_shared(address.uri.clone())
            .map_err(|error| wrong(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if address.uri.starts_with("https://") {
            endpoint = endpoint.tls_config(credentials.tls()?).map_err(|error| {
                let cause = error.source().map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| error.to_string());
                Failure::Usage(format!("--ca, --cert or --key cannot be used: {cause}"))
            })?;
        }
        let bearer = credentials.bearer()?;
        let channel = endpoint.connect().await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            address.unreachable(cause.to_string())
        })?;
        Ok(Self {
            channel: Wire::new(channel, bearer),
            address,
        })
    }

    /// The cache service. Answers may be of any size: a confusion matrix of
    /// 10,000 classes is large, and the server is the user's own.
    pub fn caches(&self) -> CacheServiceClient<Wire> {
        CacheServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The classification service.
    pub fn classify(&self) -> ClassifyServiceClient<Wire> {
        ClassifyServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The fine-tuning service.
    pub fn fine_tunes(&self) -> FineTuneServiceClient<Wire> {
        FineTuneServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The connection itself.
    pub fn channel(&self) -> Wire {
        self.channel.clone()
    }

    /// Where the server is.
    pub fn address(&self) -> &str {
        &self.address.uri
    }

    /// What is served.
    pub async fn info(&self) -> Result<ServerInfo, Failure> {
        let answer = self
            .classify()
            .get_server_info(GetServerInfoRequest {})
            .await;
        Ok(answer
            .map_err(|status| self.failure("asking for the server's limits", status))?
            .into_inner())
    }

    /// The largest message that the server takes, in bytes.
    pub async fn message_limit(&self) -> Result<usize, Failure> {
        match self
            .classify()
            .get_server_info(GetServerInfoRequest {})
            .await
        {
            Ok(info) => Ok(message_limit(info.get_ref())),
            Err(status) if status.code() == Code::Unimplemented => Ok(DEFAULT_MESSAGE_BYTES),
            Err(status) => Err(self.failure("asking for the server's limits", status)),
        }
    }

    /// The failure that a status stands for: `doing` says what was tried.
    pub fn failure(&self, doing: &str, status: Status) -> Failure {
        // A lost connection has the transport's error as its source; a server
        // that answers UNAVAILABLE itself has none.
        let transport = status.source().map(ToString::to_string);
        match (status.code(), transport) {
            (Code::Unavailable, Some(cause)) => self.address.unreachable(cause),
            _ => Failure::Rpc {
                doing: doing.to_owned(),
                status: Box::new(status),
            },
        }
    }
}

fn message_limit(info: &ServerInfo) -> usize {
    MESSAGE_LIMIT_NAMES
        .iter()
        .find_map(|name| info.limits.get(*name))
        .and_then(|limit| usize::try_from(*limit).ok())
        .filter(|limit| *limit > 0)
        .unwrap_or(DEFAULT_MESSAGE_BYTES)
}

#[derive(Clone, Debug, PartialEq)]
struct Address {
    uri: String,
    listen: String,
}

impl Address {
    /// Takes "http://host:port", "https://host:port", "host:port", "host",
    /// "[::1]:port", ":port"; those without a scheme are of TLS where `tls`.
    fn parse(server: &str, tls: bool) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Usage(format!("--server {server:?} {why}"));
        let server_text = server.trim();
        let mut scheme = if tls { "https" } else { "http" };
        let authority = match server_text.split_once("://") {
            Some(("http", _)) if tls => {
                return Err(wrong(
                    "is without TLS, and --ca, --cert or --key asks for it",
                ));
            }
            Some((given @ ("http" | "https"), authority)) => {
                scheme = given;
                authority.trim_end_matches('/').to_owned()
            }
            Some((scheme, _)) => return Err(wrong(&format!("has the unknown scheme {scheme:?}"))),
            None => match server_text.trim_end_matches('/') {
                "" => return Err(wrong("names no host")),
                port if port.starts_with(':') => format!("127.0.0.1{port}"),
                host => {
                    let after_bracket = host.rsplit(']').next().unwrap_or(host);
                    if after_bracket.contains(':') {
                        host.to_owned()
                    } else {
                        format!("{host}:{DEFAULT_PORT}")
                    }
                }
            },
        };
        let uri = format!("{scheme}://{authority}");
        let parsed: tonic::transport::Uri = uri
            .parse()
            .map_err(|error| wrong(&format!("is no address: {error}")))?;
        if parsed.host().is_none_or(str::is_empty) {
            return Err(wrong("names no host"));
        }
        // The parser drops a port that is none.
        let after_bracket = authority.rsplit(']').next().unwrap_or(&authority);
        if after_bracket.contains(':') && parsed.port_u16().is_none() {
            return Err(wrong("has a port that is not within 0 to 65535"));
        }
        if !matches!(parsed.path(), "" | "/") {
            return Err(wrong("has a path; give host and port alone"));
        }
        Ok(Self {
            uri,
            listen: authority,
        })
    }

    fn unreachable(&self, cause: String) -> Failure {
        Failure::Unreachable {
            address: self.uri.clone(),
            listen: self.listen.clone(),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_form() {
        for (given, uri) in [
            ("http://a:1", "http://a:1"),
            ("a:1/", "http://a:1"),
            ("a", "http://a:50051"),
            (":7", "http://127.0.0.1:7"),
            ("[::1]:7", "http://[::1]:7"),
            ("[::1]", "http://[::1]:50051"),
            ("https://a:1", "https://a:1"),
        ] {
            assert_eq!(Address::parse(given, false).unwrap().uri, uri, "{given}");
        }
        for (given, uri) in [("a", "https://a:50051"), ("https://a:1", "https://a:1")] {
            assert_eq!(Address::parse(given, true).unwrap().uri, uri, "{given}");
        }
        assert!(matches!(
            Address::parse("http://a:1", true),
            Err(Failure::Usage(_))
        ));
        for given in ["", "ftp://a", "http://a:1/x", "http://", "a:99999", "a b:1"] {
            assert!(
                matches!(Address::parse(given, false), Err(Failure::Usage(_))),
                "{given}"
            );
        }
    }
}
