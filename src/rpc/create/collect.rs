//! Receiving examples and collecting their features.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt};
use tonic::Code;

use super::{
    super::{
        error::ApiError,
        flow_of_stream,
        request::{self, RequestError},
        submit::Item,
        uploads::Upload,
    },
    Creation, Event,
    example::{classes, purpose},
    gathered::{Gathered, Pending, beside_features},
    notes, views,
};
use crate::catalog::{
    CatalogError, ClassNames, CollectedFeatures, ExampleNotes, Purpose, Stage, orientation,
};
use tipserve_api::{
    text::{canonical, into_canonical},
    v1 as pb,
};
use tipserve_engine::{
    Content, Crop, EngineError, FlowId, JobOutput, Permit, Priority, Source, Work,
};

/// How often progress is said.
const PROGRESS: Duration = Duration::from_millis(200);

/// What an example was waiting for.
enum Arrival {
    /// One view of the picture, encoded or rejected.
    View(Box<View>),
    /// Its thumbnail, or why there is none.
    Thumbnail {
        example: usize,
        made: Result<Bytes, ApiError>,
    },
}

/// A view of an example, encoded or rejected.
struct View {
    example: usize,
    view: usize,
    result: Result<JobOutput, ApiError>,
    _permit: Permit,
}

/// Receives examples, encodes them, and collects their features.
pub struct FeatureCollection<'a> {
    creation: &'a Creation,
    window: Arc<Semaphore>,
    flow: FlowId,
    arrivals: mpsc::UnboundedSender<Arrival>,
    done: mpsc::UnboundedReceiver<Arrival>,
    gathered: Gathered,
    ids: HashSet<String>,
    classes: ClassNames,
    /// The number that an example without an id gets, if it is the first.
    first_id: u64,
    bytes: usize,
    upload: Upload,
    /// Whether a picture was taken.
    pictures: bool,
    outstanding: usize,
    said: Instant,
}

impl<'a> FeatureCollection<'a> {
    /// A collection that holds only what the base has.
    pub fn new(creation: &'a Creation) -> FeatureCollection<'a> {
        let recipe = &creation.request.recipe;
        let width = recipe.bundle.model.width;
        let inherited = recipe.inherited();
        let (arrivals, done) = mpsc::unbounded_channel();
        FeatureCollection {
            window: Arc::new(Semaphore::new(creation.context.limits.stream_window)),
            flow: flow_of_stream(&creation.caller),
            arrivals,
            done,
            gathered: Gathered::default(),
            ids: inherited
                .iter()
                .map(|e| canonical(&e.id).into_owned())
                .collect(),
            classes: ClassNames::new(recipe.class_names()),
            first_id: recipe.base.as_ref().map_or(0, |base| base.next_id()),
            bytes: inherited
                .iter()
                .map(|e| recipe.feature_bytes(width, e.purpose) + e.notes_bytes())
                .sum(),
            upload: creation.context.uploads.begin(&creation.caller),
            pictures: false,
            outstanding: 0,
            said: Instant::now(),
            creation,
        }
    }

    /// Receives until the client ends the stream, then waits for what is in
    /// flight.
    pub async fn run(
        mut self,
        mut incoming: impl Stream<Item = Result<pb::ExampleBatch, ApiError>> + Unpin,
    ) -> Result<(CollectedFeatures, Upload), ApiError> {
        loop {
            let message = tokio::select! {
                message = incoming.next() => message.transpose()?,
                Some(arrival) = self.done.recv() => {
                    self.collect(arrival).await?;
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
                Some(arrival) => self.collect(arrival).await?,
                None => break,
            }
        }
        Ok((self.gathered.into_features(self.pictures), self.upload))
    }

    /// Takes one example: its jobs go to the engine, or it is rejected.
    async fn take(&mut self, mut example: pb::Example) -> Result<(), ApiError> {
        let limits = &self.creation.context.limits;
        let recipe = &self.creation.request.recipe;
        let number = self.gathered.received();
        let total = recipe.inherited().len() + number + 1;
        RequestError::check("examples", "max_examples", limits.max_examples, total)?;
        let id = if example.example_id.is_empty() {
            self.first_id.saturating_add(number as u64).to_string()
        } else {
            into_canonical(std::mem::take(&mut example.example_id))
        };
        self.gathered.receive();
        let purpose = purpose(&example);
        let found = purpose
            .clone()
            .and_then(|purpose| classes(recipe, &self.classes, &mut example, purpose));
        let checked = self.check(&id, &found, &mut example);
        let (classes, content, notes) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let class = found.ok().and_then(|classes| classes.first().copied());
                return self.reject(id, class, error.into()).await;
            }
        };
        self.ids.insert(id.clone());
        let purpose = purpose?;
        // Of an unlabelled picture only the feature is kept.
        let keeps = purpose != Purpose::Unlabelled;
        let notes = if keeps {
            notes
        } else {
            ExampleNotes::default()
        };
        let views = match (&content, purpose) {
            (Content::Picture { .. }, Purpose::Training) => recipe.views,
            _ => 1,
        };
        let context = &self.creation.context;
        context.pace(&self.creation.caller, 1, None, true).await?;
        let width = recipe.bundle.model.width;
        self.count_bytes(recipe.feature_bytes(width, purpose) + notes.size())?;
        self.upload.add(beside_features(&id, &classes))?;
        let pictured = match self.creation.request.keep_pictures && keeps {
            true => notes::pictured(std::mem::take(&mut example.thumbnail), &content),
            false => None,
        };
        let mut pending = Pending {
            id,
            classes,
            purpose,
            views: vec![None; views],
            lacks_end_mark: false,
            notes,
            awaits_thumbnail: pictured.is_some(),
        };
        let id = pending.id.clone();
        if let Content::Embedding(unit) = &content {
            pending.views = vec![Some(unit.clone())];
        }
        self.gathered.begin(number, pending);
        if let Some(source) = pictured {
            self.make_thumbnail(number, source).await?;
        }
        match content {
            Content::Embedding(_) => {
                self.gathered.finish_if_complete(number);
                self.say().await;
                Ok(())
            }
            Content::Picture { source, .. } => {
                self.pictures = true;
                for view in 0..views {
                    let crop = views::crop(self.creation.request.seed, &id, view, views);
                    let source = source.clone();
                    self.submit(number, view, Content::Picture { source, crop })
                        .await?;
                }
                Ok(())
            }
        }
    }

