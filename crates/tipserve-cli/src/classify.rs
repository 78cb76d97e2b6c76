//! `tipserve classify`: classifies pictures, or rows of an .npz file.

use std::{
    cell::Cell,
    io::{self, BufRead as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    Global,
    connect::Connection,
    documents::ItemError,
    failure::{Failure, Outcome},
    files,
    load::embedding,
    npz,
    screen::{Screen, percent, printable},
    window::{self, Entry, Flow, Reply},
};
use tipserve_api::v1::{Classification, ClassifyOptions, ClassifyStreamConfig, Priority};

/// Flags of `tipserve classify`.
#[derive(Clone, Debug, Args)]
pub struct ClassifyArgs {
    /// The classifier: CACHE, CACHE@VERSION or CACHE@ALIAS.
    #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: String,
    /// Picture files, folders (walked), .npz files (their `features`), or '-'
    /// for a list of files on standard input, one a line.
    #[arg(required = true, value_name = "FILE|DIR|FILE.npz|-")]
    pub inputs: Vec<PathBuf>,
    /// How many of the best classes.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..))]
    pub top_k: i32,
    /// How many of the nearest cached examples.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=100))]
    pub neighbours: i32,
    /// All logits (with --json).
    #[arg(long)]
    pub logits: bool,
    /// All probabilities (with --json).
    #[arg(long)]
    pub probabilities: bool,
    /// The embedding (with --json).
    #[arg(long)]
    pub embedding: bool,
    /// How long each stage took (with --json).
    #[arg(long)]
    pub timings: bool,
    /// Answers in the order of the files: the default.
    #[arg(long, overrides_with = "unordered")]
    pub ordered: bool,
    /// Answers as they are ready.
    #[arg(long, overrides_with = "ordered")]
    pub unordered: bool,
    /// Items on their way at once, at most.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub in_flight: u32,
    /// Drop an item that is not answered after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub time_limit: Option<Duration>,
    /// Offline work: take what interactive work leaves.
    #[arg(long)]
    pub bulk: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value = text.parse::<f64>().ok().filter(|value| *value > 0.0);
    value
        .and_then(|value| Duration::try_from_secs_f64(value).ok())
        .ok_or_else(|| "must be a number over 0".to_owned())
}

/// One line of `classify --json`.
#[derive(Debug, Serialize)]
struct ReplyDocument {
    id: String,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(flatten)]
    answer: Option<AnswerDocument>,
}

/// What the server answered.
#[derive(Debug, Serialize)]
pub struct AnswerDocument {
    version: String,
    top: Vec<ScoreDocument>,
    neighbours: Vec<NeighbourDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsDocument>,
}

#[derive(Debug, Serialize)]
struct ScoreDocument {
    index: i32,
    display_name: String,
    logit: f32,
    probability: f32,
}

#[derive(Debug, Serialize)]
struct NeighbourDocument {
    example_id: String,
    class_index: i32,
    display_name: String,
    similarity: f32,
}

#[derive(Debug, Serialize)]
struct TimingsDocument {
    decode_queue_seconds: f64,
    decode_seconds: f64,
    queue_seconds: f64,
    encode_seconds: f64,
    head_seconds: f64,
    total_seconds: f64,
    batch_size: i32,
}

impl From<Classification> for AnswerDocument {
    fn from(answer: Classification) -> Self {
        Self {
            version: answer.version,
            top: answer
                .top
                .into_iter()
                .map(|score| ScoreDocument {
                    index: score.index,
                    display_name: score.display_name,
                    logit: score.logit,
                    probability: score.probability,
                })
                .collect(),
            neighbours: answer
                .neighbours
                .into_iter()
                .map(|near| NeighbourDocument {
                    example_id: near.example_id,
                    class_index: near.class_index,
                    display_name: near.display_name,
                    similarity: near.similarity,
                })
                .collect(),
            logits: Some(answer.logits).filter(|values| !values.is_empty()),
            probabilities: Some(answer.probabilities).filter(|values| !values.is_empty()),
            embedding: answer.embedding.map(|embedding| embedding.values),
            timings: answer.timings.map(|timings| TimingsDocument {
                decode_queue_seconds: timings.decode_queue_seconds,
                decode_seconds: timings.decode_seconds,
                queue_seconds: timings.queue_seconds,
                encode_seconds: timings.encode_seconds,
                head_seconds: timings.head_seconds,
                total_seconds: timings.total_seconds,
                batch_size: timings.batch_size,
            }),
        }
    }
}

