//! Receiving examples and collecting their features.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt};
use tonic::Code;

use super::{
    super::{
        error::ApiError,
        flow_of_stream,
        request::{self, RequestError},
        submit::Item,
    },
    Creation, Event,
};
use crate::catalog::{CatalogError, CollectedFeatures, ExampleFeature, Stage};
use tipserve_api::v1 as pb;
use tipserve_engine::{Content, Crop, FlowId, JobOutput, Permit, Priority, Work};

/// How often progress is said.
const PROGRESS: Duration = Duration::from_millis(200);

/// A view of an example, encoded or not.
struct View {
    example: usize,
    view: usize,
    result: Result<JobOutput, ApiError>,
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

/// Receives examples, encodes them, and collects their features.
pub struct FeatureCollection<'a> {
    creation: &'a Creation,
    window: Arc<Semaphore>,
    flow: FlowId,
    views: mpsc::UnboundedSender<View>,
    done: mpsc::UnboundedReceiver<View>,
    pending: Vec<Option<Pending>>,
    finished: Vec<Option<ExampleFeature>>,
    ids: HashSet<String>,
    /// Number that stands for the id of the first example without one.
    first_id: u64,
    reasons: BTreeMap<usize, (usize, String)>,
    bytes: usize,
    encoded: i64,
    /// Whether a picture was taken.
    pictures: bool,
    rejected: i64,
    outstanding: usize,
    said: Instant,
}

