//! The calls that make a version of examples, CreateCache and AddExamples:
//! one specification, then the examples as they are read, answered by
//! progress, rejections and, last, the version.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use prost::Message;
use tonic::{Status, Streaming};

use crate::{
    connect::Connection,
    credentials::AuthChannel,
    documents::{RejectedDocument, VersionMadeDocument},
    examples::Examples,
    failure::Failure,
    files::Unusable,
    labelled::{Purpose, SourceClass},
    reader::{self, LoadedExample, Part},
    requests::{self, RequestStream},
    screen::Screen,
    upload::{self, Handled, Progress, Upload},
};
use tipserve_api::v1::{
    AddExamplesRequest, AddExamplesResponse, AddExamplesSpec, CacheSpec, ClassSpec,
    CreateCacheRequest, CreateCacheResponse, CreateProgress, Embedding, Example, ExampleBatch,
    RejectedExample, Version, add_examples_request, add_examples_response,
    cache_service_client::CacheServiceClient, create_cache_request, create_cache_response,
    create_progress::Stage,
};

/// The specification that begins a call, and the call.
pub(crate) trait VersionCall: Sized + 'static {
    /// The messages that the client sends.
    type Request: Message + 'static;
    /// The messages that the server answers with.
    type Answer;

    /// The first message, with the specification.
    fn first(self) -> Self::Request;
    /// A later message, with examples.
    fn examples(batch: ExampleBatch) -> Self::Request;
    /// Starts the call on the connection.
    async fn call(
        client: &mut CacheServiceClient<AuthChannel>,
        requests: RequestStream<Self::Request>,
    ) -> Result<Streaming<Self::Answer>, Status>;
    /// What an answer means; none for one that this client does not know.
    fn event(answer: Self::Answer) -> Option<VersionEvent>;
}

/// What a call's answers say.
#[derive(Debug)]
pub(crate) enum VersionEvent {
    /// How far the server is.
    Progress(CreateProgress),
    /// An example that could not be used.
    Rejected(RejectedExample),
    /// The version, finished and stored.
    Version(Box<Version>),
}

impl VersionCall for CacheSpec {
    type Request = CreateCacheRequest;
    type Answer = CreateCacheResponse;

    fn first(self) -> CreateCacheRequest {
        CreateCacheRequest {
            payload: Some(create_cache_request::Payload::Spec(self)),
        }
    }

    fn examples(batch: ExampleBatch) -> CreateCacheRequest {
        CreateCacheRequest {
            payload: Some(create_cache_request::Payload::Examples(batch)),
        }
    }

    async fn call(
        client: &mut CacheServiceClient<AuthChannel>,
        requests: RequestStream<CreateCacheRequest>,
    ) -> Result<Streaming<CreateCacheResponse>, Status> {
        Ok(client.create_cache(requests).await?.into_inner())
    }

    fn event(answer: CreateCacheResponse) -> Option<VersionEvent> {
        use create_cache_response::Event as Answer;
        Some(match answer.event? {
            Answer::Progress(progress) => VersionEvent::Progress(progress),
            Answer::Rejected(example) => VersionEvent::Rejected(example),
            Answer::Version(version) => VersionEvent::Version(Box::new(version)),
        })
    }
}

impl VersionCall for AddExamplesSpec {
    type Request = AddExamplesRequest;
    type Answer = AddExamplesResponse;

    fn first(self) -> AddExamplesRequest {
        AddExamplesRequest {
            payload: Some(add_examples_request::Payload::Spec(self)),
        }
    }

    fn examples(batch: ExampleBatch) -> AddExamplesRequest {
        AddExamplesRequest {
            payload: Some(add_examples_request::Payload::Examples(batch)),
        }
    }

    async fn call(
        client: &mut CacheServiceClient<AuthChannel>,
        requests: RequestStream<AddExamplesRequest>,
    ) -> Result<Streaming<AddExamplesResponse>, Status> {
        Ok(client.add_examples(requests).await?.into_inner())
    }

    fn event(answer: AddExamplesResponse) -> Option<VersionEvent> {
        use add_examples_response::Event as Answer;
        Some(match answer.event? {
            Answer::Progress(progress) => VersionEvent::Progress(progress),
            Answer::Rejected(example) => VersionEvent::Rejected(example),
            Answer::Version(version) => VersionEvent::Version(Box::new(version)),
        })
    }
}

/// How to send the examples.
#[derive(Debug)]
pub(crate) struct UploadOptions<'a> {
    /// What is being done, for errors: "creating the cache \"x\"".
    pub doing: String,
    /// What every example's id begins with.
    pub id_prefix: String,
    /// Whether an example that cannot be sent is a failure.
    pub strict: bool,
    /// Where progress and rejections are shown.
    pub screen: &'a Screen,
}

