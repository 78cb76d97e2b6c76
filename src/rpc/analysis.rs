//! `AnalysisService`: which pictures to label, and what a version's own
//! examples say about it.

mod advice;
mod analyze;
mod suggest;

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, Streaming};

use super::{Context, drift, observe::observed, request};
use crate::auth::Caller;
use tipserve_api::v1::{self as pb, analysis_service_server::AnalysisService};

/// `AnalysisService`, over the catalogue's examples.
pub struct Analyses {
    context: Arc<Context>,
}

impl Analyses {
    /// The service on this server.
    pub fn new(context: Arc<Context>) -> Analyses {
        Analyses { context }
    }
}

#[tonic::async_trait]
impl AnalysisService for Analyses {
    async fn suggest_examples(
        &self,
        request: Request<Streaming<pb::SuggestExamplesRequest>>,
    ) -> Result<Response<pb::SuggestExamplesResponse>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let caller = Caller::of(request.extensions());
        let serving = suggest::serve(&self.context, caller, deadline, request.into_inner());
        observed(&self.context.calls, serving).await
    }

    async fn get_drift(
        &self,
        request: Request<pb::GetDriftRequest>,
    ) -> Result<Response<pb::Drift>, Status> {
        let caller = Caller::of(request.extensions());
        let serving = drift::serve(&self.context, caller, request.into_inner());
        observed(&self.context.calls, serving).await
    }

    async fn analyze_version(
        &self,
        request: Request<pb::AnalyzeVersionRequest>,
    ) -> Result<Response<pb::AnalyzeVersionResponse>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let caller = Caller::of(request.extensions());
        let serving = analyze::serve(&self.context, caller, deadline, request.into_inner());
        observed(&self.context.calls, serving).await
    }
}
