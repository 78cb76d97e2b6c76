//! `tipserve classify`: classifies pictures, or rows of an .npz file.

use std::{
    cell::Cell,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use tokio::sync::mpsc;

use crate::{
    classify_stream::{self, InputItem, Reply, StreamOptions},
    connect::Connection,
    documents::{AnswerDocument, ReplyDocument},
    failure::{Completion, Failure},
    files,
    global::Global,
    lists::line_without_bom,
    npz,
    reject::RejectArgs,
    screen::{Screen, percent},
    terminal::escaped_line,
};
use tipserve_api::v1::{
    Classification, ClassifyOptions, ClassifyStreamConfig, PictureNote, Priority,
};

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
    /// How many of the best classes to show.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..))]
    pub top_k: i32,
    /// How many of the nearest cached examples to show.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=100))]
    pub neighbours: i32,
    /// Include all logits (with --json).
    #[arg(long)]
    pub logits: bool,
    /// Include all probabilities (with --json).
    #[arg(long)]
    pub probabilities: bool,
    /// Include the embedding (with --json).
    #[arg(long)]
    pub embedding: bool,
    /// Include how long each stage took (with --json).
    #[arg(long)]
    pub timings: bool,
    #[command(flatten)]
    pub rejecting: RejectArgs,
    /// Name the classes that hold the picture's with this probability.
    #[arg(long, value_name = "PROBABILITY")]
    pub coverage: Option<f64>,
    /// Print answers in the order of the files (the default).
    #[arg(long, overrides_with = "unordered")]
    pub ordered: bool,
    /// Print answers as they are ready.
    #[arg(long, overrides_with = "ordered")]
    pub unordered: bool,
    /// Most items in flight at once.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub in_flight: u32,
    /// Give up an item that is not answered within this time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub time_limit: Option<Duration>,
    /// Run as offline work, which yields to interactive work.
    #[arg(long)]
    pub bulk: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value = text.parse::<f64>().ok().filter(|value| *value > 0.0);
    value
        .and_then(|value| Duration::try_from_secs_f64(value).ok())
        .ok_or_else(|| "must be a number over 0".to_owned())
}

/// A time limit as the wire has it.
fn time_limit(limit: Option<Duration>) -> Result<Option<prost_types::Duration>, Failure> {
    limit
        .map(|limit| {
            limit.try_into().map_err(|_| {
                Failure::Usage(format!("--time-limit {} is too long", limit.as_secs_f64()))
            })
        })
        .transpose()
}

pub async fn run(
    args: ClassifyArgs,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    let connection = Connection::open(global).await?;
    let options = StreamOptions {
        window: args.in_flight as usize,
        limit: connection.message_limit().await?,
        time_limit: time_limit(args.time_limit)?,
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
            reject: args.rejecting.options(),
            coverage: args.coverage,
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
    let (replies, failed) = (Cell::new(0_u64), Cell::new(0_u64));
    classify_stream::classify(
        &connection,
        config,
        &options,
        start(args.inputs, options.limit),
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
        screen.error(&format!("{} of {} failed", failed.get(), replies.get()));
    }
    Ok(Completion::with_failed(failed.get()))
}

fn print(screen: &Screen, reply: Reply) -> Result<(), Failure> {
    if screen.json {
        let (answer, error) = match reply.outcome {
            Ok(answer) => (Some(AnswerDocument::from(answer)), None),
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
            screen.line(&format!(
                "{}\n  error: {} [{reason}]",
                escaped_line(&reply.id),
                escaped_line(&error.message)
            ))
        }
    }
}

/// An answer as a block of lines: the file, its classes, its neighbours.
pub fn described(id: &str, answer: &Classification) -> String {
    let mut text = escaped_line(id).into_owned();
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
            escaped_line(&score.display_name),
            percent(f64::from(score.probability)),
            score.logit
        );
    }
    if let (Some(accepted), Some(score)) = (answer.accepted, answer.score) {
        // By `--precision` an answer may be rejected that is of one of the classes.
        let said = if accepted { "accepted" } else { "rejected" };
        let threshold = answer.threshold.unwrap_or(f64::NEG_INFINITY);
        text += &format!("\n  {said}: score {score:.3}, threshold {threshold:.3}");
    }
    if !answer.labels.is_empty() {
        let names: Vec<_> = (answer.labels.iter())
            .map(|class| escaped_line(&class.display_name))
            .collect();
        text += &format!("\n  labels: {}", names.join(", "));
    }
    if !answer.prediction_set.is_empty() {
        let names: Vec<_> = (answer.prediction_set.iter())
            .map(|class| escaped_line(&class.display_name))
            .collect();
        text += &format!("\n  one of: {}", names.join(", "));
    }
    for near in &answer.neighbours {
        text += &format!(
            "\n  near  {}  ({}, similarity {:.4})",
            escaped_line(&near.example_id),
            escaped_line(&near.display_name),
            near.similarity
        );
    }
    if answer.notes().any(|note| note == PictureNote::NoEndMark) {
        text += "\n  note  its file has every pixel and lacks its end mark: was it cut off?";
    }
    text
}

type Sender = mpsc::Sender<Result<InputItem, Failure>>;

/// Starts a thread that reads the inputs, one after the other, only as there
/// is room for them (backpressure).
fn start(inputs: Vec<PathBuf>, limit: usize) -> mpsc::Receiver<Result<InputItem, Failure>> {
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

/// Gives the files that a list names, one a line, to `file` until that says
/// false. Names need not be UTF-8.
fn read_list(mut list: impl io::BufRead, file: impl Fn(&Path) -> bool) -> Result<bool, Failure> {
    let mut line = Vec::new();
    let mut first = true;
    loop {
        line.clear();
        let read = list.read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::Input(format!("standard input: {error}")))? == 0 {
            return Ok(true);
        }
        let name = line.strip_suffix(b"\n").unwrap_or(&line);
        let name = name.strip_suffix(b"\r").unwrap_or(name);
        let name = if first { line_without_bom(name) } else { name };
        first = false;
        if !name.is_empty() && !file(Path::new(OsStr::from_bytes(name))) {
            return Ok(false);
        }
    }
}

/// False once nobody takes the items any more.
fn read(input: &Path, limit: usize, sender: &Sender) -> Result<bool, Failure> {
    let file = |path: &Path| {
        let item = InputItem {
            id: files::readable(path),
            input: files::read(path, limit),
        };
        sender.blocking_send(Ok(item)).is_ok()
    };
    if input.as_os_str() == "-" {
        return read_list(io::stdin().lock(), file);
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
            let id = format!("{}#{row}", files::readable(input));
            listening = sender
                .blocking_send(Ok(InputItem {
                    id,
                    input: Ok(npz::embedding(values)),
                }))
                .is_ok();
            listening
        })?;
        return Ok(listening);
    }
    Ok(file(input))
}
