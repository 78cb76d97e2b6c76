//! `SuggestExamples`: unlabelled pictures in, which of them to label out.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Response, Streaming};

use super::{
    super::{
        Context,
        error::ApiError,
        flow_of_stream,
        observe::carried,
        reference,
        request::{self, RequestError, until},
        submit::{CancelOnDrop, Item},
    },
    analyze::{bounded, similarity},
};
use crate::{
    auth::Caller,
    catalog::{CatalogError, LabelledExamples, Served, UnlabelledPool},
    telemetry,
};
use tip_adapter::{
    best::{Scored, Wish},
    suggest::{POOL_LIMIT, Strategy, SuggestOptions, Suggestions},
};
use tipserve_api::v1::{
    self as pb, suggest_examples_config::Strategy as AskedStrategy,
    suggest_examples_request::Payload, suggestion::Reason,
};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Content, Crop, FlowId, JobOutput, Priority, Wanted, Work};

/// Pictures suggested where the client does not say.
const DEFAULT_COUNT: usize = 20;
/// Most pictures suggested.
const MAX_COUNT: usize = 10_000;
/// Most entries of the lists of rejected and already labelled pictures.
const MAX_LISTED: usize = 1000;
/// Most near-duplicates named of one suggestion.
const MAX_DUPLICATES: usize = 100;
/// Classes named with a suggestion.
const TOP: usize = 2;
/// Shots from which a class is known well enough to ask between classes: over
/// draws of DTD and Caltech101, asking by margin was better from two labels a
/// class on (`docs/accuracy.md`).
const SHOTS_FOR_MARGIN: u64 = 2;

/// Serves one call.
pub async fn serve(
    context: &Arc<Context>,
    caller: Caller,
    deadline: Option<Instant>,
    incoming: Streaming<pb::SuggestExamplesRequest>,
) -> Result<Response<pb::SuggestExamplesResponse>, ApiError> {
    tokio::select! {
        response = suggest(context, caller, incoming) => response,
        () = until(deadline) => Err(RequestError::DeadlineExceeded.into()),
        () = context.shutdown.cancelled() => Err(ApiError::shutting_down()),
    }
}

async fn suggest(
    context: &Arc<Context>,
    caller: Caller,
    mut incoming: Streaming<pb::SuggestExamplesRequest>,
) -> Result<Response<pb::SuggestExamplesResponse>, ApiError> {
    let message = incoming
        .message()
        .await
        .map_err(|status| ApiError::from_status(&status))?;
    let config = match message.and_then(|message| message.payload) {
        Some(Payload::Config(config)) => config,
        Some(Payload::Items(_)) => {
            return Err(RequestError::Order {
                problem: "the first message of SuggestExamples must be its config, not items",
            }
            .into());
        }
        None => return Err(RequestError::missing("config").into()),
    };
    let plan = Plan::of(context, &caller, config).await?;
    let cancel = CancelOnDrop::new();
    let mut collection = Collection {
        context: Arc::clone(context),
        flow: flow_of_stream(&caller),
        caller,
        cancelled: Arc::clone(&cancel.0),
        window: Arc::new(Semaphore::new(context.limits.stream_window)),
        under_way: JoinSet::new(),
        items: Vec::new(),
        bytes: 0,
        rejected: Vec::new(),
        rejected_count: 0,
        plan,
    };
    while let Some(message) = incoming
        .message()
        .await
        .map_err(|status| ApiError::from_status(&status))?
    {
        match message.payload {
            Some(Payload::Items(batch)) => {
                for item in batch.items {
                    collection.take(item).await?;
                }
            }
            Some(Payload::Config(_)) | None => {
                return Err(RequestError::Order {
                    problem: "every message of SuggestExamples but the first must carry items",
                }
                .into());
            }
        }
    }
    collection.finish().await
}

/// What is to be done, checked.
struct Plan {
    options: SuggestOptions,
    /// Why this strategy.
    reason: String,
    version: Option<(Served, Arc<LabelledExamples>)>,
}

