//! `CreateCache`: a specification and examples in, progress and a version out.
//!
//! Examples are encoded as bulk work while they arrive; a client that sends
//! faster than they are encoded is slowed by flow control. Nothing is stored
//! before every feature is there and the head is made.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use half::f16;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::{
    Context, convert,
    observe::Call,
    problem::{Failure, Problem},
    request::{self, RequestError, until},
};
use crate::{
    catalog::{
        CatalogError, ExampleFeature, Gathered, Recipe, Stage, TextRows, TextSource, class_prompts,
    },
    engine::{Content, Crop, FlowId, Job, Outcome, Permit, Priority, Ticket, Work},
    proto::v1::{
        self as pb, cache_spec::OnRejected, create_cache_request::Payload,
        create_cache_response::Event, create_progress,
    },
    store::CacheId,
    tip::spec::Method,
};

/// How often progress is said.
const PROGRESS: Duration = Duration::from_millis(200);
const MAX_VIEWS: i32 = 64;
const MAX_DESCRIPTION_BYTES: usize = 4096;
const MAX_LABELS: usize = 64;
const MAX_NAME_BYTES: usize = 1024;

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
    let recipe = check(spec, &context)?;
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

/// The recipe of a specification.
fn check(spec: pb::CacheSpec, context: &Context) -> Result<Recipe, Failure> {
    let model = context.catalog.model();
    let limits = &context.limits;
    let id: CacheId = CacheId::parse_name(&spec.cache_id)
        .map_err(|error| Problem::from(error).field("spec.cache_id"))?;
    if spec.classes.is_empty() {
        return Err(RequestError::invalid(
            "spec.classes",
            "a cache needs at least one class, this one has 0",
        )
        .into());
    }
    RequestError::check(
        "spec.classes",
        "max_classes",
        limits.max_classes,
        spec.classes.len(),
    )?;
    RequestError::check(
        "spec.description",
        "max_description_bytes",
        MAX_DESCRIPTION_BYTES,
        spec.description.len(),
    )?;
    RequestError::check("spec.labels", "max_labels", MAX_LABELS, spec.labels.len())?;
    for (index, class) in spec.classes.iter().enumerate() {
        RequestError::check(
            &format!("spec.classes[{index}].display_name"),
            "max_name_bytes",
            MAX_NAME_BYTES,
            class.display_name.len(),
        )?;
    }
    if !(0..=MAX_VIEWS).contains(&spec.views) {
        return Err(RequestError::invalid(
            "spec.views",
            format!("{} is not in 0 to {MAX_VIEWS}", spec.views),
        )
        .into());
    }
    if OnRejected::try_from(spec.on_rejected).is_err() {
        return Err(RequestError::invalid(
            "spec.on_rejected",
            format!("{} is not an OnRejected", spec.on_rejected),
        )
        .into());
    }
    let head = convert::head_request(&spec)?;
    let names = spec
        .classes
        .iter()
        .map(|class| class.display_name.clone())
        .collect();
    let text = text_source(
        spec.classes,
        spec.prompt_templates,
        context,
        Text {
            without: spec.without_text,
            truncate: spec.truncate_prompts,
        },
    )?;
    if matches!(text, TextSource::None) && head.method == Some(Method::ZeroShot) {
        return Err(RequestError::invalid(
            "spec.method",
            "zero-shot needs text: prompts (and a bundle with a text encoder) or text weights",
        )
        .into());
    }
    Ok(Recipe {
        id,
        classes: names,
        text,
        head,
        views: if model.image_size == 0 {
            1
        } else {
            spec.views.max(1) as usize
        },
        description: spec.description,
        labels: spec.labels.into_iter().collect::<BTreeMap<_, _>>(),
        created_by: String::new(),
    })
}

struct Text {
    without: bool,
    truncate: bool,
}

