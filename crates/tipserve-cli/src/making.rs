//! The calls that make a version of examples, CreateCache and AddExamples:
//! one specification, then the examples as they are read, answered by
//! progress, rejections and, last, the version.

use std::time::Instant;

use prost::Message;
use serde::Serialize;
use tonic::{Status, Streaming};

use super::{
    batch::{self, Fed},
    connect::Connection,
    credentials::Wire,
    documents::{RejectedDocument, VersionDocument},
    examples::Examples,
    failure::Failure,
    files::Unusable,
    labelled::SourceClass,
    load::{self, Part},
    requests::{self, RequestStream},
    screen::Screen,
};
use tipserve_api::v1::{
    AddExamplesRequest, AddExamplesResponse, AddExamplesSpec, CacheSpec, ClassSpec,
    CreateCacheRequest, CreateCacheResponse, CreateProgress, Embedding, Example, ExampleBatch,
    RejectedExample, Version, add_examples_request, add_examples_response,
    cache_service_client::CacheServiceClient, create_cache_request, create_cache_response,
    create_progress::Stage,
};

/// A specification that begins a call, and the call.
pub trait Making: Sized {
    /// The call's requests.
    type Request: Message + 'static;
    /// Its answers.
    type Answer;

    /// The first request.
    fn first(self) -> Self::Request;
    /// Every later request.
    fn examples(batch: ExampleBatch) -> Self::Request;
    /// Makes the call.
    async fn call(
        client: &mut CacheServiceClient<Wire>,
        requests: RequestStream<Self::Request>,
    ) -> Result<Streaming<Self::Answer>, Status>;
    /// What an answer says.
    fn event(answer: Self::Answer) -> Option<Event>;
}

/// What a call's answers say.
#[derive(Debug)]
pub enum Event {
    /// How far it is.
    Progress(CreateProgress),
    /// An example that could not be used.
    Rejected(RejectedExample),
    /// The finished version.
    Version(Box<Version>),
}

impl Making for CacheSpec {
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
        client: &mut CacheServiceClient<Wire>,
        requests: RequestStream<CreateCacheRequest>,
    ) -> Result<Streaming<CreateCacheResponse>, Status> {
        Ok(client.create_cache(requests).await?.into_inner())
    }

    fn event(answer: CreateCacheResponse) -> Option<Event> {
        use create_cache_response::Event as Answer;
        Some(match answer.event? {
            Answer::Progress(progress) => Event::Progress(progress),
            Answer::Rejected(example) => Event::Rejected(example),
            Answer::Version(version) => Event::Version(Box::new(version)),
        })
    }
}

impl Making for AddExamplesSpec {
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
        client: &mut CacheServiceClient<Wire>,
        requests: RequestStream<AddExamplesRequest>,
    ) -> Result<Streaming<AddExamplesResponse>, Status> {
        Ok(client.add_examples(requests).await?.into_inner())
    }

    fn event(answer: AddExamplesResponse) -> Option<Event> {
        use add_examples_response::Event as Answer;
        Some(match answer.event? {
            Answer::Progress(progress) => Event::Progress(progress),
            Answer::Rejected(example) => Event::Rejected(example),
            Answer::Version(version) => Event::Version(Box::new(version)),
        })
    }
}

/// What `create --json` and `add --json` print.
#[derive(Debug, Serialize)]
pub struct MadeDocument {
    /// The finished version.
    pub version: VersionDocument,
    /// Examples that could not be used.
    pub rejected: Vec<RejectedDocument>,
    /// Examples read, validation ones included.
    pub example_count: u64,
    /// Classes that have fewer examples than --shots.
    pub short_classes: Vec<ShortClass>,
    /// From the first byte to the finished version.
    pub seconds: f64,
    /// Examples used over seconds.
    pub examples_per_second: f64,
}

/// A class with fewer examples than asked for.
#[derive(Debug, Serialize)]
pub struct ShortClass {
    display_name: String,
    example_count: usize,
}

/// How to send the examples.
#[derive(Debug)]
pub struct Sending<'a> {
    /// What is being done, for errors: "creating the cache \"x\"".
    pub doing: String,
    /// What every example's id begins with.
    pub id_prefix: String,
    /// Whether an example that cannot be sent is a failure.
    pub strict: bool,
    /// Where to show how far it is.
    pub screen: &'a Screen,
}

