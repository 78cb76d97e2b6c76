//! `Evaluate`: labelled items in, how well each version did out.
//!
//! Each item is encoded once; then every version's head, and its text
//! classifier alone, judge the feature.

mod judge;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use tokio::{sync::Semaphore, task::JoinSet};
use tonic::{Response, Streaming};

use super::{
    Context,
    confidence::{DEFAULT_ACCEPT, score},
    config_stream::{self, within},
    error::ApiError,
    flow_of_stream,
    observe::{about, carried},
    request::{self, RequestError},
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
    unknown::UnknownScores,
};
use tipserve_api::v1::{self as pb, input::Content as Sent};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Content, Crop, FlowId};

/// Most versions side by side.
pub const MAX_VERSIONS: usize = 8;
/// Most rejected items named in the answer.
const MAX_REJECTED: usize = 1000;

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
    card: Scorecard,
    scores: UnknownScores,
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
    let mut versions = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for name in &config.caches {
        let reference = super::reference(caller, name)?;
        // Parsed first, so that nothing else gets into the span.
        names.push(reference.cache.to_string());
        let classifier = context.catalog.classifier(&reference).await?;
        versions.push(Version {
            card: Scorecard::new(&classifier)?,
            classes: ClassNames::new(
                (0..classifier.classes()).map(|class| classifier.class_name(class)),
            ),
            scores: UnknownScores::default(),
            classifier,
        });
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
    /// Its class's index in every version; none for an item of an unknown class.
    classes: Option<Vec<usize>>,
    logits: Result<Vec<Logits>, ApiError>,
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
    async fn take(&mut self, item: pb::LabelledItem) -> Result<(), ApiError> {
        let width = self.width;
        let checked = request::check_id("items.id", &item.id).and_then(|()| {
            let classes = match item.unknown {
                true => None,
                false => Some(self.classes(item.class_index, item.class_name)?),
            };
            content(item.input, width).map(|content| (classes, content))
        });
        let (classes, content) = match checked {
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
                    }
                })
                .collect(),
        };
        self.judging.spawn(carried(async move {
            let logits = judge.run(content).await;
            drop(place);
            Judged {
                id: item.id,
                classes,
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
        let Judged {
            id,
            classes,
            logits,
        } = judged;
        telemetry::item(logits.is_ok());
        match logits {
            Err(problem) => self.reject(id, problem),
            Ok(logits) => {
                let judged = self.versions.iter_mut().zip(logits).enumerate();
                for (at, (version, (own, zero_shot))) in judged {
                    let best = first(&version.classifier, &own)?;
                    let score = score(&best, version.classifier.temperature());
                    match &classes {
                        None => version.scores.unknown(score),
                        Some(classes) => {
                            let class = *classes
                                .get(at)
                                .ok_or_else(|| CatalogError::internal("a version has no class"))?;
                            version.scores.known(score, best.class == class);
                            version.card.add(&own, zero_shot.as_deref(), class)?;
                        }
                    }
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
            evaluations: self.versions.iter().map(report).collect(),
            rejected: self.rejected,
            rejected_count: self.rejected_count,
        }))
    }
}

fn report(version: &Version) -> pb::Evaluation {
    let (report, zero_shot) = version.card.finish();
    let classes = report
        .per_class
        .iter()
        .enumerate()
        .map(|(index, class)| pb::ClassEvaluation {
            index: index as i32,
            display_name: version.classifier.class_name(index).to_owned(),
            count: class.count as i64,
            accuracy: class.accuracy,
        })
        .collect();
    pb::Evaluation {
        version: version.classifier.name.clone(),
        count: report.count as i64,
        top1: report.top1,
        top5: report.top5,
        zero_shot_top1: zero_shot.map(|report| report.top1),
        cross_entropy: report.cross_entropy,
        expected_calibration_error: report.expected_calibration_error,
        classes,
        confusion: report.confusion.iter().map(|count| *count as i64).collect(),
        unknown: unknown(version),
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

/// How well items of unknown classes are told; none if there are none.
fn unknown(version: &Version) -> Option<pb::UnknownEvaluation> {
    let figures = version.scores.figures()?;
    let unseen = version.classifier.manifest.details.head.unseen.as_ref();
    let threshold = unseen.and_then(|scores| scores.threshold(DEFAULT_ACCEPT));
    let at = threshold.map(|threshold| version.scores.at(threshold));
    Some(pb::UnknownEvaluation {
        count: i64::try_from(figures.count).unwrap_or(i64::MAX),
        auroc: figures.auroc,
        false_positive_rate: figures.false_positive_rate,
        threshold,
        accepted: at.map_or(0.0, |at| at.accepted),
        rejected: at.map_or(0.0, |at| at.rejected),
        accepted_top1: at.map_or(0.0, |at| at.accepted_accuracy),
    })
}