impl Plan {
    async fn of(
        context: &Context,
        caller: &Caller,
        config: pb::SuggestExamplesConfig,
    ) -> Result<Plan, ApiError> {
        let count = bounded("config.count", config.count, DEFAULT_COUNT, MAX_COUNT)?;
        let duplicate_similarity =
            similarity("config.duplicate_similarity", config.duplicate_similarity)?;
        let asked = AskedStrategy::try_from(config.strategy).map_err(|_| {
            let problem = format!("{} is not a Strategy", config.strategy);
            RequestError::invalid("config.strategy", problem)
        })?;
        if config.cache.is_empty() && asked == AskedStrategy::Margin {
            let problem =
                "STRATEGY_MARGIN needs a version to be undecided: name it in config.cache";
            return Err(RequestError::invalid("config.strategy", problem).into());
        }
        let version = if config.cache.is_empty() {
            None
        } else {
            let reference = reference(caller, &config.cache)?;
            let classifier = context.catalog.classifier(&reference).await?;
            // The same version, whatever the name stands for by now.
            let (id, number) = (&classifier.manifest.cache, classifier.manifest.version);
            let labelled = context.catalog.labelled_examples(id, number).await?;
            Some((classifier, Arc::new(labelled)))
        };
        let (strategy, reason) = strategy(asked, version.as_ref().map(|(served, _)| served));
        Ok(Plan {
            options: SuggestOptions {
                count,
                strategy,
                duplicate_similarity,
                seed: config.seed,
            },
            reason,
            version,
        })
    }

    /// As the version does; without one as new versions do.
    fn exif_orientation(&self) -> ExifOrientation {
        self.version
            .as_ref()
            .map_or(ExifOrientation::Apply, |(version, _)| {
                version.exif_orientation()
            })
    }

    /// What the engine does with an item.
    fn work(&self) -> Work {
        match &self.version {
            None => Work::Embed,
            Some((classifier, _)) => Work::Classify {
                head: Arc::clone(&classifier.head),
                wanted: Wanted::Best(wish(classifier)),
                neighbours: 0,
                embedding: true,
            },
        }
    }
}

fn wish(classifier: &Served) -> Wish {
    Wish {
        classes: TOP,
        temperature: classifier.temperature(),
    }
}

/// What to go by, and why.
fn strategy(asked: AskedStrategy, version: Option<&Served>) -> (Strategy, String) {
    match (asked, version) {
        (AskedStrategy::Typical, _) => (
            Strategy::Typical,
            "typical pictures, as asked for".to_owned(),
        ),
        (AskedStrategy::Margin, _) => (
            Strategy::Margin,
            "undecided pictures, as asked for".to_owned(),
        ),
        (AskedStrategy::Unspecified, None) => (
            Strategy::Typical,
            "typical pictures, as nothing is labelled yet".to_owned(),
        ),
        (AskedStrategy::Unspecified, Some(version)) => {
            let classes = &version.manifest.details.classes;
            let known = (classes.iter())
                .filter(|class| class.example_count >= SHOTS_FOR_MARGIN)
                .count();
            let words = format!(
                "{known} of {} classes have {SHOTS_FOR_MARGIN} examples or more",
                classes.len()
            );
            if 2 * known >= classes.len() {
                (Strategy::Margin, format!("undecided pictures, as {words}"))
            } else {
                (Strategy::Typical, format!("typical pictures, as {words}"))
            }
        }
    }
}

/// A picture of the pool with its feature.
struct Pooled {
    id: String,
    sequence: u64,
    feature: Vec<f32>,
    /// The version's best classes.
    best: Vec<Scored>,
}

/// A picture on its way.
struct Done {
    id: String,
    sequence: u64,
    result: Result<(Vec<f32>, Vec<Scored>), ApiError>,
}

struct Collection {
    context: Arc<Context>,
    caller: Caller,
    flow: FlowId,
    cancelled: Arc<AtomicBool>,
    window: Arc<Semaphore>,
    under_way: JoinSet<Done>,
    items: Vec<Pooled>,
    /// Of features, those under way included.
    bytes: usize,
    rejected: Vec<pb::RejectedExample>,
    rejected_count: usize,
    plan: Plan,
}