/// Runs `tipserve classify`.
pub async fn run(args: ClassifyArgs, global: &Global, screen: &Screen) -> Result<Outcome, Failure> {
    let connection = Connection::open(global).await?;
    let flow = Flow {
        window: args.in_flight as usize,
        limit: connection.message_limit().await?,
        time_limit: args.time_limit.map(|limit| prost_types::Duration {
            seconds: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(limit.subsec_nanos()).unwrap_or(0),
        }),
    };
    let config = ClassifyStreamConfig {
        cache: args.cache.clone(),
        options: Some(ClassifyOptions {
            top_k: args.top_k,
            logits: args.logits,
            probabilities: args.probabilities,
            neighbours: args.neighbours,
            embedding: args.embedding,
            timings: args.timings,
        }),
        ordered: !args.unordered,
        priority: if args.bulk {
            Priority::Bulk
        } else {
            Priority::Interactive
        }
        .into(),
    };
    let bar = screen.bar(None, "pictures");
    let (replies, failed) = (Cell::new(0_u64), Cell::new(0_usize));
    window::classify(
        &connection,
        config,
        &flow,
        start(args.inputs, flow.limit),
        |reply| {
            replies.set(replies.get() + 1);
            if reply.outcome.is_err() {
                failed.set(failed.get() + 1);
            }
            bar.inc(1);
            bar.suspend(|| print(screen, reply))
        },
    )
    .await?;
    bar.finish_and_clear();
    if replies.get() == 0 {
        return Err(Failure::Input("there is no file to classify".to_owned()));
    }
    if failed.get() > 0 {
        screen.complaint(&format!("{} of {} failed", failed.get(), replies.get()));
    }
    Ok(Outcome::of(failed.get()))
}

fn print(screen: &Screen, reply: Reply) -> Result<(), Failure> {
    if screen.json {
        let (answer, error) = match reply.outcome {
            Ok(answer) => (Some(answer.into()), None),
            Err(error) => (None, Some(error)),
        };
        return screen.json_line(&ReplyDocument {
            id: reply.id,
            index: reply.index,
            error,
            answer,
        });
    }
    match reply.outcome {
        Ok(answer) => screen.line(&described(&reply.id, &answer)),
        Err(error) => {
            let reason = error.reason.as_deref().unwrap_or(&error.code);
            let text = format!("{}\n  error: {} [{reason}]", reply.id, error.message);
            screen.line(&printable(&text))
        }
    }
}

/// An answer as a block of lines: the file, its classes, its neighbours.
pub fn described(id: &str, answer: &Classification) -> String {
    let mut text = id.to_owned();
    let width = answer
        .top
        .iter()
        .map(|score| score.display_name.chars().count())
        .max();
    let width = width.unwrap_or(0).min(40);
    for (rank, score) in answer.top.iter().enumerate() {
        text += &format!(
            "\n  {:>2}  {:width$}  {:>9}  logit {:.3}",
            rank + 1,
            score.display_name,
            percent(f64::from(score.probability)),
            score.logit
        );
    }
    for near in &answer.neighbours {
        text += &format!(
            "\n  near  {}  ({}, similarity {:.4})",
            near.example_id, near.display_name, near.similarity
        );
    }
    printable(&text).into_owned()
}

type Sender = mpsc::Sender<Result<Entry, Failure>>;

/// Starts a thread that reads the inputs, one after the other, only as there
/// is room.
fn start(inputs: Vec<PathBuf>, limit: usize) -> mpsc::Receiver<Result<Entry, Failure>> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        for input in inputs {
            match read(&input, limit, &sender) {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => {
                    let _ = sender.blocking_send(Err(failure));
                    return;
                }
            }
        }
    });
    receiver
}

/// False when nobody listens any more.
fn read(input: &Path, limit: usize, sender: &Sender) -> Result<bool, Failure> {
    let file = |path: &Path| {
        let entry = Entry {
            id: path.display().to_string(),
            input: files::read(path, limit),
        };
        sender.blocking_send(Ok(entry)).is_ok()
    };
    if input.as_os_str() == "-" {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| Failure::Input(format!("standard input: {error}")))?;
            if !line.is_empty() && !file(Path::new(&line)) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if input.is_dir() {
        for path in files::walk(input) {
            if !file(&path?) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if input
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
    {
        files::existing(input, "the file")?;
        let mut listening = true;
        npz::Archive::open(input)?.rows("features", &mut |row, values| {
            let id = format!("{}#{row}", input.display());
            listening = sender
                .blocking_send(Ok(Entry {
                    id,
                    input: Ok(embedding(values)),
                }))
                .is_ok();
            listening
        })?;
        return Ok(listening);
    }
    Ok(file(input))
}