    /// An example as content for the engine, checked.
    fn check(
        &self,
        id: &str,
        classes: &Result<Vec<usize>, RequestError>,
        example: &mut pb::Example,
    ) -> Result<(Vec<usize>, Content, ExampleNotes), RequestError> {
        request::check_id("examples.example_id", id)?;
        request::check_printable("examples.example_id", id)?;
        let classes = classes.clone()?;
        if self.ids.contains(id) {
            return Err(RequestError::invalid(
                "examples.example_id",
                "another example has this id",
            ));
        }
        let notes = notes::checked(example)?;
        let width = self.creation.request.recipe.bundle.model.width;
        let turn = orientation::decoded(self.creation.request.recipe.exif_orientation);
        let content = request::content(example.input.take(), Crop::Centre, width, turn)?;
        Ok((classes, content, notes))
    }

    /// Counts the bytes that the version will hold, and checks the limit.
    fn count_bytes(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(bytes);
        RequestError::check(
            "examples (bytes of features and thumbnails)",
            "max_create_bytes",
            self.creation.context.limits.max_create_bytes,
            self.bytes,
        )?;
        self.upload.add(bytes)
    }

    /// Has a thumbnail made, once a place for that is free.
    async fn make_thumbnail(&mut self, example: usize, source: Source) -> Result<(), ApiError> {
        let place = loop {
            tokio::select! {
                place = notes::place() => break place?,
                Some(arrival) = self.done.recv() => self.collect(arrival).await?,
            }
        };
        let limits = self.creation.context.limits.picture;
        let arrivals = self.arrivals.clone();
        self.outstanding += 1;
        tokio::spawn(async move {
            let work = move || {
                let _place = place;
                notes::make(&source, &limits)
            };
            // A decoder that panics on a hostile file costs only that file.
            let made = tokio::task::spawn_blocking(work).await;
            let made = made.unwrap_or_else(|_| Err(EngineError::DecoderPanicked.into()));
            let _ = arrivals.send(Arrival::Thumbnail { example, made });
        });
        Ok(())
    }

