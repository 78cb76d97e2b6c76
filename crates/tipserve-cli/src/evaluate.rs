//! `tipserve evaluate`: how well versions classify labelled examples.

use std::{path::PathBuf, time::Instant};

use clap::Args;

use crate::{
    class_names::{MatchedBy, match_classes},
    connect::Connection,
    documents::{EvaluateDocument, EvaluationDocument},
    evaluation_page,
    failure::{Completion, Failure},
    files::{Unusable, readable},
    global::Global,
    labelled::{Labelled, Purpose, Source},
    reader::{self, LoadedExample, Part},
    reject::RejectArgs,
    report, requests,
    screen::Screen,
    source, unlabelled,
    upload::{self, Upload, Uploaded},
};
use tipserve_api::v1::{
    EvaluateConfig, EvaluateRequest, EvaluateResponse, GetVersionRequest, LabelledBatch,
    LabelledItem, RejectOptions, evaluate_request::Payload,
};

/// Flags of `tipserve evaluate`.
#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    /// The versions, side by side: CACHE, CACHE@VERSION or CACHE@ALIAS.
    #[arg(required = true, num_args = 1..=8, value_name = "CACHE[@VERSION|@ALIAS]")]
    pub caches: Vec<String>,
    /// A folder with one folder a class, an .npz file, or a list of pictures with
    /// any number of labels (see `create`).
    /// Classes are matched to the cache's by display name.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub from: PathBuf,
    /// Display names of folders: lines "folder<TAB>display name".
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// Leave out what `create --shots K` drew from the same folder or file with
    /// the same seed (add its --val-shots to K).
    #[arg(long, value_name = "K")]
    pub except_shots: Option<u32>,
    /// Pictures of classes that the versions do not know (walked): how well they
    /// are told from the others is measured, too.
    #[arg(long, value_name = "DIR")]
    pub unknown: Option<PathBuf>,
    #[command(flatten)]
    pub rejecting: RejectArgs,
    /// Seed of that draw.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Write a page about the first version, in one file: reliability,
    /// confusion, the worst pictures. The examples are classified once more
    /// for it.
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
}

pub async fn run(
    args: EvaluateArgs,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    let mut labelled = source::open(&args.from, "--from", args.names.as_deref())?;
    if labelled.is_multi_label() && (args.except_shots.is_some() || args.html.is_some()) {
        return Err(Failure::Usage(
            "--except-shots and --html are of examples with one class each: a list of labels has \
             any number"
                .to_owned(),
        ));
    }
    if let Some(shots) = args.except_shots {
        labelled = labelled.split(args.seed, shots as usize).1;
    }
    let connection = Connection::open(global).await?;
    let again = args.html.is_some().then(|| labelled.clone());
    let unknown = args.unknown.map(|folder| unlabelled::open(&[folder]));
    let items = Items {
        labelled,
        unknown: unknown.transpose()?,
        reject: args.rejecting.options(),
    };
    let outcome = evaluate(&connection, &args.caches, items, screen).await?;
    if let (Some(path), Some(labelled), Some(first)) =
        (&args.html, again, outcome.evaluations.first())
    {
        let version = [first.version.clone()];
        let (labelled, _) = matched(&connection, &version, labelled).await?;
        evaluation_page::write(&connection, labelled, first, path).await?;
        screen.note(&format!("wrote {}", readable(path)));
    }
    if screen.json {
        screen.document(&outcome)?;
    } else {
        report::evaluated(screen, &outcome)?;
    }
    Ok(Completion::with_failed(
        outcome.rejected_count.max(0).unsigned_abs(),
    ))
}

/// What versions are evaluated on.
pub(crate) struct Items {
    /// Pictures of classes that the versions know.
    pub labelled: Labelled,
    /// Pictures of classes that they do not know; none without `--unknown`.
    pub unknown: Option<Labelled>,
    /// When a picture counts as of an unknown class; none for the server's default.
    pub reject: Option<RejectOptions>,
}

impl From<Labelled> for Items {
    fn from(labelled: Labelled) -> Self {
        Self {
            labelled,
            unknown: None,
            reject: None,
        }
    }
}