fn text_source(
    classes: Vec<pb::ClassSpec>,
    templates: Vec<String>,
    context: &Context,
    text: Text,
) -> Result<TextSource, Failure> {
    let model = context.catalog.model();
    if text.without {
        return Ok(TextSource::None);
    }
    let given = classes
        .iter()
        .filter(|class| class.text_weight.is_some())
        .count();
    if given == classes.len() {
        let mut rows = Vec::with_capacity(classes.len() * model.width);
        for (index, class) in classes.into_iter().enumerate() {
            let field = format!("spec.classes[{index}].text_weight");
            let values = class.text_weight.unwrap_or_default().values;
            rows.extend(request::unit(&field, values, model.width)?);
        }
        return Ok(TextSource::Weights(rows));
    }
    if given > 0 {
        return Err(RequestError::invalid(
            "spec.classes",
            format!(
                "{given} of {} classes bring a text_weight; either all do or none",
                classes.len()
            ),
        )
        .into());
    }
    let asked = !templates.is_empty() || classes.iter().any(|class| !class.prompts.is_empty());
    if !model.has_text {
        if asked {
            return Err(CatalogError::NoTextEncoder.into());
        }
        return Ok(TextSource::None);
    }
    let templates = if templates.is_empty() {
        &model.templates
    } else {
        &templates
    };
    let prompts = classes
        .into_iter()
        .map(|class| class_prompts(class.prompts, &class.display_name, templates))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(TextSource::Prompts {
        prompts,
        truncate: text.truncate,
    })
}

/// A view of an example, encoded or not.
struct View {
    example: usize,
    view: usize,
    result: Result<Outcome, Problem>,
    _permit: Permit,
}

/// An example on its way.
struct Pending {
    id: String,
    class: usize,
    validation: bool,
    /// Raw features of its views, by their number; a key once all are there.
    views: Vec<Option<Vec<f32>>>,
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
            return Err(RequestError::invalid(
                format!("spec.classes[{index}]"),
                format!(
                    "class {name:?} has 0 usable training examples; each needs at least 1, \
                     unless spec.allow_empty_classes is set"
                ),
            ));
        }
    }
    Ok(())
}

/// Receives examples and gathers their features.
struct Gathering<'a> {
    creation: &'a Creation,
    window: Arc<Semaphore>,
    flow: FlowId,
    views: mpsc::UnboundedSender<View>,
    done: mpsc::UnboundedReceiver<View>,
    pending: Vec<Option<Pending>>,
    finished: Vec<Option<ExampleFeature>>,
    ids: HashSet<String>,
    bytes: usize,
    encoded: i64,
    rejected: i64,
    outstanding: usize,
    said: Instant,
}

