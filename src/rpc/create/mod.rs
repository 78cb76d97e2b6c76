//! `CreateCache` and `AddExamples`: a specification and examples in, progress
//! and a version out. The two differ in their messages and in where the order
//! comes from; all else is here, once.
//!
//! Examples are encoded as bulk work while they arrive; a client that sends
//! faster than they are encoded is slowed by flow control. Nothing is stored
//! before every feature is there and the head is made.

mod add;
mod gather;
mod spec;
mod text;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Response, Status, Streaming, codegen::BoxStream};

use super::{
    Context, convert,
    observe::{Call, carried, say},
    problem::{Failure, Problem},
    request::{RequestError, until},
};
use crate::{
    auth::{Caller, audit::Change},
    catalog::{CatalogError, Gathered, Recipe, Stage, TextRequest, TextRows, compute},
};
pub use add::Adding;
use gather::Gathering;
pub use pb::create_cache_response::Event;
pub use spec::Creating;
pub use text::MAX_PROMPT_BYTES;
use tipserve_api::v1::{self as pb, cache_spec::OnRejected, create_progress};
use tipserve_engine::FlowId;
use tipserve_store::Condition;

/// One of the RPCs that make a version from examples.
pub trait Making: 'static {
    /// What it says where the first message is no specification.
    const SPEC_FIRST: &'static str;
    /// What it says where a later message carries no examples.
    const EXAMPLES_AFTER: &'static str;
    /// The specification.
    type Spec: Send;
    /// A message from the client.
    type Request: Send + 'static;
    /// A message to the client.
    type Response: Send + 'static;

    /// What audit lines call it.
    const ACTION: &'static str;

    /// What a message carries.
    fn part(request: Self::Request) -> Option<Part<Self::Spec>>;

    /// The order that a specification makes.
    ///
    /// # Errors
    /// What is wrong with it.
    fn order(
        spec: Self::Spec,
        context: &Context,
        caller: &Caller,
    ) -> impl Future<Output = Result<Order, Failure>> + Send;

    /// An event as this RPC's message.
    fn response(event: Event) -> Self::Response;
}

/// What a message from the client carries.
pub enum Part<S> {
    /// The specification.
    Spec(S),
    /// Examples.
    Examples(pb::ExampleBatch),
}

/// A specification, checked.
pub struct Order {
    recipe: Recipe,
    /// Whether the first example that cannot be used fails the call.
    strict: bool,
    /// Whether classes without a training example are kept.
    allow_empty: bool,
    /// Of the augmentation.
    seed: u64,
    /// What must hold of the cache.
    condition: Condition,
}

/// Serves one call.
pub async fn serve<M: Making>(
    context: Arc<Context>,
    caller: Caller,
    deadline: Option<Instant>,
    mut incoming: Streaming<M::Request>,
    call: &Call,
) -> Result<Response<BoxStream<M::Response>>, Failure> {
    let message = incoming
        .message()
        .await
        .map_err(|status| Failure::from_status(&status))?;
    let spec = match message.and_then(M::part) {
        Some(Part::Spec(spec)) => spec,
        Some(Part::Examples(_)) => {
            return Err(RequestError::Order {
                problem: M::SPEC_FIRST,
            }
            .into());
        }
        None => return Err(RequestError::missing("spec").into()),
    };
    let order = M::order(spec, &context, &caller).await?;
    let mut change = Change::new(&caller, M::ACTION, order.recipe.id.resource_name());
    // Now, too, so that nothing is encoded in vain.
    let store = context.catalog.store();
    if let Err(error) = store.check(&order.recipe.id, &order.condition).await {
        let failure = Failure::from(error);
        change.ended(failure.code());
        return Err(failure);
    }
    let examples = incoming.map(|message| match message {
        Err(status) => Err(Failure::from_status(&status)),
        Ok(message) => match M::part(message) {
            Some(Part::Examples(batch)) => Ok(batch),
            _ => Err(RequestError::Order {
                problem: M::EXAMPLES_AFTER,
            }
            .into()),
        },
    });
    let (events, response) = mpsc::channel(16);
    let cancelled = Arc::new(AtomicBool::new(false));
    let creation = Creation {
        context,
        caller,
        order: Arc::new(order),
        events: events.clone(),
        cancelled: Arc::clone(&cancelled),
    };
    let call = call.clone();
    tokio::spawn(carried(async move {
        let ended = tokio::select! {
            ended = creation.run(examples) => ended.map_err(Status::from),
            () = events.closed() => return cancelled.store(true, Ordering::Relaxed),
            () = until(deadline) => {
                Err(Problem::from(RequestError::DeadlineExceeded).into())
            }
        };
        cancelled.store(true, Ordering::Relaxed);
        let code = ended.as_ref().map_or_else(Status::code, |_| Code::Ok);
        call.ended(code);
        match &ended {
            Ok(version) => change.names(&version.name),
            Err(status) => say(status),
        }
        change.ended(code);
        let _ = events.send(ended.map(Event::Version)).await;
    }));
    let response = ReceiverStream::new(response).map(|event| event.map(M::response));
    Ok(Response::new(Box::pin(response)))
}

