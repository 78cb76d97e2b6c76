//! `tipserve evaluate`: how well versions classify labelled examples.

use std::{path::PathBuf, time::Instant};

use clap::Args;
use serde::Serialize;

use super::{
    Global, batch,
    classes::{MatchedBy, match_classes},
    connect::Connection,
    documents::RejectedDocument,
    failure::{Failure, Outcome},
    files::Unusable,
    labelled::{Labelled, Source},
    load::{self, Part},
    making::whole,
    report, requests,
    screen::Screen,
};
use tipserve_api::v1::{
    self, EvaluateConfig, EvaluateRequest, GetVersionRequest, LabelledBatch, LabelledItem,
    evaluate_request::Payload,
};

/// Flags of `tipserve evaluate`.
#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    /// The versions, side by side: CACHE, CACHE@VERSION or CACHE@ALIAS.
    #[arg(required = true, num_args = 1..=8, value_name = "CACHE[@VERSION|@ALIAS]")]
    pub caches: Vec<String>,
    /// A folder with one folder a class, or an .npz file (see `create`).
    /// Classes are matched to the cache's by display name.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub from: PathBuf,
    /// Display names of folders: lines "folder<TAB>display name".
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// Leave out what `create --shots K` (and its --val-shots, added to K)
    /// drew from the same folder or file with the same seed.
    #[arg(long, value_name = "K")]
    pub except_shots: Option<u32>,
    /// Seed of that draw.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// What `evaluate --json` prints. The first four are those of the first
/// version.
#[derive(Debug, Serialize)]
pub struct EvaluateDocument {
    pub top1: f64,
    pub top5: f64,
    pub zero_shot_top1: Option<f64>,
    pub count: i64,
    pub evaluations: Vec<EvaluationDocument>,
    pub rejected: Vec<RejectedDocument>,
    pub rejected_count: i64,
    pub matched_by: String,
    pub seconds: f64,
}

/// How well one version did.
#[derive(Debug, Serialize)]
pub struct EvaluationDocument {
    pub version: String,
    pub count: i64,
    pub top1: f64,
    pub top5: f64,
    pub zero_shot_top1: Option<f64>,
    pub cross_entropy: f64,
    pub expected_calibration_error: f64,
    pub classes: Vec<ClassEvaluationDocument>,
    /// Row i, column j: examples of class i taken for class j.
    pub confusion: Vec<Vec<i64>>,
}

/// How well one class did.
#[derive(Debug, Serialize)]
pub struct ClassEvaluationDocument {
    pub index: i32,
    pub display_name: String,
    pub count: i64,
    pub accuracy: f64,
}

impl EvaluationDocument {
    fn of(evaluation: v1::Evaluation) -> Result<Self, Failure> {
        let classes = evaluation.classes.len();
        if evaluation.confusion.len() != classes * classes {
            return Err(Failure::Broken(format!(
                "the server's confusion matrix has {} entries for {classes} classes",
                evaluation.confusion.len()
            )));
        }
        Ok(Self {
            version: evaluation.version,
            count: evaluation.count,
            top1: evaluation.top1,
            top5: evaluation.top5,
            zero_shot_top1: evaluation.zero_shot_top1,
            cross_entropy: evaluation.cross_entropy,
            expected_calibration_error: evaluation.expected_calibration_error,
            confusion: evaluation
                .confusion
                .chunks(classes.max(1))
                .map(<[i64]>::to_vec)
                .collect(),
            classes: evaluation
                .classes
                .into_iter()
                .map(|class| ClassEvaluationDocument {
                    index: class.index,
                    display_name: class.display_name,
                    count: class.count,
                    accuracy: class.accuracy,
                })
                .collect(),
        })
    }
}

/// Runs `tipserve evaluate`.
pub async fn run(args: EvaluateArgs, global: &Global, screen: &Screen) -> Result<Outcome, Failure> {
    let mut labelled = Labelled::open(&args.from, "--from", args.names.as_deref())?;
    if let Some(shots) = args.except_shots {
        labelled = labelled.split(args.seed, shots as usize).1;
    }
    let connection = Connection::open(global).await?;
    let outcome = evaluate(&connection, &args.caches, labelled, screen).await?;
    if screen.json {
        screen.document(&outcome)?;
    } else {
        report::evaluated(screen, &outcome)?;
    }
    Ok(Outcome::of(
        usize::try_from(outcome.rejected_count).unwrap_or(0),
    ))
}

