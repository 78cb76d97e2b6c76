//! The HTTP requests to a bucket: counted, timed, and part of their caller's
//! trace. Every attempt is one, so that retries show.

use std::time::Instant;

use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

use crate::telemetry::{self, StoreAnswer};

/// Makes clients whose requests are watched.
#[derive(Debug)]
pub(super) struct Watched;

impl HttpConnector for Watched {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watching(client)))
    }
}

#[derive(Debug)]
struct Watching(HttpClient);

#[tonic::async_trait]
impl HttpService for Watching {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Not among the headers that are signed: whatever passes the request on
        // may add or change them.
        telemetry::inject(request.headers_mut());
        let started = Instant::now();
        let answer = self.0.execute(request).await;
        let outcome = match &answer {
            Err(_) => StoreAnswer::None,
            // "Not there" and "there already" are answers like any other.
            Ok(response) => match response.status().as_u16() {
                200..400 | 404 | 409 | 412 | 416 => StoreAnswer::Ok,
                _ => StoreAnswer::Error,
            },
        };
        telemetry::store_request(outcome, started.elapsed());
        answer
    }
}