    async fn submit(
        &mut self,
        example: usize,
        view: usize,
        content: Content,
    ) -> Result<(), ApiError> {
        // Collects results while waiting: the window's permits come back with
        // them.
        let place = loop {
            tokio::select! {
                place = Arc::clone(&self.window).acquire_owned() => break place,
                Some(arrival) = self.done.recv() => self.collect(arrival).await?,
            }
        };
        let place = place.map_err(CatalogError::internal)?;
        let context = &self.creation.context;
        let item = Item {
            bundle: Arc::clone(&self.creation.request.recipe.bundle),
            content,
            work: Work::Embed,
            flow: self.flow,
            priority: Priority::Bulk,
            deadline: None,
            cancelled: Arc::clone(&self.creation.cancelled),
            may_wait: true,
        };
        let arrivals = self.arrivals.clone();
        self.outstanding += 1;
        let deliver = move |result, permit| {
            let _ = arrivals.send(Arrival::View(Box::new(View {
                example,
                view,
                result,
                _permit: permit,
            })));
        };
        context
            .submit(item, Permit::default().with(place), deliver)
            .await;
        Ok(())
    }

    async fn collect(&mut self, arrival: Arrival) -> Result<(), ApiError> {
        self.outstanding -= 1;
        let (example, problem) = match arrival {
            Arrival::View(arrived) => {
                // Its place in the window is given back with it.
                let View {
                    example,
                    view,
                    result,
                    ..
                } = *arrived;
                if let (Ok(outcome), Some(pending)) = (&result, self.gathered.pending(example)) {
                    pending.lacks_end_mark |= outcome.lacks_end_mark;
                }
                let raw = result.map(|outcome| {
                    outcome.feature.map(|feature| {
                        let values = feature.unit.iter();
                        values.map(|value| value * feature.norm).collect()
                    })
                });
                (example, self.take_view(example, view, raw).err())
            }
            Arrival::Thumbnail { example, made } => {
                (example, self.take_thumbnail(example, made)?.err())
            }
        };
        match problem {
            Some(problem) => self.give_up(example, problem).await,
            None => {
                self.gathered.finish_if_complete(example);
                self.say().await;
                Ok(())
            }
        }
    }

    /// An example that was rejected before has no entry any more.
    fn take_view(
        &mut self,
        example: usize,
        view: usize,
        raw: Result<Option<Vec<f32>>, ApiError>,
    ) -> Result<(), ApiError> {
        if let Some(pending) = self.gathered.pending(example) {
            let raw = raw?;
            if let Some(place) = pending.views.get_mut(view) {
                *place = raw;
            }
        }
        Ok(())
    }

    /// The inner error is the example's, the outer one the call's.
    fn take_thumbnail(
        &mut self,
        example: usize,
        made: Result<Bytes, ApiError>,
    ) -> Result<Result<(), ApiError>, ApiError> {
        if self.gathered.pending(example).is_some() {
            let made = match made {
                Ok(made) => made,
                Err(problem) => return Ok(Err(problem)),
            };
            let size = made.len();
            self.gathered.keep_thumbnail(example, made);
            self.count_bytes(size)?;
        }
        Ok(Ok(()))
    }

    /// Rejects an example, or fails the call if the problem is not the
    /// example's own.
    async fn give_up(&mut self, example: usize, problem: ApiError) -> Result<(), ApiError> {
        let Some(pending) = self.gathered.give_up(example) else {
            return Ok(());
        };
        let its_own = matches!(
            problem.code(),
            Code::InvalidArgument | Code::Internal | Code::FailedPrecondition
        );
        if !its_own {
            return Err(problem);
        }
        self.reject(pending.id, pending.classes.first().copied(), problem)
            .await
    }

    async fn reject(
        &mut self,
        id: String,
        class: Option<usize>,
        problem: ApiError,
    ) -> Result<(), ApiError> {
        let reason = || format!("example {id:?}: {}", problem.message());
        self.gathered.reject(class, reason);
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
            let counts = self.gathered.counts();
            self.creation.progress(Stage::Examples, counts).await;
        }
    }
}