impl<'a> FeatureCollection<'a> {
    /// Nothing yet but what the base holds.
    pub fn new(creation: &'a Creation) -> FeatureCollection<'a> {
        let recipe = &creation.request.recipe;
        let width = creation.context.catalog.model().width;
        let inherited = recipe.inherited();
        let (views, done) = mpsc::unbounded_channel();
        FeatureCollection {
            window: Arc::new(Semaphore::new(creation.context.limits.stream_window)),
            flow: flow_of_stream(&creation.caller),
            views,
            done,
            pending: Vec::new(),
            finished: Vec::new(),
            ids: inherited.iter().map(|e| e.id.clone()).collect(),
            first_id: recipe.base.as_ref().map_or(0, |base| base.next_id()),
            reasons: BTreeMap::new(),
            bytes: inherited
                .iter()
                .map(|e| recipe.feature_bytes(width, e.validation))
                .sum(),
            encoded: 0,
            pictures: false,
            rejected: 0,
            outstanding: 0,
            said: Instant::now(),
            creation,
        }
    }

    /// Receives until the client has said all, then waits for what is on its
    /// way.
    pub async fn run(
        mut self,
        mut incoming: impl Stream<Item = Result<pb::ExampleBatch, ApiError>> + Unpin,
    ) -> Result<CollectedFeatures, ApiError> {
        loop {
            let message = tokio::select! {
                message = incoming.next() => message.transpose()?,
                Some(view) = self.done.recv() => {
                    self.collect(view).await?;
                    continue;
                }
                () = self.creation.context.shutdown.cancelled() => {
                    return Err(ApiError::shutting_down());
                }
            };
            let Some(batch) = message else { break };
            for example in batch.examples {
                self.take(example).await?;
            }
        }
        while self.outstanding > 0 {
            match self.done.recv().await {
                Some(view) => self.collect(view).await?,
                None => break,
            }
        }
        Ok(CollectedFeatures {
            received: self.pending.len(),
            rejected: usize::try_from(self.rejected).unwrap_or(0),
            pictures: self.pictures,
            reasons: self.reasons,
            examples: self.finished.into_iter().flatten().collect(),
        })
    }

    /// Takes one example: its jobs go to the engine, or it is rejected.
    async fn take(&mut self, example: pb::Example) -> Result<(), ApiError> {
        let limits = &self.creation.context.limits;
        let recipe = &self.creation.request.recipe;
        let number = self.pending.len();
        let total = recipe.inherited().len() + number + 1;
        RequestError::check("examples", "max_examples", limits.max_examples, total)?;
        let id = if example.example_id.is_empty() {
            self.first_id.saturating_add(number as u64).to_string()
        } else {
            example.example_id
        };
        self.pending.push(None);
        self.finished.push(None);
        let class = self.class(example.class_index);
        let checked = self.check(&id, &class, example.input);
        let (class, content) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.reject(id, class.ok(), error.into()).await,
        };
        self.ids.insert(id.clone());
        let views = match (&content, example.validation) {
            (Content::Picture { .. }, false) => recipe.views,
            _ => 1,
        };
        let context = &self.creation.context;
        context.pace(&self.creation.caller, 1, None, true).await?;
        let width = context.catalog.model().width;
        self.bytes += recipe.feature_bytes(width, example.validation);
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
                self.finish(number, pending, &[unit]);
                self.say().await;
                Ok(())
            }
            Content::Picture { source, .. } => {
                self.pictures = true;
                let id = pending.id.clone();
                if let Some(slot) = self.pending.get_mut(number) {
                    *slot = Some(pending);
                }
                for view in 0..views {
                    let crop = if views == 1 {
                        Crop::Centre
                    } else {
                        Crop::Random {
                            seed: view_seed(self.creation.request.seed, &id, view),
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

    fn class(&self, index: i32) -> Result<usize, RequestError> {
        let count = self.creation.request.recipe.class_count();
        usize::try_from(index)
            .ok()
            .filter(|class| *class < count)
            .ok_or_else(|| {
                let problem = format!("{index} is not in 0..{count}");
                RequestError::invalid("examples.class_index", problem)
            })
    }

    /// What the engine takes of an example.
    fn check(
        &self,
        id: &str,
        class: &Result<usize, RequestError>,
        input: Option<pb::Input>,
    ) -> Result<(usize, Content), RequestError> {
        request::check_id("examples.example_id", id)?;
        request::check_printable("examples.example_id", id)?;
        let class = class.clone()?;
        if self.ids.contains(id) {
            return Err(RequestError::invalid(
                "examples.example_id",
                "another example has this id",
            ));
        }
        let width = self.creation.context.catalog.model().width;
        Ok((class, request::content(input, Crop::Centre, width)?))
    }

    async fn submit(
        &mut self,
        example: usize,
        view: usize,
        content: Content,
    ) -> Result<(), ApiError> {
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
        let item = Item {
            content,
            work: Work::Embed,
            flow: self.flow,
            priority: Priority::Bulk,
            deadline: None,
            cancelled: Arc::clone(&self.creation.cancelled),
            may_wait: true,
        };
        let views = self.views.clone();
        self.outstanding += 1;
        let deliver = move |result, permit| {
            let _ = views.send(View {
                example,
                view,
                result,
                _permit: permit,
            });
        };
        context
            .submit(item, Permit::default().with(place), deliver)
            .await;
        Ok(())
    }

    async fn collect(&mut self, view: View) -> Result<(), ApiError> {
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
                let (id, class) = (std::mem::take(&mut pending.id), pending.class);
                *slot = None;
                let its_own = matches!(
                    problem.code(),
                    Code::InvalidArgument | Code::Internal | Code::FailedPrecondition
                );
                if !its_own {
                    // Not the example's fault: the whole cannot go on.
                    return Err(problem);
                }
                self.reject(id, Some(class), problem).await
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
                    let raw: Vec<_> = pending.views.drain(..).flatten().collect();
                    self.finish(view.example, pending, &raw);
                }
                self.say().await;
                Ok(())
            }
        }
    }

    fn finish(&mut self, number: usize, pending: Pending, raw: &[Vec<f32>]) {
        self.encoded += 1;
        if let Some(slot) = self.finished.get_mut(number) {
            let Pending {
                id,
                class,
                validation,
                ..
            } = pending;
            *slot = Some(ExampleFeature::of_views(id, class, validation, raw));
        }
    }

    async fn reject(
        &mut self,
        id: String,
        class: Option<usize>,
        problem: ApiError,
    ) -> Result<(), ApiError> {
        self.rejected += 1;
        if let Some(class) = class {
            let first = || (0, format!("example {id:?}: {}", problem.message()));
            self.reasons.entry(class).or_insert_with(first).0 += 1;
        }
        if self.creation.request.strict {
            let subject = format!("example {id:?}");
            return Err(problem.about(subject).fact("example_id", id));
        }
        let _ = self
            .creation
            .events
            .send(Ok(Event::Rejected(pb::RejectedExample {
                example_id: id,
                code: problem.code() as i32,
                message: problem.message().to_owned(),
                reason: problem.reason().to_owned(),
            })))
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