impl Collection {
    fn received(&self) -> usize {
        self.items.len() + self.under_way.len() + self.rejected_count
    }

    async fn take(&mut self, item: pb::UnlabelledItem) -> Result<(), ApiError> {
        let sequence = self.received();
        RequestError::check("items", "max_pool", POOL_LIMIT, sequence + 1)?;
        let id = if item.id.is_empty() {
            sequence.to_string()
        } else {
            item.id
        };
        let width = self.context.catalog.model().width;
        let checked = request::check_id("items.id", &id)
            .and_then(|()| request::check_printable("items.id", &id))
            .and_then(|()| {
                request::content(
                    item.input,
                    Crop::Centre,
                    width,
                    self.plan.exif_orientation(),
                )
            });
        let content = match checked {
            Ok(content) => content,
            Err(error) => {
                telemetry::item(false);
                self.reject(id, &error.into());
                return Ok(());
            }
        };
        self.bytes += width * size_of::<f32>();
        RequestError::check(
            "items (bytes of features)",
            "max_create_bytes",
            self.context.limits.max_create_bytes,
            self.bytes,
        )?;
        self.context.pace(&self.caller, 1, None, true).await?;
        let place = loop {
            tokio::select! {
                place = Arc::clone(&self.window).acquire_owned() => break place,
                Some(done) = self.under_way.join_next() => self.collect(done)?,
            }
        };
        let place = place.map_err(CatalogError::internal)?;
        let given = match &content {
            Content::Embedding(unit) => Some(unit.clone()),
            Content::Picture { .. } => None,
        };
        let job = Item {
            content,
            work: self.plan.work(),
            flow: self.flow,
            priority: Priority::Bulk,
            deadline: None,
            cancelled: Arc::clone(&self.cancelled),
            may_wait: true,
        };
        let context = Arc::clone(&self.context);
        let wish = self.plan.version.as_ref().map(|(served, _)| wish(served));
        self.under_way.spawn(carried(async move {
            let result = match (given, wish) {
                // Nothing is to be computed.
                (Some(unit), None) => Ok((unit, Vec::new())),
                (given, wish) => match context.send(job).await {
                    Ok(answer) => match answer.outcome().await {
                        Ok(outcome) => feature(given, wish, outcome),
                        Err(error) => Err(error),
                    },
                    Err(error) => Err(error),
                },
            };
            drop(place);
            Done {
                id,
                sequence: sequence as u64,
                result,
            }
        }));
        Ok(())
    }

    fn collect(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), ApiError> {
        let done = done.map_err(CatalogError::internal)?;
        telemetry::item(done.result.is_ok());
        match done.result {
            Ok((feature, best)) => self.items.push(Pooled {
                id: done.id,
                sequence: done.sequence,
                feature,
                best,
            }),
            Err(problem) => self.reject(done.id, &problem),
        }
        Ok(())
    }

    fn reject(&mut self, id: String, problem: &ApiError) {
        self.rejected_count += 1;
        if self.rejected.len() < MAX_LISTED {
            self.rejected.push(pb::RejectedExample {
                example_id: id,
                code: problem.code() as i32,
                message: problem.message().to_owned(),
                reason: problem.reason().to_owned(),
            });
        }
    }

    async fn finish(mut self) -> Result<Response<pb::SuggestExamplesResponse>, ApiError> {
        while let Some(done) = self.under_way.join_next().await {
            self.collect(done)?;
        }
        // In the order in which they were sent, so that the same pool gives the
        // same answer.
        self.items.sort_by_key(|item| item.sequence);
        let version = self.plan.version.as_ref();
        let pool = UnlabelledPool {
            features: (self.items.iter())
                .flat_map(|item| item.feature.iter().copied())
                .collect(),
            margins: version.map(|_| self.items.iter().map(margin).collect()),
            labelled: version.map(|(_, labelled)| Arc::clone(labelled)),
        };
        let found = self
            .context
            .catalog
            .suggest(pool, self.plan.options, Arc::clone(&self.cancelled))
            .await?;
        Ok(Response::new(self.response(&found)))
    }