/// Makes the version over the API.
pub async fn make<M: Making>(
    connection: &Connection,
    spec: M,
    examples: Examples,
    sending: &Sending<'_>,
) -> Result<MadeDocument, Failure> {
    let doing = sending.doing.as_str();
    let limit = connection.message_limit().await?;
    let spec = spec.first();
    let size = spec.encoded_len();
    if size > limit {
        return Err(Failure::Input(format!(
            "the specification with {} classes (their names, prompts, text weights) takes {size} \
             bytes, but the server takes messages of at most {limit} bytes",
            examples.train.classes.len()
        )));
    }
    let Examples {
        train,
        validation,
        apart,
        short,
    } = examples;
    let total = train.examples.len() + validation.as_ref().map_or(0, |it| it.examples.len());
    let mut parts = vec![Part {
        labelled: train,
        validation: false,
        prefix: sending.id_prefix.clone(),
    }];
    if let Some(labelled) = validation {
        let apart = if apart { "validation/" } else { "" };
        parts.push(Part {
            labelled,
            validation: true,
            prefix: format!("{apart}{}", sending.id_prefix),
        });
    }

    let started = Instant::now();
    let bar = sending.screen.bar(Some(total as u64), "examples");
    let (requests, stream) = requests::channel();
    requests.send(spec).await;
    let feeding = tokio::spawn(batch::feed(
        load::start(parts, limit),
        requests,
        limit,
        sending.strict,
        bar.clone(),
        example,
        |examples| M::examples(ExampleBatch { examples }),
    ));
    let failed = |status| connection.failure(doing, status);
    let mut client = connection.caches();
    let answering = async {
        let mut rejected = Vec::new();
        let mut version = None;
        let mut answers = M::call(&mut client, stream).await.map_err(failed)?;
        while let Some(answer) = answers.message().await.map_err(failed)? {
            match M::event(answer) {
                Some(Event::Progress(progress)) => bar.set_message(stage(progress.stage())),
                Some(Event::Rejected(example)) => rejected.push(RejectedDocument::from(example)),
                Some(Event::Version(made)) => version = Some(made),
                None => {}
            }
        }
        let version = version.ok_or_else(|| {
            Failure::Broken(format!(
                "{doing}: the server ended the call without a version"
            ))
        })?;
        Ok::<_, Failure>((version, rejected))
    };
    let (fed, (version, mut rejected)) = whole(feeding, answering).await?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let used = fed.sent.saturating_sub(rejected.len() as u64);
    rejected.extend(fed.rejected);
    Ok(MadeDocument {
        version: (*version).into(),
        rejected,
        example_count: total as u64,
        short_classes: short
            .into_iter()
            .map(|(display_name, example_count)| ShortClass {
                display_name,
                example_count,
            })
            .collect(),
        seconds,
        examples_per_second: used as f64 / seconds.max(1e-9),
    })
}

/// Waits for the feeding and the answer of a call. Where either fails, the
/// other is given up.
pub async fn whole<T>(
    feeding: tokio::task::JoinHandle<Result<Fed, Failure>>,
    answering: impl Future<Output = Result<T, Failure>>,
) -> Result<(Fed, T), Failure> {
    let stop = feeding.abort_handle();
    let feeding = async {
        feeding
            .await
            .map_err(|error| Failure::Broken(error.to_string()))?
    };
    let outcome = tokio::try_join!(feeding, answering);
    stop.abort();
    outcome
}

/// Classes as a specification has them. Text weights go along unless text is
/// to be ignored.
pub fn class_specs(classes: &[SourceClass], without_text: bool) -> Vec<ClassSpec> {
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

fn example(loaded: load::Loaded) -> Result<Example, (String, Unusable)> {
    match loaded.input {
        Ok(input) => Ok(Example {
            example_id: loaded.id,
            class_index: i32::try_from(loaded.class).unwrap_or(i32::MAX),
            input: Some(input),
            validation: loaded.validation,
        }),
        Err(why) => Err((loaded.id, why)),
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "",
        Stage::Text => "text",
        Stage::Examples => "examples",
        Stage::Selection => "choosing",
        Stage::Storing => "storing",
    }
}
