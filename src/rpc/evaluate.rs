//! `Evaluate`: labelled items in, how well each version did out.
//!
//! Each item is encoded once; then every version's head, and its text
//! classifier alone, judge the feature.

mod judge;
mod report;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Response, Streaming};

use super::{
    Context,
    confidence::{Reject, score},
    config_stream::{self, within},
    error::ApiError,
    flow_of_stream,
    observe::{about, carried},
    request::{self, RequestError, class_indices},
    submit::CancelOnDrop,
};
use crate::{
    auth::Caller,
    catalog::{CatalogError, ClassNames, ClassRef, Scorecard, Served},
    telemetry,
};
use judge::{Judge, JudgedHead, Logits};
use tip_adapter::{
    best::{Scored, TopK, best},
    evaluate_labels::LabelEvaluator,
    unknown::UnknownScores,
};
use tipserve_api::v1::{self as pb, input::Content as Sent};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Content, Crop, FlowId};

/// Most versions side by side.
pub const MAX_VERSIONS: usize = 8;
/// Most rejected items named in the answer.
const MAX_REJECTED: usize = 1000;
/// Most decisions (one for each item and class) kept for a multi-label version.
pub const MAX_EVALUATED_LABELS: usize = 1 << 25;

/// Serves one Evaluate, until its deadline or a shutdown.
pub async fn serve(
    context: &Arc<Context>,
    caller: Caller,
    deadline: Option<Instant>,
    incoming: Streaming<pb::EvaluateRequest>,
) -> Result<Response<pb::EvaluateResponse>, ApiError> {
    within(context, deadline, evaluate(context, caller, incoming)).await
}

async fn evaluate(
    context: &Arc<Context>,
    caller: Caller,
    mut incoming: Streaming<pb::EvaluateRequest>,
) -> Result<Response<pb::EvaluateResponse>, ApiError> {
    let config = config_stream::config(&mut incoming).await?;
    let versions = versions(context, &caller, &config).await?;
    let cancel = CancelOnDrop::new();
    let mut evaluation = Evaluation {
        context: Arc::clone(context),
        flow: flow_of_stream(&caller),
        caller,
        cancelled: Arc::clone(&cancel.0),
        window: Arc::new(Semaphore::new(context.limits.stream_window)),
        judging: JoinSet::new(),
        rejected: Vec::new(),
        rejected_count: 0,
        width: common_width(&versions),
        versions,
    };
    while let Some(items) = config_stream::items(&mut incoming).await? {
        for item in items {
            evaluation.take(item).await?;
        }
    }
    evaluation.finish().await
}

/// A version that is evaluated, and its figures so far.
struct Version {
    classifier: Served,
    classes: ClassNames,
    card: Card,
    scores: UnknownScores,
    rejecting: Option<Rejecting>,
}

/// What the caller's own threshold does to a version's answers.
struct Rejecting {
    by: Reject,
    /// How far items are above the threshold, which may be their class's.
    margins: UnknownScores,
}

/// A version's running counts, by the kind of its labels.
enum Card {
    /// For answers of one class.
    OneLabel(Box<Scorecard>),
    /// For answers of any number of classes.
    MultiLabel(LabelEvaluator),
}

impl Card {
    fn of(classifier: &Served) -> Card {
        match classifier.label_thresholds() {
            Some(thresholds) => Card::MultiLabel(LabelEvaluator::new(thresholds.to_vec())),
            None => Card::OneLabel(Box::new(Scorecard::new(classifier))),
        }
    }

    fn is_multi_label(&self) -> bool {
        matches!(self, Card::MultiLabel(_))
    }
}

/// An item's true class or classes.
enum Truth {
    /// Of one class: its index in every version.
    Classes(Vec<usize>),
    /// Of a class unknown to the versions.
    Unknown,
    /// Of any number of classes.
    Labels(Vec<usize>),
}

async fn versions(
    context: &Context,
    caller: &Caller,
    config: &pb::EvaluateConfig,
) -> Result<Vec<Version>, ApiError> {
    if config.caches.is_empty() {
        return Err(RequestError::missing("config.caches").into());
    }
    RequestError::check(
        "config.caches",
        "max_versions",
        MAX_VERSIONS,
        config.caches.len(),
    )?;
    let reject = (config.reject)
        .map(|sent| Reject::check("config.reject", sent))
        .transpose()?;
    let mut versions = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for name in &config.caches {
        let reference = super::reference(caller, name)?;
        // Parsed first, so that nothing else gets into the span.
        names.push(reference.cache.to_string());
        let classifier = context.catalog.classifier(&reference).await?;
        versions.push(Version {
            card: Card::of(&classifier),
            classes: ClassNames::new(
                (0..classifier.classes()).map(|class| classifier.class_name(class)),
            ),
            scores: UnknownScores::default(),
            rejecting: reject.map(|by| Rejecting {
                by,
                margins: UnknownScores::default(),
            }),
            classifier,
        });
    }
    let many = versions
        .iter()
        .filter(|version| version.card.is_multi_label())
        .count();
    if many > 0 && many < versions.len() {
        let problem = "versions with and without multi_label are not evaluated in one call";
        return Err(RequestError::invalid("config.caches", problem).into());
    }
    if many > 0 && reject.is_some() {
        let problem = "versions with multi_label are evaluated at their classes' own thresholds";
        return Err(RequestError::invalid("config.reject", problem).into());
    }
    about(names.join(","));
    Ok(versions)
}