/// Evaluates over the API.
pub async fn evaluate(
    connection: &Connection,
    caches: &[String],
    labelled: Labelled,
    screen: &Screen,
) -> Result<EvaluateDocument, Failure> {
    if labelled.examples.is_empty() {
        return Err(Failure::Input(
            "--from holds no examples to evaluate on".to_owned(),
        ));
    }
    let (labelled, matched_by) = matched(connection, caches, labelled).await?;
    if matched_by == MatchedBy::Index {
        screen.note("note: class names are not unique: classes are matched by index");
    }
    let limit = connection.message_limit().await?;
    let bar = screen.bar(Some(labelled.examples.len() as u64), "examples");
    bar.set_message("evaluating");
    let started = Instant::now();
    let (requests, stream) = requests::channel();
    let config = EvaluateConfig {
        caches: caches.to_vec(),
    };
    requests
        .send(EvaluateRequest {
            payload: Some(Payload::Config(config)),
        })
        .await;
    let parts = vec![Part {
        labelled,
        validation: false,
        prefix: String::new(),
    }];
    let feeding = tokio::spawn(batch::feed(
        load::start(parts, limit),
        requests,
        limit,
        false,
        bar.clone(),
        item,
        |items| EvaluateRequest {
            payload: Some(Payload::Items(LabelledBatch { items })),
        },
    ));
    let mut classify = connection.classify();
    let answering = async {
        let answer = classify.evaluate(stream).await;
        answer.map_err(|status| connection.failure(&doing(caches), status))
    };
    let (fed, answer) = whole(feeding, answering).await?;
    bar.finish_and_clear();
    let answer = answer.into_inner();
    let evaluations = answer
        .evaluations
        .into_iter()
        .map(EvaluationDocument::of)
        .collect::<Result<Vec<_>, _>>()?;
    let first = evaluations.first().ok_or_else(|| {
        Failure::Broken(format!(
            "{}: the server answered without a result",
            doing(caches)
        ))
    })?;
    let rejected_count = answer.rejected_count + fed.rejected.len() as i64;
    let mut rejected: Vec<_> = answer.rejected.into_iter().map(Into::into).collect();
    rejected.extend(fed.rejected);
    Ok(EvaluateDocument {
        top1: first.top1,
        top5: first.top5,
        zero_shot_top1: first.zero_shot_top1,
        count: first.count,
        evaluations,
        rejected,
        rejected_count,
        matched_by: matched_by.to_string(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn doing(caches: &[String]) -> String {
    format!("evaluating {}", caches.join(", "))
}

fn item(loaded: load::Loaded) -> Result<LabelledItem, (String, Unusable)> {
    match loaded.input {
        Ok(input) => Ok(LabelledItem {
            id: loaded.id,
            class_index: i32::try_from(loaded.class).unwrap_or(i32::MAX),
            input: Some(input),
        }),
        Err(why) => Err((loaded.id, why)),
    }
}

/// The examples with the classes' indices in the versions. An item carries
/// one index, so all versions must agree on it.
async fn matched(
    connection: &Connection,
    caches: &[String],
    labelled: Labelled,
) -> Result<(Labelled, MatchedBy), Failure> {
    let mut agreed: Option<(Vec<usize>, MatchedBy)> = None;
    let mut first: Option<(String, Vec<String>)> = None;
    for cache in caches {
        let request = GetVersionRequest {
            name: cache.clone(),
            read_mask: None,
        };
        let version = connection
            .caches()
            .get_version(request)
            .await
            .map_err(|status| connection.failure(&format!("looking up {cache:?}"), status))?
            .into_inner();
        let names: Vec<String> = version
            .classes
            .into_iter()
            .map(|class| class.display_name)
            .collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = match_classes(
            &labelled.class_names(),
            "--from",
            &known,
            cache,
            matches!(labelled.source, Source::Npz(_)),
        )?;
        let differ = |other: &str| {
            Failure::Input(format!(
                "{other} and {cache} number their classes differently, so that they cannot be \
                 evaluated in one call; evaluate each alone"
            ))
        };
        if let Some((other, others)) = &first {
            if *others != names || agreed.as_ref().is_some_and(|agreed| agreed.0 != found.0) {
                return Err(differ(other));
            }
        } else {
            first = Some((cache.clone(), names));
            agreed = Some(found);
        }
    }
    let (map, by) = agreed.unwrap_or((Vec::new(), MatchedBy::Name));
    let classes = labelled.classes.clone();
    Ok((labelled.renumber(&map, classes), by))
}