impl<'a> Gathering<'a> {
    fn new(creation: &'a Creation) -> Gathering<'a> {
        let (views, done) = mpsc::unbounded_channel();
        Gathering {
            window: Arc::new(Semaphore::new(creation.context.limits.stream_window)),
            flow: FlowId::next(),
            views,
            done,
            pending: Vec::new(),
            finished: Vec::new(),
            ids: HashSet::new(),
            bytes: 0,
            encoded: 0,
            rejected: 0,
            outstanding: 0,
            said: Instant::now(),
            creation,
        }
    }

    async fn run(
        mut self,
        mut incoming: Streaming<pb::CreateCacheRequest>,
    ) -> Result<Gathered, Failure> {
        loop {
            let message = tokio::select! {
                message = incoming.message() => message.map_err(|status| Failure::from_status(&status))?,
                Some(view) = self.done.recv() => {
                    self.collect(view).await?;
                    continue;
                }
                () = self.creation.context.shutdown.cancelled() => {
                    return Err(super::shutting_down().into());
                }
            };
            match message {
                None => break,
                Some(pb::CreateCacheRequest {
                    payload: Some(Payload::Examples(batch)),
                }) => {
                    for example in batch.examples {
                        self.take(example).await?;
                    }
                }
                Some(_) => {
                    return Err(RequestError::Order {
                        problem: "every message of CreateCache but the first must carry examples",
                    }
                    .into());
                }
            }
        }
        while self.outstanding > 0 {
            match self.done.recv().await {
                Some(view) => self.collect(view).await?,
                None => break,
            }
        }
        Ok(Gathered {
            received: self.pending.len(),
            rejected: usize::try_from(self.rejected).unwrap_or(0),
            examples: self.finished.into_iter().flatten().collect(),
        })
    }

    /// Takes one example: its jobs go to the engine, or it is rejected.
    async fn take(&mut self, example: pb::Example) -> Result<(), Failure> {
        let limits = &self.creation.context.limits;
        let number = self.pending.len();
        RequestError::check("examples", "max_examples", limits.max_examples, number + 1)?;
        let id = if example.example_id.is_empty() {
            number.to_string()
        } else {
            example.example_id
        };
        self.pending.push(None);
        self.finished.push(None);
        let class = usize::try_from(example.class_index)
            .ok()
            .filter(|class| *class < self.creation.recipe.classes.len());
        let width = self.creation.context.catalog.model().width;
        let checked = request::check_id("examples.example_id", &id).and_then(|()| {
            let class = class.ok_or_else(|| {
                RequestError::invalid(
                    "examples.class_index",
                    format!(
                        "{} is not in 0..{}",
                        example.class_index,
                        self.creation.recipe.classes.len()
                    ),
                )
            })?;
            if self.ids.contains(&id) {
                return Err(RequestError::invalid(
                    "examples.example_id",
                    "another example has this id",
                ));
            }
            request::content(example.input, Crop::Centre, width).map(|content| (class, content))
        });
        let (class, content) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.reject(id, error.into()).await,
        };
        self.ids.insert(id.clone());
        let views = match (&content, example.validation) {
            (Content::Picture { .. }, false) => self.creation.recipe.views,
            _ => 1,
        };
        self.bytes += width * (size_of::<f32>() + if views > 1 { views * 2 } else { 0 });
        RequestError::check(
            "examples (bytes of features)",
            "max_create_bytes",
            limits.max_create_bytes,
            self.bytes,
        )?;
        let pending = Pending {
            id,
            class,
            validation: example.validation,
            views: vec![None; views],
        };
        match content {
            Content::Embedding(unit) => {
                self.finish(number, pending, vec![unit]);
                self.say().await;
                Ok(())
            }
            Content::Picture { source, .. } => {
                let id = pending.id.clone();
                if let Some(slot) = self.pending.get_mut(number) {
                    *slot = Some(pending);
                }
                for view in 0..views {
                    let crop = if views == 1 {
                        Crop::Centre
                    } else {
                        Crop::Random {
                            seed: view_seed(self.creation.seed, &id, view),
                        }
                    };
                    let source = source.clone();
                    self.submit(number, view, Content::Picture { source, crop })
                        .await?;
                }
                Ok(())
            }
        }
    }

    async fn submit(
        &mut self,
        example: usize,
        view: usize,
        content: Content,
    ) -> Result<(), Failure> {
        // Collect what is done while waiting for room: the window's permits
        // come back with the results.
        let place = loop {
            tokio::select! {
                place = Arc::clone(&self.window).acquire_owned() => break place,
                Some(done) = self.done.recv() => self.collect(done).await?,
            }
        };
        let place = place.map_err(CatalogError::internal)?;
        let context = &self.creation.context;
        let permit = context
            .admit(&content, None, self.flow, Priority::Bulk, true)
            .await?
            .with(place);
        let views = self.views.clone();
        self.outstanding += 1;
        context.engine.submit(Job {
            content,
            work: Work::Embed,
            flow: self.flow,
            priority: Priority::Bulk,
            deadline: None,
            ticket: Ticket::new(move |result| {
                let _ = views.send(View {
                    example,
                    view,
                    result: result.map_err(Problem::from),
                    _permit: permit,
                });
            }),
            cancelled: Arc::clone(&self.creation.cancelled),
        });
        Ok(())
    }