/// Makes the version over the API.
pub(crate) async fn run<C: VersionCall>(
    connection: &Connection,
    spec: C,
    examples: Examples,
    options: &UploadOptions<'_>,
) -> Result<VersionMadeDocument, Failure> {
    let limit = connection.message_limit().await?;
    let classes = examples.train.classes.len();
    let spec = checked_spec(spec.first(), classes, limit)?;
    let short_classes = examples.short.iter().cloned().map(Into::into).collect();
    let parts = parts(examples, &options.id_prefix);
    let total: usize = parts.iter().map(|part| part.labelled.examples.len()).sum();

    let started = Instant::now();
    let bar = options.screen.bar(Some(total as u64), "examples");
    let (requests, stream) = requests::channel();
    requests.send(spec).await;
    // The server's counts move the bar; what never reaches it is added here.
    let unsent = Arc::new(AtomicU64::new(0));
    let upload = Upload {
        item: example,
        message: |examples| C::examples(ExampleBatch { examples }),
        limit,
        strict: options.strict,
        progress: counting_rejected(&unsent),
    };
    let upload = tokio::spawn(upload.run(reader::start(parts, limit), requests));
    let answer = answer::<C>(connection, stream, &options.doing, |progress| {
        bar.set_message(stage(progress.stage()));
        let done = progress.encoded.max(0).unsigned_abs() + progress.rejected.max(0).unsigned_abs();
        bar.set_position(done + unsent.load(Ordering::Relaxed));
    });
    let (uploaded, (version, mut rejected)) = upload::with_answer(upload, answer).await?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let used = uploaded.sent.saturating_sub(rejected.len() as u64);
    rejected.extend(uploaded.rejected);
    Ok(VersionMadeDocument {
        version: version.into(),
        rejected,
        example_count: total as u64,
        short_classes,
        seconds,
        examples_per_second: used as f64 / seconds.max(1e-9),
    })
}

/// The first request, unless no message can carry it.
fn checked_spec<R: Message>(spec: R, classes: usize, limit: usize) -> Result<R, Failure> {
    let size = spec.encoded_len();
    if size > limit {
        return Err(Failure::Input(format!(
            "the specification with {classes} classes (their names, prompts, text weights) takes \
             {size} bytes, but the server takes messages of at most {limit} bytes"
        )));
    }
    Ok(spec)
}

/// What is to be read, in its order.
fn parts(examples: Examples, id_prefix: &str) -> Vec<Part> {
    let mut parts = vec![Part {
        labelled: examples.train,
        purpose: Purpose::Training,
        prefix: id_prefix.to_owned(),
    }];
    if let Some(labelled) = examples.validation {
        let apart = if examples.apart { "validation/" } else { "" };
        parts.push(Part {
            labelled,
            purpose: Purpose::Validation,
            prefix: format!("{apart}{id_prefix}"),
        });
    }
    parts.extend(examples.unknown.map(|labelled| Part {
        labelled,
        purpose: Purpose::Unknown,
        prefix: format!("unknown/{id_prefix}"),
    }));
    parts.extend(examples.unlabelled.map(|labelled| Part {
        labelled,
        purpose: Purpose::Unlabelled,
        prefix: format!("unlabelled/{id_prefix}"),
    }));
    parts
}

fn counting_rejected(unsent: &Arc<AtomicU64>) -> Progress {
    let unsent = Arc::clone(unsent);
    Box::new(move |handled| {
        if handled == Handled::Rejected {
            unsent.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// Makes the call; the version, and the examples that the server rejected.
async fn answer<C: VersionCall>(
    connection: &Connection,
    requests: RequestStream<C::Request>,
    doing: &str,
    progress: impl Fn(&CreateProgress),
) -> Result<(Version, Vec<RejectedDocument>), Failure> {
    let failed = |status| connection.failure(doing, status);
    let mut rejected = Vec::new();
    let mut version = None;
    let mut client = connection.caches();
    let mut answers = C::call(&mut client, requests).await.map_err(failed)?;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        match C::event(answer) {
            Some(VersionEvent::Progress(counts)) => progress(&counts),
            Some(VersionEvent::Rejected(example)) => rejected.push(example.into()),
            Some(VersionEvent::Version(made)) => version = Some(*made),
            None => {}
        }
    }
    let version = version.ok_or_else(|| {
        Failure::Broken(format!(
            "{doing}: the server ended the call without a version"
        ))
    })?;
    Ok((version, rejected))
}

/// Classes as a specification has them, without text weights if text is to be
/// ignored.
pub(crate) fn class_specs(classes: &[SourceClass], without_text: bool) -> Vec<ClassSpec> {
    classes
        .iter()
        .map(|class| ClassSpec {
            display_name: class.display_name.clone(),
            prompts: Vec::new(),
            text_weight: class
                .text_weight
                .clone()
                .filter(|_| !without_text)
                .map(|values| Embedding { values }),
        })
        .collect()
}

fn example(mut loaded: LoadedExample) -> Result<Example, (String, Unusable)> {
    let labels = reader::class_indices(loaded.labels.as_deref());
    match labels.and_then(|labels| Ok((labels, loaded.content()?))) {
        Ok((class_indices, (class_index, input))) => Ok(Example {
            example_id: loaded.id,
            class_index,
            class_indices,
            input: Some(input),
            validation: loaded.purpose == Purpose::Validation,
            unknown: loaded.purpose == Purpose::Unknown,
            unlabelled: loaded.purpose == Purpose::Unlabelled,
            ..Example::default()
        }),
        Err(why) => Err((loaded.id, why)),
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "",
        Stage::Text => "text",
        Stage::Examples => "examples",
        Stage::Selection => "selecting",
        Stage::Storing => "storing",
    }
}
