//! `ClassifyStream`: items in, one answer each out.
//!
//! A reader task takes items from the client no faster than the stream's window
//! and the engine's admission allow; HTTP/2 flow control slows the client, and
//! nothing piles up in memory. A writer task sends answers as they come, or in
//! the items' order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Response, Status, Streaming};

use super::{
    Context,
    answer::{Options, classification},
    config_stream,
    error::ApiError,
    flow_of_stream,
    observe::{Call, carried},
    request::{self, RequestError, until},
    submit::Item,
    unread::{Counted, CountedStream, Reader, ResultBytes, Results, counted},
};
use crate::{auth::Caller, catalog::Served, telemetry};
use tip_adapter::answer::Scores;
use tipserve_api::v1::{self as pb, item_result};
use tipserve_engine::{Crop, FlowId, JobOutput, Permit, Priority};
use tipserve_store::Reference;

/// Most answers that are packed into one message.
const PACK: usize = 64;
/// Bytes after which a message is sent, so that none nears a client's limit.
const PACK_BYTES: usize = 1 << 20;

/// What an outcome takes besides its scores.
const EVENT_BYTES: usize = 512;

/// The answers of a stream.
pub type Answers = CountedStream<pb::ClassifyStreamResponse>;

/// The outcome of an item, on its way to the writer.
struct Event {
    sequence: u64,
    id: String,
    result: Result<(Served, JobOutput), ApiError>,
    /// Its place in the stream's window, given back once the answer is written.
    place: Option<OwnedSemaphorePermit>,
    /// What is counted of it until then.
    _bytes: ResultBytes,
}

/// What an outcome holds in memory.
fn bytes_of(outcome: &JobOutput) -> usize {
    let scores = match &outcome.scores {
        Scores::Logits(logits) => logits.len() * size_of::<f32>(),
        Scores::Best(best) => size_of_val(best.as_slice()),
    };
    let feature = outcome.feature.as_ref();
    scores
        + size_of_val(outcome.neighbours.as_slice())
        + feature.map_or(0, |feature| feature.unit.len() * size_of::<f32>())
}

/// Serves one stream, until the client ends it or the server drains.
pub async fn serve(
    context: Arc<Context>,
    caller: Caller,
    deadline: Option<Instant>,
    client: Reader,
    mut incoming: Streaming<pb::ClassifyStreamRequest>,
    call: &Call,
) -> Result<Response<Answers>, ApiError> {
    let config = config_stream::config(&mut incoming).await?;
    let options = Options::check(config.options.unwrap_or_default())?;
    let priority = request::priority(config.priority)?;
    let reference = super::reference(&caller, &config.cache)?;
    // An unknown cache is the call's error, not each item's.
    context.catalog.classifier(&reference).await?;

    let (events, answered) = mpsc::unbounded_channel();
    let (results, response) = mpsc::channel(4);
    let cancelled = Arc::new(AtomicBool::new(false));
    let reader = Requests {
        window: Arc::new(Semaphore::new(context.limits.stream_window)),
        flow: flow_of_stream(&caller),
        results: client.clone().results(),
        context: Arc::clone(&context),
        caller,
        reference,
        options,
        priority,
        deadline,
        events,
        cancelled: Arc::clone(&cancelled),
        sequence: 0,
    };
    let reading = tokio::spawn(carried(reader.run(incoming)));
    let writer = Writer {
        client,
        options,
        ordered: config.ordered,
        deadline,
        results,
        cancelled,
        call: call.clone(),
    };
    tokio::spawn(carried(writer.run(answered, reading)));
    Ok(Response::new(counted(response)))
}

struct Requests {
    context: Arc<Context>,
    results: Results,
    caller: Caller,
    reference: Reference,
    options: Options,
    priority: Priority,
    deadline: Option<Instant>,
    flow: FlowId,
    window: Arc<Semaphore>,
    events: mpsc::UnboundedSender<Event>,
    cancelled: Arc<AtomicBool>,
    sequence: u64,
}

impl Requests {
    /// Reads until the client ends the stream or disconnects, or the server
    /// shuts down. The status, if any, ends the stream after the last answer.
    async fn run(mut self, mut incoming: Streaming<pb::ClassifyStreamRequest>) -> Option<Status> {
        loop {
            let items = tokio::select! {
                items = config_stream::items(&mut incoming) => items,
                () = self.context.shutdown.cancelled() => Err(ApiError::shutting_down()),
            };
            match items {
                Ok(Some(items)) => self.take(items).await,
                Ok(None) => return None,
                // What was accepted before is still answered.
                Err(error) => return Some(error.into()),
            }
        }
    }

    async fn take(&mut self, items: Vec<pb::Item>) {
        // A name that moves is looked up anew for each message; all its items
        // are served by one version.
        let classifier = self.context.catalog.classifier(&self.reference).await;
        for item in items {
            let sequence = self.sequence;
            self.sequence += 1;
            let Ok(place) = Arc::clone(&self.window).acquire_owned().await else {
                return;
            };
            if self.cancelled.load(Ordering::Relaxed) {
                return;
            }
            match &classifier {
                Ok(classifier) => self.submit(sequence, item, classifier, place).await,
                Err(error) => self.refuse(sequence, item.id, error.clone().into(), place),
            }
        }
    }

    fn refuse(&self, sequence: u64, id: String, problem: ApiError, place: OwnedSemaphorePermit) {
        let bytes = self.results.count(EVENT_BYTES);
        // A writer that is gone needs no answers.
        let _ = self.events.send(Event {
            sequence,
            id,
            result: Err(problem),
            place: Some(place),
            _bytes: bytes,
        });
    }

