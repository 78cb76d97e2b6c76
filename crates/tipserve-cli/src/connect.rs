//! The connection to the server.

use std::{
    error::Error as _,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Global,
    address::Address,
    credentials::{AuthChannel, Credentials},
    failure::Failure,
    transport::Connector,
};
use tipserve_api::v1::{
    GetServerInfoRequest, ServerInfo, analysis_service_client::AnalysisServiceClient,
    bundle_service_client::BundleServiceClient, cache_service_client::CacheServiceClient,
    classify_service_client::ClassifyServiceClient,
    fine_tune_service_client::FineTuneServiceClient,
};

/// Longest time that connecting may take, the peer's first word included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time between two looks at whether a peer still answers.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(20);

/// gRPC's own limit, for a server that names none.
const DEFAULT_MESSAGE_BYTES: usize = 4 << 20;

/// Names under which `ServerInfo.limits` may carry the message limit.
const MESSAGE_LIMIT_NAMES: [&str; 2] = ["max_message_bytes", "message_bytes"];

/// A connection to one server.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: AuthChannel,
    address: Address,
    /// Bound of a unary call; none waits for ever.
    timeout: Option<Duration>,
    /// Whether a call has been answered: before, the peer may be no tipserve at all.
    answered: Arc<AtomicBool>,
}

