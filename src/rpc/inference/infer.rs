//! One request: its elements go to the engine, and their answers become one.

use std::{sync::Arc, time::Instant};

use http::Extensions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

use super::{
    model,
    outputs::{self, OutputRequest},
    parameters::Scheduling,
    recognition,
    statistics::{Entry, Statistics},
    tensors::{Batch, Form, element},
};
use crate::{
    auth::Caller,
    catalog::Served,
    rpc::{
        Context,
        answer_space::{AnswerSpace, Making},
        confidence::Reject,
        error::ApiError,
        request,
        submit::{Answer, CancelOnDrop, Item},
    },
    telemetry,
};
use tipserve_api::inference::{ModelInferRequest, ModelInferResponse};
use tipserve_engine::{FlowId, JobOutput, Work};

/// Who sends a request, and how.
pub struct Client {
    /// Who it is, and which caches it may use.
    pub caller: Caller,
    /// The flow whose turn its elements take in the queues.
    pub flow: FlowId,
    /// The call's own deadline, from its metadata.
    pub deadline: Option<Instant>,
    /// The window of the stream's unanswered elements; none for a unary call.
    pub window: Option<Arc<Semaphore>>,
    /// The budget of a unary call's answer; results of a stream are counted by
    /// its writer.
    pub space: Option<AnswerSpace>,
}

impl Client {
    /// Takes the space of a unary call's answer, once there is as much.
    async fn space(&self, count: usize, least: usize, classes: usize) -> Option<Making> {
        let space = self.space.clone()?;
        let bytes = count * outcome_bytes(classes) + ANSWER_FACTOR * least;
        Some(space.take(bytes).await)
    }

    /// Room for `count` elements in the stream's window, once it is free;
    /// a unary call needs none.
    async fn places(&self, count: usize) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let Some(window) = &self.window else {
            return Ok(None);
        };
        let places = u32::try_from(count).unwrap_or(u32::MAX);
        let permits = Arc::clone(window).acquire_many_owned(places).await;
        Ok(Some(permits.map_err(|_| ApiError::shutting_down())?))
    }
}

/// A request whose elements are in the engine. Dropped, it cancels them.
pub struct Started {
    response: ModelInferResponse,
    classifier: Served,
    input: &'static str,
    form: Form,
    reject: Option<Reject>,
    wanted: Vec<OutputRequest>,
    answers: Vec<Answer>,
    entry: Arc<Entry>,
    began: Instant,
    limit: usize,
    _cancel: CancelOnDrop,
    making: Option<Making>,
    window: Option<OwnedSemaphorePermit>,
}

/// What an outcome takes besides its scores.
const OUTCOME_BYTES: usize = 512;
/// How often an answer is in memory until it waits to be read: as a message, as
/// bytes in a buffer that grows, and as a copy.
const ANSWER_FACTOR: usize = 4;

fn outcome_bytes(classes: usize) -> usize {
    OUTCOME_BYTES + classes * size_of::<f32>()
}

/// Checks a request and gives its elements to the engine as they are admitted.
///
/// # Errors
/// What is wrong with it, or why it is not admitted.
pub async fn start(
    context: &Context,
    statistics: &Statistics,
    request: ModelInferRequest,
    client: &Client,
) -> Result<Started, ApiError> {
    let began = Instant::now();
    let reference = model::reference(&client.caller, &request.model_name, &request.model_version)?;
    let classifier = context.catalog.classifier(&reference).await?;
    let version = classifier.manifest.version;
    let entry = statistics.entry(&reference.cache, version);
    let started = submit(context, request, client, classifier, &entry, began).await;
    if started.is_err() {
        entry.failed(began.elapsed());
    }
    started
}