/// Has the server evaluate versions, each over the same items.
pub(crate) async fn evaluate(
    connection: &Connection,
    caches: &[String],
    items: impl Into<Items>,
    screen: &Screen,
) -> Result<EvaluateDocument, Failure> {
    let Items {
        labelled,
        unknown,
        reject,
    } = items.into();
    if labelled.examples.is_empty() {
        return Err(Failure::Input(
            "--from holds no examples to evaluate on".to_owned(),
        ));
    }
    let (labelled, matched_by) = matched(connection, caches, labelled).await?;
    if matched_by == MatchedBy::Index {
        screen.note("note: class names are not unique: classes are matched by index");
    }
    let doing = format!("evaluating {}", caches.join(", "));
    let started = Instant::now();
    let (uploaded, answer) = call(
        connection,
        caches,
        Items {
            labelled,
            unknown,
            reject,
        },
        &doing,
        screen,
    )
    .await?;
    let evaluations = answer
        .evaluations
        .into_iter()
        .map(EvaluationDocument::new)
        .collect::<Result<Vec<_>, _>>()?;
    let first = evaluations
        .first()
        .ok_or_else(|| Failure::Broken(format!("{doing}: the server answered without a result")))?;
    let mut rejected: Vec<_> = answer.rejected.into_iter().map(Into::into).collect();
    let rejected_count = answer.rejected_count + uploaded.rejected.len() as i64;
    rejected.extend(uploaded.rejected);
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

/// Sends the examples, and waits for the server's figures. The server says
/// nothing before those, so the bar counts what was sent, and says so.
async fn call(
    connection: &Connection,
    caches: &[String],
    Items {
        labelled,
        unknown,
        reject,
    }: Items,
    doing: &str,
    screen: &Screen,
) -> Result<(Uploaded, EvaluateResponse), Failure> {
    let limit = connection.message_limit().await?;
    let count = labelled.examples.len() + unknown.as_ref().map_or(0, |it| it.examples.len());
    let bar = screen.bar(Some(count as u64), "sent");
    bar.set_message("evaluating");
    let (requests, stream) = requests::channel();
    let config = EvaluateConfig {
        caches: caches.to_vec(),
        reject,
    };
    requests
        .send(EvaluateRequest {
            payload: Some(Payload::Config(config)),
        })
        .await;
    let part = |labelled, purpose| Part {
        labelled,
        purpose,
        prefix: String::new(),
    };
    let mut parts = vec![part(labelled, Purpose::Training)];
    parts.extend(unknown.map(|pictures| part(pictures, Purpose::Unknown)));
    let sent = bar.clone();
    let upload = Upload {
        item,
        message: |items| EvaluateRequest {
            payload: Some(Payload::Items(LabelledBatch { items })),
        },
        limit,
        strict: false,
        progress: Box::new(move |_| sent.inc(1)),
    };
    let upload = tokio::spawn(upload.run(reader::start(parts, limit), requests));
    let mut client = connection.classify();
    let answer = async {
        let answer = client.evaluate(stream).await;
        answer.map_err(|status| connection.failure(doing, status))
    };
    let (uploaded, answer) = upload::with_answer(upload, answer).await?;
    bar.finish_and_clear();
    Ok((uploaded, answer.into_inner()))
}

fn item(mut loaded: LoadedExample) -> Result<LabelledItem, (String, Unusable)> {
    let labels = reader::class_indices(loaded.labels.as_deref());
    match labels.and_then(|labels| Ok((labels, loaded.content()?))) {
        Ok((class_indices, (class_index, input))) => Ok(LabelledItem {
            id: loaded.id,
            class_index,
            class_indices,
            input: Some(input),
            unknown: loaded.purpose == Purpose::Unknown,
            ..LabelledItem::default()
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
    let mut agreed: Option<Agreed> = None;
    for cache in caches {
        let names = class_names(connection, cache).await?;
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let (map, by) = match_classes(
            &labelled.class_names(),
            "--from",
            &known,
            cache,
            matches!(labelled.source, Source::Npz(_)),
        )?;
        match &agreed {
            None => {
                agreed = Some(Agreed {
                    cache: cache.clone(),
                    names,
                    map,
                    by,
                });
            }
            Some(first) if first.names == names && first.map == map => {}
            Some(first) => {
                return Err(Failure::Input(format!(
                    "{} and {cache} number their classes differently, so they cannot be evaluated \
                     in one call; evaluate each alone",
                    first.cache
                )));
            }
        }
    }
    let agreed = agreed.ok_or_else(|| Failure::Usage("no cache is named".to_owned()))?;
    let classes = labelled.classes.clone();
    Ok((labelled.renumber(&agreed.map, classes)?, agreed.by))
}

/// How the classes of all versions so far are numbered.
struct Agreed {
    cache: String,
    names: Vec<String>,
    map: Vec<usize>,
    by: MatchedBy,
}

/// The display names of a version's classes.
async fn class_names(connection: &Connection, cache: &str) -> Result<Vec<String>, Failure> {
    let request = GetVersionRequest {
        name: cache.to_owned(),
        read_mask: None,
    };
    let mut client = connection.caches();
    let version = connection
        .unary(
            &format!("looking up {cache:?}"),
            client.get_version(request),
        )
        .await?;
    let classes = version.classes.into_iter();
    Ok(classes.map(|class| class.display_name).collect())
}