    async fn collect(&mut self, view: View) -> Result<(), Failure> {
        self.outstanding -= 1;
        let Some(slot) = self.pending.get_mut(view.example) else {
            return Ok(());
        };
        let Some(pending) = slot else {
            // Rejected by an earlier view.
            return Ok(());
        };
        match view.result {
            Err(problem) => {
                let id = slot.take().map(|pending| pending.id).unwrap_or_default();
                let its_own = matches!(
                    problem.code,
                    Code::InvalidArgument | Code::Internal | Code::FailedPrecondition
                );
                if !its_own {
                    // Not the example's fault: the whole cannot go on.
                    return Err(problem.into());
                }
                self.reject(id, problem).await
            }
            Ok(outcome) => {
                let raw = outcome.feature.map(|feature| {
                    feature
                        .unit
                        .iter()
                        .map(|value| value * feature.norm)
                        .collect()
                });
                if let Some(place) = pending.views.get_mut(view.view) {
                    *place = raw;
                }
                if pending.views.iter().all(Option::is_some)
                    && let Some(mut pending) = slot.take()
                {
                    let raws = pending.views.drain(..).flatten().collect();
                    self.finish(view.example, pending, raws);
                }
                self.say().await;
                Ok(())
            }
        }
    }

    /// The key is the mean of the raw features, normalised once
    /// (tip-adapter.md, "Shapes").
    fn finish(&mut self, number: usize, pending: Pending, raws: Vec<Vec<f32>>) {
        self.encoded += 1;
        let views = if raws.len() > 1 {
            raws.iter()
                .flat_map(|raw| normalised(raw.iter().map(|value| f64::from(*value))))
                .map(f16::from_f32)
                .collect()
        } else {
            Vec::new()
        };
        let width = raws.first().map_or(0, Vec::len);
        let mean = (0..width).map(|at| {
            raws.iter()
                .filter_map(|raw| raw.get(at))
                .map(|value| f64::from(*value))
                .sum::<f64>()
        });
        let key = normalised(mean).collect();
        if let Some(slot) = self.finished.get_mut(number) {
            *slot = Some(ExampleFeature {
                id: pending.id,
                class: pending.class,
                validation: pending.validation,
                key,
                views,
            });
        }
    }

    async fn reject(&mut self, id: String, problem: Problem) -> Result<(), Failure> {
        self.rejected += 1;
        if self.creation.strict {
            let message = format!("example {id:?}: {}", problem.message);
            return Err(Problem { message, ..problem }.fact("example_id", id).into());
        }
        let _ = self
            .creation
            .events
            .send(Ok(response_of(Event::Rejected(pb::RejectedExample {
                example_id: id,
                code: problem.code as i32,
                message: problem.message,
                reason: problem.reason.to_owned(),
            }))))
            .await;
        Ok(())
    }

    async fn say(&mut self) {
        if self.said.elapsed() >= PROGRESS {
            self.said = Instant::now();
            let counts = [self.pending.len() as i64, self.encoded, self.rejected];
            self.creation.progress(Stage::Examples, counts).await;
        }
    }
}

/// The values divided by their length, in f64.
fn normalised(values: impl Iterator<Item = f64> + Clone) -> impl Iterator<Item = f32> {
    let norm = values
        .clone()
        .map(|value| value * value)
        .sum::<f64>()
        .sqrt();
    // Zeros stay zeros; the catalogue refuses them.
    let norm = if norm > 0.0 { norm } else { 1.0 };
    values.map(move |value| (value / norm) as f32)
}

/// A seed for one view: of the cache's seed, the example's id and the view's
/// number, so that it depends neither on the order of arrival nor on others,
/// and is the same on every machine.
fn view_seed(seed: u64, id: &str, view: usize) -> u64 {
    let digest = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update((view as u64).to_le_bytes())
        .chain_update(id.as_bytes())
        .finalize();
    digest
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