impl Connection {
    /// Connects as the command line says.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] if nobody answers, [`Failure::Usage`] if the
    /// address or the credentials cannot be used.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        Self::connect(&global.server, &global.credentials, global.timeout).await
    }

    /// Connects to a server that this process started, which knows no
    /// credentials.
    pub(crate) async fn open_local(server: &str, timeout: Duration) -> Result<Self, Failure> {
        Self::connect(server, &Credentials::default(), timeout).await
    }

    async fn connect(
        server: &str,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        let credentials = match Address::is_plain(server) {
            true => &credentials.without_tls_of_environment(),
            false => credentials,
        };
        let address = Address::parse(server, credentials.ask_for_tls())?;
        let mut endpoint = Endpoint::from(address.uri());
        if let Some(timeout) = timeout {
            // A peer that stops answering while a call runs is given up after
            // `timeout` in all.
            let interval = (timeout / 3).min(MAX_PING_INTERVAL);
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(timeout.saturating_sub(interval));
        }
        if address.is_tls() {
            endpoint = endpoint.tls_config(credentials.tls()?).map_err(|error| {
                let cause = error.source().map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| error.to_string());
                Failure::Usage(format!("--ca, --cert or --key cannot be used: {cause}"))
            })?;
        }
        let bearer = credentials.bearer()?;
        let bound = timeout.map_or(CONNECT_TIMEOUT, |timeout| timeout.min(CONNECT_TIMEOUT));
        let channel = tokio::time::timeout(bound, reach(&endpoint, &address))
            .await
            .unwrap_or_else(|_| {
                let cause = format!("no answer within {} s", bound.as_secs_f64());
                Err(unreachable(&address, cause))
            })?;
        Ok(Self {
            channel: AuthChannel::new(channel, bearer),
            address,
            timeout,
            answered: Arc::default(),
        })
    }

    /// The cache service. Answers may be of any size: a confusion matrix of
    /// 1000 classes is large, and the server is the user's own.
    pub fn caches(&self) -> CacheServiceClient<AuthChannel> {
        CacheServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// A client of the service that classifies.
    pub fn classify(&self) -> ClassifyServiceClient<AuthChannel> {
        ClassifyServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// A client of the service that fine-tunes.
    pub fn fine_tunes(&self) -> FineTuneServiceClient<AuthChannel> {
        FineTuneServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// A client of the service that analyses versions and suggests labels.
    pub fn analysis(&self) -> AnalysisServiceClient<AuthChannel> {
        AnalysisServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The bundle service.
    pub fn bundles(&self) -> BundleServiceClient<AuthChannel> {
        BundleServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The channel itself, for calls that the generated clients do not make.
    pub fn channel(&self) -> AuthChannel {
        self.channel.clone()
    }

    /// The server's address, as people write it.
    pub fn address(&self) -> &str {
        self.address.as_str()
    }

    /// Waits for the answer to a unary call that changes nothing. `doing`
    /// says what it is for: "looking up \"pets\"".
    ///
    /// # Errors
    /// The server's status, or [`Failure::Timeout`].
    pub async fn unary<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.bounded(doing, call, false).await
    }

    /// Waits for the answer to a unary call that changes something: whether it
    /// did is unknown after a timeout, and the error says so.
    pub(crate) async fn change<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.bounded(doing, call, true).await
    }

    /// Waits without a time limit for the answer to a unary call; the server
    /// continues it even if nobody waits.
    pub(crate) async fn lasting<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match call.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.failure(doing, status)),
        }
    }

    async fn bounded<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
        changes: bool,
    ) -> Result<T, Failure> {
        let answer = match self.timeout {
            None => call.await,
            Some(timeout) => {
                tokio::time::timeout(timeout, call)
                    .await
                    .map_err(|_| Failure::Timeout {
                        doing: doing.to_owned(),
                        address: self.address().to_owned(),
                        seconds: timeout.as_secs_f64(),
                        changes,
                    })?
            }
        };
        let answer = answer.map_err(|status| self.failure(doing, status))?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(answer.into_inner())
    }

    /// What the server serves.
    ///
    /// # Errors
    /// Those of [`Connection::unary`].
    pub async fn info(&self) -> Result<ServerInfo, Failure> {
        let mut client = self.classify();
        let call = client.get_server_info(GetServerInfoRequest {});
        self.unary("asking for the server's limits", call).await
    }

    /// The largest message that the server takes, in bytes.
    ///
    /// # Errors
    /// Those of [`Connection::unary`].
    pub async fn message_limit(&self) -> Result<usize, Failure> {
        match self.info().await {
            Ok(info) => Ok(message_limit(&info)),
            Err(Failure::Rpc { status, .. }) if status.code() == Code::Unimplemented => {
                Ok(DEFAULT_MESSAGE_BYTES)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The failure that a status stands for; `doing` says what was tried.
    pub fn failure(&self, doing: &str, status: Status) -> Failure {
        // A lost connection has the transport's error as its source; a server
        // that answers UNAVAILABLE itself has none.
        match (status.code(), status.source()) {
            // What is not HTTP/2 ends the first call with any of these.
            (
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal,
                Some(transport),
            ) if !self.answered.load(Ordering::Relaxed) => {
                unreachable(&self.address, root_cause(transport))
            }
            (Code::Unavailable, Some(transport)) => Failure::Disconnected {
                doing: doing.to_owned(),
                address: self.address().to_owned(),
                cause: root_cause(transport),
            },
            _ => Failure::Rpc {
                doing: doing.to_owned(),
                status: Box::new(status),
            },
        }
    }
}

/// Connects, and waits until the peer has spoken.
async fn reach(endpoint: &Endpoint, address: &Address) -> Result<Channel, Failure> {
    let connector = Connector::new(address.clone());
    let (connected, heard) = (connector.connected(), connector.heard());
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| {
            let cause = root_cause(&error);
            if address.is_tls() && connected.load(Ordering::Relaxed) {
                let address = address.as_str().to_owned();
                return Failure::Tls { address, cause };
            }
            unreachable(address, cause)
        })?;
    heard.await;
    Ok(channel)
}

fn unreachable(address: &Address, cause: String) -> Failure {
    Failure::Unreachable {
        address: address.as_str().to_owned(),
        listen: address.listen().map(str::to_owned),
        cause,
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn message_limit(info: &ServerInfo) -> usize {
    MESSAGE_LIMIT_NAMES
        .iter()
        .find_map(|name| info.limits.get(*name))
        .and_then(|limit| usize::try_from(*limit).ok())
        .filter(|limit| *limit > 0)
        .unwrap_or(DEFAULT_MESSAGE_BYTES)
}
