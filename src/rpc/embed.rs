//! `Embed`: pictures and texts to vectors.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use tonic::{Request, Response};

use super::{
    Context,
    answer_space::AnswerSpace,
    error::ApiError,
    flow_of,
    request::{self, RequestError},
    submit::{CancelOnDrop, Item},
};
use crate::{
    auth::Caller,
    catalog::{CatalogError, LoadedBundle, TextRequest},
    telemetry,
};
use tipserve_api::{
    text::into_canonical,
    v1::{self as pb, embed_result::Outcome},
};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Crop, FlowId, Priority, Work};

/// Most pictures, embeddings and texts of one request.
pub const MAX_ITEMS: usize = 16_384;

/// Serves one Embed, pictures and texts together.
pub async fn serve(
    context: &Arc<Context>,
    request: Request<pb::EmbedRequest>,
) -> Result<Response<pb::EmbedResponse>, ApiError> {
    let deadline = request::deadline(request.metadata(), Instant::now());
    let caller = Caller::of(request.extensions());
    let flow = flow_of(&caller, &request);
    let space = AnswerSpace::of(request.extensions())?;
    let mut request = request.into_inner();
    let count = request.inputs.len() + request.texts.len();
    RequestError::check("inputs and texts", "max_embed_items", MAX_ITEMS, count)?;
    context.pace(&caller, count, deadline, false).await?;
    let exif_orientation = request::exif_orientation("exif_orientation", request.exif_orientation)?;
    let bundle = context.catalog.bundles().named(&request.bundle)?;
    let making = space.take(count * result_bytes(bundle.model.width)).await;
    let cancel = CancelOnDrop::new();
    let asked = TextRequest {
        truncate: request.truncate_texts,
        flow,
        deadline,
        cancelled: Arc::clone(&cancel.0),
    };
    let given = std::mem::take(&mut request.texts);
    let texts = texts(&bundle, given, request.raw, &asked).await?;
    let pictures = request.inputs.into_iter().map(|input| {
        let call = Picture {
            bundle: Arc::clone(&bundle),
            deadline,
            flow,
            raw: request.raw,
            exif_orientation,
            cancelled: Arc::clone(&cancel.0),
        };
        async move {
            let outcome = match call.embed(context, input).await {
                Ok(values) => Outcome::Embedding(pb::Embedding { values }),
                Err(problem) => Outcome::Error(problem.to_item_status()),
            };
            pb::EmbedResult {
                outcome: Some(outcome),
                token_count: 0,
            }
        }
    });
    let inputs = futures::future::join_all(pictures).await;
    for result in inputs.iter().chain(&texts) {
        telemetry::item(matches!(result.outcome, Some(Outcome::Embedding(_))));
    }
    let mut response = Response::new(pb::EmbedResponse { inputs, texts });
    response.extensions_mut().insert(making);
    Ok(response)
}

/// What one result takes until the whole answer is encoded: as a message, as
/// bytes in a buffer that grows, and as the copy that waits to be read.
const fn result_bytes(width: usize) -> usize {
    4 * (size_of::<pb::EmbedResult>() + width * size_of::<f32>())
}

struct Picture {
    bundle: Arc<LoadedBundle>,
    deadline: Option<Instant>,
    flow: FlowId,
    raw: bool,
    exif_orientation: ExifOrientation,
    cancelled: Arc<AtomicBool>,
}

impl Picture {
    async fn embed(self, context: &Context, input: pb::Input) -> Result<Vec<f32>, ApiError> {
        let width = self.bundle.model.width;
        let content = request::content(Some(input), Crop::Centre, width, self.exif_orientation)?;
        let priority = Priority::Interactive;
        // A request's pictures together may be more than the queue holds: they
        // wait for admission one by one.
        let item = Item {
            bundle: self.bundle,
            content,
            work: Work::Embed,
            flow: self.flow,
            priority,
            deadline: self.deadline,
            cancelled: self.cancelled,
            may_wait: true,
        };
        let outcome = context.send(item).await?.outcome().await?;
        let feature = outcome
            .feature
            .ok_or_else(|| ApiError::from(CatalogError::internal("no feature")))?;
        let norm = if self.raw { feature.norm } else { 1.0 };
        Ok(feature.unit.iter().map(|value| value * norm).collect())
    }
}

async fn texts(
    bundle: &LoadedBundle,
    texts: Vec<String>,
    raw: bool,
    request: &TextRequest,
) -> Result<Vec<pb::EmbedResult>, ApiError> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let text = bundle.text()?;
    let texts = texts.into_iter().map(into_canonical).collect();
    let embedding = text.embed(texts, raw, request);
    let results = match request.deadline {
        None => embedding.await?,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), embedding)
            .await
            .map_err(|_| RequestError::DeadlineExceeded)??,
    };
    // A text that is too long is its own error, not the call's.
    Ok(results
        .into_iter()
        .map(|result| match result {
            Ok(text) => pb::EmbedResult {
                token_count: i32::try_from(text.tokens).unwrap_or(i32::MAX),
                outcome: Some(Outcome::Embedding(pb::Embedding {
                    values: text.feature,
                })),
            },
            Err(error) => pb::EmbedResult {
                outcome: Some(Outcome::Error(ApiError::from(error).to_item_status())),
                token_count: 0,
            },
        })
        .collect())
}