/// The width of embeddings that all versions take; `None` if they belong to
/// several bundles.
fn common_width(versions: &[Version]) -> Option<usize> {
    let mut bundles = versions.iter().map(|version| &version.classifier.bundle);
    let first = bundles.next()?;
    let same = bundles.all(|other| Arc::ptr_eq(other, first));
    same.then_some(first.model.width)
}

/// An item's picture or embedding. For versions of several bundles it must be a
/// picture, since an embedding belongs to one bundle.
fn content(input: Option<pb::Input>, width: Option<usize>) -> Result<Content, RequestError> {
    let embedded = |input: &pb::Input| matches!(input.content, Some(Sent::Embedding(_)));
    if width.is_none() && input.as_ref().is_some_and(embedded) {
        return Err(RequestError::invalid(
            "items.input.embedding",
            "the versions are of several bundles, and an embedding is of one: send pictures",
        ));
    }
    // The judge decodes it anew for each version's own orientation.
    let turn = ExifOrientation::default();
    request::content(input, Crop::Centre, width.unwrap_or_default(), turn)
}

/// One item's logits by every version.
struct Judged {
    id: String,
    truth: Truth,
    logits: Result<Vec<Logits>, ApiError>,
}

impl Version {
    /// Counts an item; the version is the `at`-th of those evaluated.
    fn count(&mut self, at: usize, truth: &Truth, logits: &Logits) -> Result<(), ApiError> {
        let classifier = &self.classifier;
        match (&mut self.card, truth) {
            (Card::OneLabel(card), Truth::Classes(classes)) => {
                let class = classes
                    .get(at)
                    .ok_or_else(|| CatalogError::internal("a version has no class"))?;
                let best = first(classifier, &logits.own)?;
                let feature = logits.feature.as_deref();
                let score = score(classifier, &best, feature)?;
                let is_right = best.class == *class;
                self.scores.known(score, is_right);
                if let Some(rejecting) = &mut self.rejecting {
                    let found = rejecting.by.recognise(classifier, &best, feature)?;
                    rejecting.margins.known(found.margin(), is_right);
                }
                card.add(&logits.own, logits.zero_shot.as_deref(), *class)?;
            }
            (Card::OneLabel(_), _) => {
                let best = first(classifier, &logits.own)?;
                let feature = logits.feature.as_deref();
                self.scores.unknown(score(classifier, &best, feature)?);
                if let Some(rejecting) = &mut self.rejecting {
                    let found = rejecting.by.recognise(classifier, &best, feature)?;
                    rejecting.margins.unknown(found.margin());
                }
            }
            (Card::MultiLabel(card), truth) => {
                let labels = match truth {
                    Truth::Labels(labels) => labels.as_slice(),
                    Truth::Classes(_) | Truth::Unknown => &[],
                };
                card.add(&logits.own, labels);
                RequestError::check(
                    "items (times classes)",
                    "max_evaluated_labels",
                    MAX_EVALUATED_LABELS,
                    card.cells(),
                )?;
            }
        }
        Ok(())
    }
}

struct Evaluation {
    context: Arc<Context>,
    caller: Caller,
    flow: FlowId,
    cancelled: Arc<AtomicBool>,
    window: Arc<Semaphore>,
    judging: JoinSet<Judged>,
    versions: Vec<Version>,
    /// Of an embedding that every version takes; none if bundles differ.
    width: Option<usize>,
    rejected: Vec<pb::RejectedExample>,
    rejected_count: i64,
}

