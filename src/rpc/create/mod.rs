//! `CreateCache` and `AddExamples`: a specification and examples in, progress
//! and a version out. The two differ in their messages and specifications; all
//! else is here, once.
//!
//! Examples are encoded as bulk work while they arrive; a client that sends
//! faster than they are encoded is slowed by flow control. Nothing is stored
//! before every feature is there and the head is made.

mod add_examples;
mod collect;
mod create_cache;
mod example;
mod gathered;
mod notes;
mod text;
mod views;

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
    Context,
    change::{Change, unless_reset},
    convert,
    error::ApiError,
    flow_of_stream,
    idempotency::{Repeatable, request_key},
    observe::{Call, carried, say},
    request::{RequestError, until},
    uploads::Upload,
};
use crate::{
    auth::{Caller, audit::AuditLine},
    catalog::{
        CatalogError, CollectedFeatures, Purpose, Recipe, SelectionSize, Stage, TextRequest,
        TextRows, select,
    },
};
pub use add_examples::AddExamples;
use collect::FeatureCollection;
pub use create_cache::CreateCache;
pub use pb::create_cache_response::Event;
pub use text::MAX_PROMPT_BYTES;
use tipserve_api::v1::{self as pb, cache_spec::OnRejected, create_progress};
use tipserve_store::{CacheId, Condition, Draft, Manifest, RequestKey};

/// One of the RPCs that make a version from examples.
pub trait CreateRpc: 'static {
    /// The error if the first message is no specification.
    const SPEC_FIRST: &'static str;
    /// The error if a later message carries no examples.
    const EXAMPLES_AFTER: &'static str;
    /// The specification that begins a call.
    type Spec: Repeatable;
    /// A message from the client.
    type Request: Send + 'static;
    /// A message to the client.
    type Response: Send + 'static;

    /// What a message carries; none if it is empty.
    fn part(request: Self::Request) -> Option<Part<Self::Spec>>;

    /// The cache that a specification names, as it names it.
    fn resource(spec: &Self::Spec) -> &str;

    /// The cache that a specification names, if the caller may use it.
    ///
    /// # Errors
    /// An invalid name, or one of a cache that the caller may not use.
    fn cache(spec: &Self::Spec, caller: &Caller) -> Result<CacheId, ApiError>;

    /// Checks a specification.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(
        spec: Self::Spec,
        request: Option<RequestKey>,
        context: &Context,
        caller: &Caller,
    ) -> impl Future<Output = Result<CreateRequest, ApiError>> + Send;

    /// An event as this RPC's message.
    fn response(event: Event) -> Self::Response;
}

/// What a message from the client carries.
pub enum Part<S> {
    /// The specification, in the first message.
    Spec(S),
    /// Examples, in every later message.
    Examples(pb::ExampleBatch),
}

/// A specification that has been checked against limits and the base.
pub struct CreateRequest {
    recipe: Recipe,
    /// Whether the first example that cannot be used fails the call.
    strict: bool,
    /// Whether classes without a training example are kept.
    allow_empty: bool,
    /// Seed of the augmentation: the same seed crops the same views.
    seed: u64,
    /// Whether a thumbnail of each picture is kept.
    keep_pictures: bool,
    /// What must hold of the cache.
    condition: Condition,
}

/// What the first message leads to.
enum Begun {
    /// The version that an equal request has made before.
    Made(Box<Manifest>),
    /// A version is to be made.
    New(Box<CreateRequest>),
}

/// Serves one CreateCache or AddExamples.
pub async fn serve<R: CreateRpc>(
    context: Arc<Context>,
    Change { caller, audit }: Change,
    deadline: Option<Instant>,
    mut incoming: Streaming<R::Request>,
    call: &Call,
) -> Result<Response<BoxStream<R::Response>>, ApiError> {
    let request = match first_message::<R>(&context, &caller, &audit, &mut incoming).await? {
        Begun::New(request) => *request,
        Begun::Made(manifest) => {
            call.ended(Code::Ok);
            audit.resource(manifest.resource_name());
            audit.result(Code::Ok);
            let version = Event::Version(convert::version(&manifest));
            let response = tokio_stream::once(Ok(R::response(version)));
            return Ok(Response::new(Box::pin(response)));
        }
    };
    // Checked now as well, so that nothing is encoded in vain.
    let store = context.catalog.store();
    store.check(&request.recipe.id, &request.condition).await?;
    let examples = incoming.map(|message| match message {
        Err(status) => Err(ApiError::from_status(&status)),
        Ok(message) => match R::part(message) {
            Some(Part::Examples(batch)) => Ok(batch),
            _ => Err(RequestError::Order {
                problem: R::EXAMPLES_AFTER,
            }
            .into()),
        },
    });
    let (events, response) = mpsc::channel(16);
    let creation = Creation {
        context,
        caller,
        request: Arc::new(request),
        events,
        cancelled: Arc::default(),
    };
    let call = call.clone();
    tokio::spawn(carried(async move {
        let made = creation.run(examples, deadline).await;
        let code = made.as_ref().map_or_else(ApiError::code, |_| Code::Ok);
        call.ended(code);
        audit.result(code);
        if let Ok(version) = &made {
            audit.resource(&version.name);
        }
        // Written by now, at the latest, when the client hears of it.
        drop(audit);
        let made = made.map(Event::Version).map_err(Status::from);
        if let Err(status) = &made {
            say(status);
        }
        let _ = creation.events.send(made).await;
    }));
    let response = ReceiverStream::new(response).map(|event| event.map(R::response));
    Ok(Response::new(Box::pin(response)))
}