    async fn submit(
        &self,
        sequence: u64,
        item: pb::Item,
        classifier: &Served,
        place: OwnedSemaphorePermit,
    ) {
        let now = Instant::now();
        // An item with a time limit is refused rather than kept waiting for
        // admission, where it would hold up those behind it.
        let may_wait = item.time_limit.is_none();
        let checked = request::check_id("items.id", &item.id)
            .and_then(|()| request::item_deadline(item.time_limit, self.deadline, now))
            .and_then(|deadline| {
                let (width, turn) = (classifier.width(), classifier.exif_orientation());
                request::content(item.input, Crop::Centre, width, turn)
                    .map(|content| (deadline, content))
            });
        let (deadline, content) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refuse(sequence, item.id, error.into(), place),
        };
        let context = &self.context;
        if let Err(problem) = context.pace(&self.caller, 1, deadline, may_wait).await {
            return self.refuse(sequence, item.id, problem, place);
        }
        let item_id = item.id;
        let item = Item {
            bundle: Arc::clone(&classifier.bundle),
            content,
            work: self.options.work(classifier),
            flow: self.flow,
            priority: self.priority,
            deadline,
            cancelled: Arc::clone(&self.cancelled),
            may_wait,
        };
        let events = self.events.clone();
        let (answering, results) = (classifier.clone(), self.results.clone());
        // Its place in the engine is given back at once: a client that does not
        // read must not keep others out.
        let deliver = move |result: Result<JobOutput, ApiError>, _: Permit| {
            let bytes = results.count(EVENT_BYTES + result.as_ref().map_or(0, bytes_of));
            let _ = events.send(Event {
                sequence,
                id: item_id,
                result: result.map(|outcome| (answering, outcome)),
                place: Some(place),
                _bytes: bytes,
            });
        };
        context.submit(item, Permit::default(), deliver).await;
    }
}

struct Writer {
    client: Reader,
    options: Options,
    ordered: bool,
    deadline: Option<Instant>,
    results: mpsc::Sender<Counted<pb::ClassifyStreamResponse>>,
    cancelled: Arc<AtomicBool>,
    call: Call,
}

/// However the writer ends, nobody waits for the rest.
impl Drop for Writer {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Writer {
    async fn run(
        self,
        mut answered: mpsc::UnboundedReceiver<Event>,
        reading: tokio::task::JoinHandle<Option<Status>>,
    ) {
        let stop = reading.abort_handle();
        let last = tokio::select! {
            written = self.write(&mut answered) => match written {
                // Every answer is out: how did the reader end?
                Ok(()) => reading.await.ok().flatten().map_or(Ok(()), Err),
                Err(Gone) => Err(Status::cancelled("")),
            },
            () = self.results.closed() => Err(Status::cancelled("")),
            () = until(self.deadline) => {
                Err(ApiError::from(RequestError::DeadlineExceeded).into())
            }
        };
        stop.abort();
        self.cancelled.store(true, Ordering::Relaxed);
        self.call
            .ended(last.as_ref().map_or_else(Status::code, |()| Code::Ok));
        if let Err(status) = last {
            // A disconnected client does not receive it.
            let _ = self.results.send(Counted::last(status)).await;
        }
    }

    async fn write(&self, answered: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), Gone> {
        let mut events = Vec::with_capacity(PACK);
        let mut early: BTreeMap<u64, Event> = BTreeMap::new();
        let mut next = 0;
        while answered.recv_many(&mut events, PACK).await > 0 {
            if !self.ordered {
                self.send(events.drain(..)).await?;
                continue;
            }
            for event in events.drain(..) {
                early.insert(event.sequence, event);
            }
            let due = std::iter::from_fn(|| {
                let event = early.remove(&next)?;
                next += 1;
                Some(event)
            });
            self.send(due).await?;
        }
        Ok(())
    }

    async fn send(&self, events: impl Iterator<Item = Event>) -> Result<(), Gone> {
        let mut message = pb::ClassifyStreamResponse::default();
        let mut places = Vec::new();
        let mut bytes = 0;
        for mut event in events {
            let answer = event.result.and_then(|(classifier, outcome)| {
                classification(&classifier, &self.options, outcome)
            });
            telemetry::item(answer.is_ok());
            let outcome = match answer {
                Ok(answer) => item_result::Outcome::Classification(answer),
                Err(error) => item_result::Outcome::Error(error.to_item_status()),
            };
            let result = pb::ItemResult {
                id: event.id,
                sequence: event.sequence,
                outcome: Some(outcome),
            };
            bytes += prost::Message::encoded_len(&result);
            message.results.push(result);
            places.push(event.place.take());
            if bytes >= PACK_BYTES {
                self.send_message(std::mem::take(&mut message), bytes)
                    .await?;
                places.clear();
                bytes = 0;
            }
        }
        if !message.results.is_empty() {
            self.send_message(message, bytes).await?;
        }
        Ok(())
    }

    async fn send_message(
        &self,
        message: pb::ClassifyStreamResponse,
        encoded: usize,
    ) -> Result<(), Gone> {
        let counted = Counted {
            message: Ok(message),
            bytes: Some(self.client.count_message(encoded)),
        };
        self.results.send(counted).await.map_err(|_| Gone)
    }
}

/// The client no longer reads its answers.
struct Gone;