impl Evaluation {
    /// What an item is labelled as: a class, several, or none of the classes.
    fn truth(&self, item: &mut pb::LabelledItem) -> Result<Truth, RequestError> {
        let name = std::mem::take(&mut item.class_name);
        let many = self
            .versions
            .iter()
            .any(|version| version.card.is_multi_label());
        if many {
            if !name.is_empty() {
                let problem = "for versions with multi_label items have class_indices";
                return Err(RequestError::invalid("items.class_name", problem));
            }
            let field = "items.class_indices";
            let counts = self.versions.iter().map(|it| it.classifier.classes());
            let labels = class_indices(field, &item.class_indices, counts.min().unwrap_or(0))?;
            return match item.unknown && !labels.is_empty() {
                true => Err(RequestError::invalid(field, "an unknown item has none")),
                false => Ok(Truth::Labels(labels)),
            };
        }
        if !item.class_indices.is_empty() {
            let problem = "only for versions with multi_label";
            return Err(RequestError::invalid("items.class_indices", problem));
        }
        match item.unknown {
            true => Ok(Truth::Unknown),
            false => self.classes(item.class_index, name).map(Truth::Classes),
        }
    }

    async fn take(&mut self, mut item: pb::LabelledItem) -> Result<(), ApiError> {
        let width = self.width;
        let input = item.input.take();
        let checked = request::check_id("items.id", &item.id).and_then(|()| {
            let truth = self.truth(&mut item)?;
            content(input, width).map(|content| (truth, content))
        });
        let (truth, content) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                telemetry::item(false);
                self.reject(item.id, error.into());
                return Ok(());
            }
        };
        self.context.pace(&self.caller, 1, None, true).await?;
        let place = loop {
            tokio::select! {
                place = Arc::clone(&self.window).acquire_owned() => break place,
                Some(judged) = self.judging.join_next() => self.count(judged)?,
            }
        };
        let place = place.map_err(CatalogError::internal)?;
        let judge = Judge {
            context: Arc::clone(&self.context),
            flow: self.flow,
            cancelled: Arc::clone(&self.cancelled),
            heads: self
                .versions
                .iter()
                .map(|version| {
                    let classifier = &version.classifier;
                    JudgedHead {
                        bundle: Arc::clone(&classifier.bundle),
                        exif_orientation: classifier.exif_orientation(),
                        own: Arc::clone(&classifier.head),
                        zero_shot: classifier.zero_shot.clone(),
                        scores_by_feature: classifier.scores_by_feature(),
                    }
                })
                .collect(),
        };
        self.judging.spawn(carried(async move {
            let logits = judge.run(content).await;
            drop(place);
            Judged {
                id: item.id,
                truth,
                logits,
            }
        }));
        Ok(())
    }

    /// The index of an item's class in every version.
    fn classes(&self, index: i32, name: String) -> Result<Vec<usize>, RequestError> {
        let field = match name.is_empty() {
            true => "items.class_index",
            false => "items.class_name",
        };
        let class = ClassRef::of(index, name);
        let class = class.map_err(|problem| RequestError::invalid(field, problem))?;
        let of_version = |version: &Version| {
            version.classes.find(&class).map_err(|problem| {
                let problem = format!("{}: {problem}", version.classifier.name);
                RequestError::invalid(field, problem)
            })
        };
        self.versions.iter().map(of_version).collect()
    }

    fn count(&mut self, judged: Result<Judged, tokio::task::JoinError>) -> Result<(), ApiError> {
        let judged = judged.map_err(CatalogError::internal)?;
        let Judged { id, truth, logits } = judged;
        telemetry::item(logits.is_ok());
        match logits {
            Err(problem) => self.reject(id, problem),
            Ok(logits) => {
                let judged = self.versions.iter_mut().zip(logits).enumerate();
                for (at, (version, logits)) in judged {
                    version.count(at, &truth, &logits)?;
                }
            }
        }
        Ok(())
    }

    fn reject(&mut self, id: String, problem: ApiError) {
        self.rejected_count += 1;
        if self.rejected.len() < MAX_REJECTED {
            self.rejected.push(pb::RejectedExample {
                example_id: id,
                code: problem.code() as i32,
                message: problem.message().to_owned(),
                reason: problem.reason().to_owned(),
            });
        }
    }

    async fn finish(mut self) -> Result<Response<pb::EvaluateResponse>, ApiError> {
        while let Some(judged) = self.judging.join_next().await {
            self.count(judged)?;
        }
        Ok(Response::new(pb::EvaluateResponse {
            evaluations: self.versions.iter().map(report::evaluation).collect(),
            rejected: self.rejected,
            rejected_count: self.rejected_count,
        }))
    }
}

/// The best class of an item's logits.
fn first(classifier: &Served, logits: &[f32]) -> Result<Scored, CatalogError> {
    let top_k = TopK {
        classes: 1,
        temperature: classifier.temperature(),
    };
    let best = best(logits, top_k).into_iter().next();
    best.ok_or_else(|| CatalogError::internal("no logits"))
}