    fn response(self, found: &Suggestions) -> pb::SuggestExamplesResponse {
        let id = |row: usize| self.items.get(row).map_or("", |item| item.id.as_str());
        let version = self.plan.version.as_ref();
        let strategy = self.plan.options.strategy;
        let suggestions = (found.suggested.iter())
            .filter_map(|suggested| {
                let item = self.items.get(suggested.row)?;
                Some(pb::Suggestion {
                    id: item.id.clone(),
                    sequence: item.sequence,
                    score: suggested.score,
                    reason: match strategy {
                        Strategy::Typical => Reason::Typical,
                        Strategy::Margin => Reason::Uncertain,
                    } as i32,
                    cluster_size: suggested.cluster_size as i64,
                    top: version.map_or_else(Vec::new, |(served, _)| top(served, &item.best)),
                    duplicate_ids: (suggested.duplicates.iter().take(MAX_DUPLICATES))
                        .map(|&row| id(row).to_owned())
                        .collect(),
                    duplicate_count: suggested.duplicates.len() as i64,
                })
            })
            .collect();
        let already_labelled = match version {
            None => Vec::new(),
            Some((_, labelled)) => (found.labelled.iter().take(MAX_LISTED))
                .map(|known| {
                    let class = labelled.names.class_of(known.key);
                    pb::LabelledDuplicate {
                        id: id(known.row).to_owned(),
                        example_id: labelled.names.example_id(known.key),
                        class_index: i32::try_from(class).unwrap_or(i32::MAX),
                        display_name: labelled.names.class_name(class).to_owned(),
                        similarity: known.similarity,
                    }
                })
                .collect(),
        };
        let received = self.items.len() + self.rejected_count;
        pb::SuggestExamplesResponse {
            suggestions,
            strategy: match strategy {
                Strategy::Typical => AskedStrategy::Typical,
                Strategy::Margin => AskedStrategy::Margin,
            } as i32,
            reason: reason(&self.plan.reason, received, found),
            version: version.map_or_else(String::new, |(served, _)| served.name.clone()),
            received: received as i64,
            already_labelled,
            already_labelled_count: found.labelled.len() as i64,
            rejected_count: self.rejected_count as i64,
            duplicate_similarity: found.duplicate_similarity,
            distinct_count: found.distinct as i64,
            rejected: self.rejected,
        }
    }
}

/// An item's feature and the version's best classes.
fn feature(
    given: Option<Vec<f32>>,
    wish: Option<Wish>,
    outcome: JobOutput,
) -> Result<(Vec<f32>, Vec<Scored>), ApiError> {
    let best = wish.map_or_else(Vec::new, |wish| outcome.scores.best(wish));
    let unit = match (given, outcome.feature) {
        (Some(unit), _) => unit,
        (None, Some(feature)) => feature.unit.to_vec(),
        (None, None) => return Err(CatalogError::internal("no feature").into()),
    };
    Ok((unit, best))
}

/// The difference of the probabilities of the two best classes.
fn margin(item: &Pooled) -> f64 {
    let probability = |at: usize| item.best.get(at).map_or(0.0, |class| class.probability);
    probability(0) - probability(1)
}

fn top(classifier: &Served, best: &[Scored]) -> Vec<pb::ClassScore> {
    best.iter()
        .map(|best| pb::ClassScore {
            index: i32::try_from(best.class).unwrap_or(i32::MAX),
            display_name: classifier.class_name(best.class).to_owned(),
            logit: best.logit,
            probability: best.probability as f32,
        })
        .collect()
}

/// One sentence for people.
fn reason(strategy: &str, received: usize, found: &Suggestions) -> String {
    let mut words = strategy.to_owned();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!(
        "{words}; of {received} pictures {} are distinct and {} nearly repeat a labelled example.",
        found.distinct,
        found.labelled.len()
    )
}