async fn submit(
    context: &Context,
    mut request: ModelInferRequest,
    client: &Client,
    classifier: Served,
    entry: &Arc<Entry>,
    began: Instant,
) -> Result<Started, ApiError> {
    request::check_id("id", &request.id)?;
    let scheduling = Scheduling::read(&request.parameters, client.deadline, began)?;
    let reject = recognition::parameters(&request.parameters)?;
    let wanted = outputs::wanted(&request.outputs, reject.is_some())?;
    let reject = recognition::of_outputs(reject, &wanted);
    let batch = Batch::read(
        &mut request,
        classifier.width(),
        classifier.exif_orientation(),
        context.limits.stream_window,
    )?;
    let count = batch.contents.len();
    let limit = context.limits.max_message_bytes;
    let least = outputs::least_bytes(&wanted, count, classifier.classes());
    if least > limit {
        return Err(outputs::too_large(limit, least).into());
    }
    let making = client.space(count, least, classifier.classes()).await;
    let window = client.places(count).await?;
    let may_wait = client.window.is_some() && !scheduling.has_timeout;
    context
        .pace(&client.caller, count, scheduling.deadline, may_wait)
        .await?;
    let cancel = CancelOnDrop::new();
    let of_each = outputs::of_each(&wanted, classifier.temperature());
    let mut answers = Vec::with_capacity(count);
    for (index, content) in batch.contents.into_iter().enumerate() {
        let item = Item {
            bundle: Arc::clone(&classifier.bundle),
            content,
            work: Work::Classify {
                head: Arc::clone(&classifier.head),
                wanted: of_each,
                neighbours: 0,
                embedding: reject.is_some_and(Reject::is_by_score)
                    && classifier.scores_by_feature(),
            },
            flow: client.flow,
            priority: scheduling.priority,
            deadline: scheduling.deadline,
            cancelled: Arc::clone(&cancel.0),
            // A full server refuses a call at its first element. The others
            // wait, since together they may exceed its bounds.
            may_wait: index > 0 || may_wait,
        };
        let sent = context.send(item).await;
        answers.push(sent.map_err(|problem| of_element(problem, batch.input, index))?);
    }
    Ok(Started {
        response: ModelInferResponse {
            model_name: request.model_name,
            model_version: classifier.manifest.version.to_string(),
            id: request.id,
            ..ModelInferResponse::default()
        },
        classifier,
        input: batch.input,
        form: batch.form,
        reject,
        wanted,
        answers,
        entry: Arc::clone(entry),
        began,
        limit,
        _cancel: cancel,
        making,
        window,
    })
}

impl Started {
    /// The request's id and its model's name.
    pub fn names(&self) -> (String, String) {
        (self.response.id.clone(), self.response.model_name.clone())
    }

    /// Its place in the stream's window, to be given back once the answer is
    /// written.
    pub fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.window.take()
    }

    /// What the elements' outcomes take once they are there.
    pub fn outcome_bytes(&self) -> usize {
        self.answers.len() * outcome_bytes(self.classifier.classes())
    }

    /// The space of its answer, to be given back once that is encoded.
    pub fn making(&mut self) -> Extensions {
        let mut extensions = Extensions::new();
        if let Some(making) = self.making.take() {
            extensions.insert(making);
        }
        extensions
    }

    /// Waits for the elements and puts their answers together. The first
    /// element that fails fails the request, and the others are cancelled.
    ///
    /// # Errors
    /// That element's, with its index.
    pub async fn finish(mut self) -> Result<ModelInferResponse, ApiError> {
        let count = self.answers.len();
        let finished = self.gather().await;
        let took = self.began.elapsed();
        for _ in 0..count {
            telemetry::item(finished.is_ok());
        }
        match finished {
            Ok(outcomes) => {
                self.entry.answered(&outcomes, took);
                Ok(self.response)
            }
            Err(problem) => {
                self.entry.failed(took);
                Err(problem)
            }
        }
    }

    async fn gather(&mut self) -> Result<Vec<JobOutput>, ApiError> {
        let mut outcomes = Vec::with_capacity(self.answers.len());
        for (index, answer) in self.answers.drain(..).enumerate() {
            let outcome = answer.outcome().await;
            outcomes.push(outcome.map_err(|problem| of_element(problem, self.input, index))?);
        }
        let recognised = match self.reject {
            Some(reject) => recognition::recognise(&self.classifier, reject, &outcomes)?,
            None => Vec::new(),
        };
        recognition::count(&self.classifier, &outcomes, &recognised);
        outputs::fill(
            &mut self.response,
            &self.wanted,
            &self.classifier,
            (&outcomes, &recognised),
            self.form,
            self.limit,
        )?;
        Ok(outcomes)
    }
}

/// The error of one element: the protocol can report it only as the request's.
fn of_element(error: ApiError, input: &str, index: usize) -> ApiError {
    let field = element(input, index);
    let error = error.about(&field).fact("element", index);
    match error.code() {
        Code::InvalidArgument => error.field(field),
        _ => error,
    }
}