/// Whether examples that cannot be used fail the call.
fn strict(on_rejected: i32) -> Result<bool, RequestError> {
    match OnRejected::try_from(on_rejected) {
        Ok(OnRejected::Fail) => Ok(true),
        Ok(OnRejected::Unspecified | OnRejected::Skip) => Ok(false),
        Err(_) => Err(RequestError::invalid(
            "spec.on_rejected",
            format!("{on_rejected} is not an OnRejected"),
        )),
    }
}

/// Where an etag is given, the cache must have it.
fn etag(etag: String) -> Option<String> {
    (!etag.is_empty()).then_some(etag)
}

struct Creation {
    context: Arc<Context>,
    caller: Caller,
    order: Arc<Order>,
    events: mpsc::Sender<Result<Event, Status>>,
    cancelled: Arc<AtomicBool>,
}

impl Creation {
    async fn run(
        self,
        examples: impl Stream<Item = Result<pb::ExampleBatch, Failure>> + Unpin,
    ) -> Result<pb::Version, Failure> {
        let text = self.text().await?;
        let gathered = Gathering::new(&self).run(examples).await?;
        if !self.order.allow_empty {
            refuse_empty_class(&self.order.recipe, &gathered)?;
        }
        let counts = [
            gathered.received as i64,
            gathered.examples.len() as i64,
            gathered.rejected as i64,
        ];
        self.progress(Stage::Selection, counts).await;
        let draft = {
            let context = Arc::clone(&self.context);
            let order = Arc::clone(&self.order);
            let cancelled = Arc::clone(&self.cancelled);
            compute(move || {
                let stop = || cancelled.load(Ordering::Relaxed);
                context
                    .catalog
                    .prepare(&order.recipe, text, &gathered, &stop)
            })
            .await??
        };
        self.progress(Stage::Storing, counts).await;
        // tonic shows a request stream that was cancelled as one that has
        // ended. The side that answers knows better: nothing is stored for a
        // client that is gone.
        if self.events.is_closed() || self.cancelled.load(Ordering::Relaxed) {
            return Err(CatalogError::Cancelled.into());
        }
        let manifest = self
            .context
            .catalog
            .store_version(&self.order.recipe.id, draft, &self.order.condition)
            .await?;
        Ok(convert::version(&manifest))
    }

    async fn text(&self) -> Result<Option<TextRows>, Failure> {
        self.progress(Stage::Text, [0; 3]).await;
        let request = TextRequest {
            truncate: false,
            flow: FlowId::next(),
            deadline: None,
            cancelled: Arc::clone(&self.cancelled),
        };
        let recipe = &self.order.recipe;
        Ok(self
            .context
            .catalog
            .text_classifier(recipe, &request)
            .await?)
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
            .send(Ok(Event::Progress(pb::CreateProgress {
                stage: stage as i32,
                received,
                encoded,
                rejected,
            })))
            .await;
    }
}

/// Refuses a class that no training example names.
fn refuse_empty_class(recipe: &Recipe, gathered: &Gathered) -> Result<(), RequestError> {
    let mut seen = vec![false; recipe.class_count()];
    let all = recipe.inherited().iter().chain(&gathered.examples);
    for example in all.filter(|e| !e.validation) {
        if let Some(seen) = seen.get_mut(example.class) {
            *seen = true;
        }
    }
    for (index, (name, seen)) in recipe.class_names().zip(seen).enumerate() {
        if !seen {
            let rejected = match gathered.reasons.get(&index) {
                Some((count, first)) => format!(" ({count} rejected; {first})"),
                None => String::new(),
            };
            let field = match (&recipe.base, index.checked_sub(recipe.base_classes().len())) {
                (None, _) => format!("spec.classes[{index}]"),
                (Some(_), Some(new)) => format!("spec.new_classes[{new}]"),
                (Some(_), None) => "spec.remove_example_ids".to_owned(),
            };
            return Err(RequestError::invalid(
                field,
                format!(
                    "class {index} {name:?} has 0 usable training examples{rejected}; each needs \
                     at least 1, unless spec.allow_empty_classes is set"
                ),
            ));
        }
    }
    Ok(())
}
