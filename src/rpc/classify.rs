//! `ClassifyService`.

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, Streaming};

use super::{
    Context,
    answer::{Options, classification},
    classify_stream, embed,
    error::ApiError,
    evaluate, flow_of, info,
    observe::{Call, observed},
    request,
    submit::{CancelOnDrop, Item},
    unread::Reader,
};
use crate::{auth::Caller, telemetry};
use tipserve_api::v1::{self as pb, classify_service_server::ClassifyService};
use tipserve_engine::Crop;

/// `ClassifyService`, over the engine and the catalogue.
pub struct Classify {
    context: Arc<Context>,
}

impl Classify {
    /// The service on this server.
    pub fn new(context: Arc<Context>) -> Classify {
        Classify { context }
    }

    async fn classify_one(
        &self,
        request: Request<pb::ClassifyRequest>,
    ) -> Result<Response<pb::ClassifyResponse>, ApiError> {
        let context = &self.context;
        let deadline = request::deadline(request.metadata(), Instant::now());
        let caller = Caller::of(request.extensions());
        let flow = flow_of(&caller, &request);
        let request = request.into_inner();
        let options = Options::check(request.options.unwrap_or_default())?;
        let priority = request::priority(request.priority)?;
        let reference = super::reference(&caller, &request.cache)?;
        let classifier = context.catalog.classifier(&reference).await?;
        // From here on an error is the item's, as in a stream.
        let answering = async {
            let content = request::content(
                request.input,
                Crop::Centre,
                classifier.width(),
                classifier.exif_orientation(),
            )?;
            context.pace(&caller, 1, deadline, false).await?;
            // Dropped with this future: a client that goes away cancels the job.
            let cancel = CancelOnDrop::new();
            let item = Item {
                bundle: Arc::clone(&classifier.bundle),
                content,
                work: options.work(&classifier),
                flow,
                priority,
                deadline,
                cancelled: Arc::clone(&cancel.0),
                may_wait: false,
            };
            context.send(item).await?.outcome().await
        };
        let outcome = answering.await;
        telemetry::item(outcome.is_ok());
        let outcome = outcome?;
        Ok(Response::new(pb::ClassifyResponse {
            classification: Some(classification(&classifier, &options, outcome)?),
        }))
    }
}

#[tonic::async_trait]
impl ClassifyService for Classify {
    type ClassifyStreamStream = classify_stream::Answers;

    async fn classify_stream(
        &self,
        request: Request<Streaming<pb::ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let call = Call::current(&self.context.calls);
        let context = Arc::clone(&self.context);
        let caller = Caller::of(request.extensions());
        let serving = async {
            let client = Reader::of(request.extensions())?;
            let incoming = request.into_inner();
            classify_stream::serve(context, caller, deadline, client, incoming, &call).await
        };
        call.answer(serving).await
    }

    async fn classify(
        &self,
        request: Request<pb::ClassifyRequest>,
    ) -> Result<Response<pb::ClassifyResponse>, Status> {
        observed(&self.context.calls, self.classify_one(request)).await
    }

    async fn embed(
        &self,
        request: Request<pb::EmbedRequest>,
    ) -> Result<Response<pb::EmbedResponse>, Status> {
        observed(&self.context.calls, embed::serve(&self.context, request)).await
    }

    async fn evaluate(
        &self,
        request: Request<Streaming<pb::EvaluateRequest>>,
    ) -> Result<Response<pb::EvaluateResponse>, Status> {
        let deadline = request::deadline(request.metadata(), Instant::now());
        let caller = Caller::of(request.extensions());
        let serving = evaluate::serve(&self.context, caller, deadline, request.into_inner());
        observed(&self.context.calls, serving).await
    }

    async fn get_server_info(
        &self,
        request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        let caller = Caller::of(request.extensions());
        observed(&self.context.calls, async {
            Ok(info::serve(&self.context, &caller))
        })
        .await
    }
}
