//! The HTTP requests to a bucket, observed. Every attempt is one, so that
//! retries show.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

/// How a bucket answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketAnswer {
    /// As a working one does, "no such object" included.
    Ok,
    /// With an error of its own, or by refusing access.
    Error,
    /// Not at all: no connection, or no answer in time.
    Unreachable,
}

/// Observes every HTTP request to a bucket, and what a disk fails to keep.
pub trait RequestObserver: Debug + Send + Sync {
    /// A request is about to be sent; its trace headers may be added. They are
    /// not among the headers that are signed: a proxy may add or change them.
    fn sending(&self, _headers: &mut http::HeaderMap) {}
    /// A request has ended, after `_took`.
    fn answered(&self, _answer: BucketAnswer, _took: Duration) {}
    /// A write to a local store was refused because the disk failed to make it
    /// durable.
    fn write_distrusted(&self) {}
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl RequestObserver for Unobserved {}

/// Makes clients whose requests are observed.
#[derive(Debug)]
pub(super) struct Observed(pub Arc<dyn RequestObserver>);

impl HttpConnector for Observed {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(ObservedClient {
            client,
            observer: Arc::clone(&self.0),
        }))
    }
}

#[derive(Debug)]
struct ObservedClient {
    client: HttpClient,
    observer: Arc<dyn RequestObserver>,
}

#[async_trait::async_trait]
impl HttpService for ObservedClient {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.observer.sending(request.headers_mut());
        let started = Instant::now();
        let answer = self.client.execute(request).await;
        let outcome = match &answer {
            Err(_) => BucketAnswer::Unreachable,
            // "Not found" and "already exists" are answers like any other.
            Ok(response) => match response.status().as_u16() {
                200..400 | 404 | 409 | 412 | 416 => BucketAnswer::Ok,
                _ => BucketAnswer::Error,
            },
        };
        self.observer.answered(outcome, started.elapsed());
        answer
    }
}
