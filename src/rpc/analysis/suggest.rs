//! `SuggestExamples`: unlabelled pictures in, which of them to label out.

mod plan;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Response, Streaming};

use super::super::{
    Context,
    config_stream::{self, within},
    error::ApiError,
    flow_of_stream,
    observe::carried,
    request::{self, RequestError},
    submit::{CancelOnDrop, Item},
    uploads::Upload,
};
use crate::{
    auth::Caller,
    catalog::{CatalogError, Served, UnlabelledPool},
    telemetry,
};
use plan::{Plan, top_k};
use tip_adapter::{
    best::{Scored, TopK},
    suggest::{POOL_LIMIT, Strategy, Suggestions},
};
use tipserve_api::v1::{
    self as pb, suggest_examples_config::Strategy as AskedStrategy, suggestion::Reason,
};
use tipserve_engine::{Content, Crop, FlowId, JobOutput, Priority};

/// Most entries of the lists of rejected and already labelled pictures.
const MAX_LISTED: usize = 1000;
/// Most near-duplicates named of one suggestion.
const MAX_DUPLICATES: usize = 100;

/// Serves one SuggestExamples, until its deadline or a shutdown.
pub async fn serve(
    context: &Arc<Context>,
    caller: Caller,
    deadline: Option<Instant>,
    incoming: Streaming<pb::SuggestExamplesRequest>,
) -> Result<Response<pb::SuggestExamplesResponse>, ApiError> {
    within(context, deadline, suggest(context, caller, incoming)).await
}

async fn suggest(
    context: &Arc<Context>,
    caller: Caller,
    mut incoming: Streaming<pb::SuggestExamplesRequest>,
) -> Result<Response<pb::SuggestExamplesResponse>, ApiError> {
    let config = config_stream::config(&mut incoming).await?;
    let plan = Plan::of(context, &caller, config).await?;
    let cancel = CancelOnDrop::new();
    let mut collection = Collection {
        context: Arc::clone(context),
        flow: flow_of_stream(&caller),
        upload: context.uploads.begin(&caller),
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
    while let Some(items) = config_stream::items(&mut incoming).await? {
        for item in items {
            collection.take(item).await?;
        }
    }
    collection.finish().await
}

/// A picture of the pool with its feature.
struct Pooled {
    id: String,
    sequence: u64,
    feature: Vec<f32>,
    /// The version's best classes of it, the most probable first.
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
    upload: Upload,
    rejected: Vec<pb::RejectedExample>,
    rejected_count: usize,
    plan: Plan,
}

impl Collection {
    fn received(&self) -> usize {
        self.items.len() + self.under_way.len() + self.rejected_count
    }

    /// Counts what an item will hold against the limits on bytes.
    fn count_bytes(&mut self, id: &str, width: usize) -> Result<(), ApiError> {
        self.bytes += width * size_of::<f32>();
        RequestError::check(
            "items (bytes of features)",
            "max_create_bytes",
            self.context.limits.max_create_bytes,
            self.bytes,
        )?;
        // Once as it is kept, and once beside the others when all are there.
        self.upload
            .add(id.len() + size_of::<Pooled>() + 2 * width * size_of::<f32>())?;
        Ok(())
    }

    async fn take(&mut self, item: pb::UnlabelledItem) -> Result<(), ApiError> {
        let sequence = self.received();
        RequestError::check("items", "max_pool", POOL_LIMIT, sequence + 1)?;
        let id = if item.id.is_empty() {
            sequence.to_string()
        } else {
            item.id
        };
        let width = self.plan.bundle.model.width;
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
        self.count_bytes(&id, width)?;
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
            bundle: Arc::clone(&self.plan.bundle),
            content,
            work: self.plan.work(),
            flow: self.flow,
            priority: Priority::Bulk,
            deadline: None,
            cancelled: Arc::clone(&self.cancelled),
            may_wait: true,
        };
        let context = Arc::clone(&self.context);
        let top_k = self.plan.version.as_ref().map(|(served, _)| top_k(served));
        self.under_way.spawn(carried(async move {
            let result = match (given, top_k) {
                // Nothing is to be computed.
                (Some(unit), None) => Ok((unit, Vec::new())),
                (given, top_k) => match context.send(job).await {
                    Ok(answer) => match answer.outcome().await {
                        Ok(outcome) => feature(given, top_k, outcome),
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
        // Sorted as they were sent, so that the same pool gives the same
        // answer.
        self.items.sort_by_key(|item| item.sequence);
        let version = self.plan.version.as_ref();
        let pool = UnlabelledPool {
            features: (self.items.iter())
                .flat_map(|item| item.feature.iter().copied())
                .collect(),
            margins: version.map(|_| self.items.iter().map(margin).collect()),
            labelled: version.map(|(_, labelled)| Arc::clone(labelled)),
        };
        let caller = self.caller.quota();
        let found = self
            .context
            .catalog
            .suggest(
                pool,
                self.plan.bundle.model.width,
                self.plan.options,
                caller.as_deref(),
                Arc::clone(&self.cancelled),
            )
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
                    // The first of several classes; without any, 0 and no name.
                    let class = labelled.names.class_of(known.key);
                    let name = class.map_or("", |class| labelled.names.class_name(class));
                    pb::LabelledDuplicate {
                        id: id(known.row).to_owned(),
                        example_id: labelled.names.example_id(known.key),
                        class_index: i32::try_from(class.unwrap_or(0)).unwrap_or(i32::MAX),
                        display_name: name.to_owned(),
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
    top_k: Option<TopK>,
    outcome: JobOutput,
) -> Result<(Vec<f32>, Vec<Scored>), ApiError> {
    let best = top_k.map_or_else(Vec::new, |top_k| outcome.scores.best(top_k));
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
            probability: classifier.probability(best) as f32,
        })
        .collect()
}

/// How the pictures were picked, as one sentence for people.
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