/// The specification, checked, unless it has been carried out before.
async fn first_message<R: CreateRpc>(
    context: &Context,
    caller: &Caller,
    audit: &AuditLine,
    incoming: &mut Streaming<R::Request>,
) -> Result<Begun, ApiError> {
    let message = incoming
        .message()
        .await
        .map_err(|status| ApiError::from_status(&status))?;
    let mut spec = match message.and_then(R::part) {
        Some(Part::Spec(spec)) => spec,
        Some(Part::Examples(_)) => {
            return Err(RequestError::Order {
                problem: R::SPEC_FIRST,
            }
            .into());
        }
        None => return Err(RequestError::missing("spec").into()),
    };
    audit.resource(R::resource(&spec));
    let key = request_key(&mut spec)?;
    if let Some(key) = &key {
        // Before anything else is checked: after the first request's change
        // those checks may fail.
        let cache = R::cache(&spec, caller)?;
        audit.resource(cache.resource_name());
        if let Some(made) = context.catalog.store().made_by(&cache, key).await? {
            return Ok(Begun::Made(Box::new(made)));
        }
    }
    let request = R::check(spec, key, context, caller).await?;
    audit.resource(request.recipe.id.resource_name());
    Ok(Begun::New(Box::new(request)))
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

/// If an etag is given, the cache must have it.
fn etag(etag: String) -> Option<String> {
    (!etag.is_empty()).then_some(etag)
}

struct Creation {
    context: Arc<Context>,
    caller: Caller,
    request: Arc<CreateRequest>,
    events: mpsc::Sender<Result<Event, Status>>,
    cancelled: Arc<AtomicBool>,
}

impl Creation {
    /// Prepares the version, which anything that ends the call also ends, and
    /// commits it, which nothing interrupts: if the answer is OK the version
    /// exists, and if it is an error it does not, unless the client was gone by
    /// then.
    async fn run(
        &self,
        examples: impl Stream<Item = Result<pb::ExampleBatch, ApiError>> + Unpin,
        deadline: Option<Instant>,
    ) -> Result<pb::Version, ApiError> {
        let cache = &self.request.recipe.id;
        let prepared = tokio::select! {
            prepared = self.prepare(examples) => prepared,
            () = self.events.closed() => Err(CatalogError::Cancelled.into()),
            () = until(deadline) => Err(RequestError::DeadlineExceeded.into()),
            error = self.caller.lapse(Some(cache)) => Err(error.into()),
        };
        // Stops what still computes for it.
        self.cancelled.store(true, Ordering::Relaxed);
        let (draft, _upload) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                tokio::select! {
                    () = unless_reset() => return Err(error),
                    () = self.events.closed() => return Err(CatalogError::Cancelled.into()),
                }
            }
        };
        // Progress may have waited for a client that is slow to read it.
        if self.events.is_closed() {
            return Err(CatalogError::Cancelled.into());
        }
        self.caller.standing(Some(cache))?;
        let manifest = self
            .context
            .catalog
            .store_version(cache, draft, &self.request.condition)
            .await?;
        Ok(convert::version(&manifest))
    }

    async fn prepare(
        &self,
        examples: impl Stream<Item = Result<pb::ExampleBatch, ApiError>> + Unpin,
    ) -> Result<(Draft, Upload), ApiError> {
        let text = self.text().await?;
        let (collected, upload) = FeatureCollection::new(self).run(examples).await?;
        if !self.request.allow_empty {
            refuse_empty_class(&self.request.recipe, &collected)?;
        }
        let counts = [
            collected.received as i64,
            collected.examples.len() as i64,
            collected.rejected as i64,
        ];
        self.progress(Stage::Selection, counts).await;
        let context = Arc::clone(&self.context);
        let request = Arc::clone(&self.request);
        let cancelled = Arc::clone(&self.cancelled);
        let size = SelectionSize::of(&request.recipe, &collected);
        size.check()?;
        let caller = self.caller.quota();
        let work = move || {
            let stop = || cancelled.load(Ordering::Relaxed);
            let draft = context
                .catalog
                .prepare(&request.recipe, text, &collected, &stop);
            // Counted for as long as the features or what was made of them is
            // there, also if nobody waits any more.
            draft.map(|draft| (draft, upload))
        };
        let made = select(caller.as_deref(), size, work).await??;
        self.progress(Stage::Storing, counts).await;
        Ok(made)
    }

    async fn text(&self) -> Result<Option<TextRows>, ApiError> {
        self.progress(Stage::Text, [0; 3]).await;
        let request = TextRequest {
            truncate: false,
            flow: flow_of_stream(&self.caller),
            deadline: None,
            cancelled: Arc::clone(&self.cancelled),
        };
        let recipe = &self.request.recipe;
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
        // The select in `serve` notices a client that is gone.
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
fn refuse_empty_class(recipe: &Recipe, collected: &CollectedFeatures) -> Result<(), RequestError> {
    let mut seen = vec![false; recipe.class_count()];
    let all = recipe.inherited().iter().chain(&collected.examples);
    let training = all.filter(|example| example.purpose == Purpose::Training);
    for class in training.flat_map(|example| &example.classes) {
        if let Some(seen) = seen.get_mut(*class) {
            *seen = true;
        }
    }
    for (index, (name, seen)) in recipe.class_names().zip(seen).enumerate() {
        if !seen {
            let rejected = match collected.reasons.get(&index) {
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
