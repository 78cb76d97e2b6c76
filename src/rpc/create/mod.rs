//! `CreateCache`: a specification and examples in, progress and a version out.
//!
//! Examples are encoded as bulk work while they arrive; a client that sends
//! faster than they are encoded is slowed by flow control. Nothing is stored
//! before every feature is there and the head is made.

mod gather;
mod spec;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::{
    Context, convert,
    observe::Call,
    problem::{Failure, Problem},
    request::{RequestError, until},
};
use crate::{
    catalog::{CatalogError, Gathered, Recipe, Stage, TextRows},
    proto::v1::{
        self as pb, cache_spec::OnRejected, create_cache_request::Payload,
        create_cache_response::Event, create_progress,
    },
};
use gather::Gathering;

/// The answers of a call.
pub type Events = ReceiverStream<Result<pb::CreateCacheResponse, Status>>;

/// Serves one call.
pub async fn serve(
    context: Arc<Context>,
    deadline: Option<Instant>,
    mut incoming: Streaming<pb::CreateCacheRequest>,
    call: &Call,
) -> Result<Response<Events>, Failure> {
    let message = incoming
        .message()
        .await
        .map_err(|status| Failure::from_status(&status))?;
    let spec = match message.and_then(|message| message.payload) {
        Some(Payload::Spec(spec)) => spec,
        Some(Payload::Examples(_)) => {
            return Err(RequestError::Order {
                problem: "the first message of CreateCache must be its spec, not examples",
            }
            .into());
        }
        None => return Err(RequestError::missing("spec").into()),
    };
    let strict = spec.on_rejected == OnRejected::Fail as i32;
    let allow_empty = spec.allow_empty_classes;
    let seed = spec.seed;
    let recipe = spec::check(spec, &context)?;
    let (events, response) = mpsc::channel(16);
    let cancelled = Arc::new(AtomicBool::new(false));
    let creation = Creation {
        context,
        recipe: Arc::new(recipe),
        strict,
        allow_empty,
        seed,
        events: events.clone(),
        cancelled: Arc::clone(&cancelled),
    };
    let call = call.clone();
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = creation.run(incoming) => ended.map_err(Status::from),
            () = events.closed() => return cancelled.store(true, Ordering::Relaxed),
            () = until(deadline) => {
                Err(Problem::from(RequestError::DeadlineExceeded).into())
            }
        };
        cancelled.store(true, Ordering::Relaxed);
        call.ended(ended.as_ref().map_or_else(Status::code, |_| Code::Ok));
        let last = ended.map(|version| response_of(Event::Version(version)));
        let _ = events.send(last).await;
    });
    Ok(Response::new(ReceiverStream::new(response)))
}

fn response_of(event: Event) -> pb::CreateCacheResponse {
    pb::CreateCacheResponse { event: Some(event) }
}
struct Creation {
    context: Arc<Context>,
    recipe: Arc<Recipe>,
    strict: bool,
    allow_empty: bool,
    seed: u64,
    events: mpsc::Sender<Result<pb::CreateCacheResponse, Status>>,
    cancelled: Arc<AtomicBool>,
}

impl Creation {
    async fn run(
        self,
        incoming: Streaming<pb::CreateCacheRequest>,
    ) -> Result<pb::Version, Failure> {
        let text = self.text().await?;
        let gathered = Gathering::new(&self).run(incoming).await?;
        if !self.allow_empty {
            refuse_empty_class(&self.recipe, &gathered)?;
        }
        let counts = [
            gathered.received as i64,
            gathered.examples.len() as i64,
            gathered.rejected as i64,
        ];
        self.progress(Stage::Selection, counts).await;
        let draft = {
            let context = Arc::clone(&self.context);
            let recipe = Arc::clone(&self.recipe);
            let cancelled = Arc::clone(&self.cancelled);
            tokio::task::spawn_blocking(move || {
                let stop = || cancelled.load(Ordering::Relaxed);
                context.catalog.prepare(&recipe, text, &gathered, &stop)
            })
            .await
            .map_err(CatalogError::internal)??
        };
        self.progress(Stage::Storing, counts).await;
        let manifest = self
            .context
            .catalog
            .store_version(&self.recipe.id, draft)
            .await?;
        Ok(convert::version(&manifest))
    }

    async fn text(&self) -> Result<Option<TextRows>, Failure> {
        self.progress(Stage::Text, [0; 3]).await;
        let context = Arc::clone(&self.context);
        let recipe = Arc::clone(&self.recipe);
        let cancelled = Arc::clone(&self.cancelled);
        let text = tokio::task::spawn_blocking(move || {
            let stop = || cancelled.load(Ordering::Relaxed);
            context.catalog.text_classifier(&recipe, &stop)
        })
        .await
        .map_err(CatalogError::internal)??;
        Ok(text)
    }

    async fn progress(&self, stage: Stage, [received, encoded, rejected]: [i64; 3]) {
        let stage = match stage {
            Stage::Text => create_progress::Stage::Text,
            Stage::Examples => create_progress::Stage::Examples,
            Stage::Selection => create_progress::Stage::Selection,
            Stage::Storing => create_progress::Stage::Storing,
        };
        // A client that is gone is noticed by the select in `serve`.
        let _ = self
            .events
            .send(Ok(response_of(Event::Progress(pb::CreateProgress {
                stage: stage as i32,
                received,
                encoded,
                rejected,
            }))))
            .await;
    }
}

/// Refuses a class that no training example names.
fn refuse_empty_class(recipe: &Recipe, gathered: &Gathered) -> Result<(), RequestError> {
    let mut seen = vec![false; recipe.classes.len()];
    for example in gathered.examples.iter().filter(|e| !e.validation) {
        if let Some(seen) = seen.get_mut(example.class) {
            *seen = true;
        }
    }
    for (index, (name, seen)) in recipe.classes.iter().zip(seen).enumerate() {
        if !seen {
            let rejected = match gathered.reasons.get(&index) {
                Some((count, first)) => format!(" ({count} rejected; {first})"),
                None => String::new(),
            };
            return Err(RequestError::invalid(
                format!("spec.classes[{index}]"),
                format!(
                    "class {name:?} has 0 usable training examples{rejected}; each needs at \
                     least 1, unless spec.allow_empty_classes is set"
                ),
            ));
        }
    }
    Ok(())
}
