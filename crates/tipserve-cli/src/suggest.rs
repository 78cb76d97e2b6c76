//! `tipserve suggest`: which of many unlabelled pictures to label first.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{
    connect::Connection,
    documents::SuggestionsDocument,
    failure::{Completion, Failure},
    files::Unusable,
    global::Global,
    labelled::Labelled,
    reader::{self, LoadedExample, Part},
    report, requests,
    screen::Screen,
    unlabelled,
    upload::{self, Upload},
};
use tipserve_api::v1::{
    SuggestExamplesConfig, SuggestExamplesRequest, UnlabelledBatch, UnlabelledItem,
    suggest_examples_config::Strategy, suggest_examples_request::Payload,
};

/// Flags of `tipserve suggest`.
#[derive(Clone, Debug, Args)]
pub struct SuggestArgs {
    /// Picture files and folders (walked), or one .npz file with `features`.
    #[arg(required = true, value_name = "FILE|DIR|FILE.npz")]
    pub files: Vec<PathBuf>,
    /// The version whose examples are labelled already [default: nothing is].
    #[arg(long, value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: Option<String>,
    /// The bundle to encode with, where no version is named: its name or
    /// fingerprint [default: the server's].
    #[arg(
        long,
        value_name = "BUNDLE",
        default_value = "",
        hide_default_value = true
    )]
    pub bundle: String,
    /// How many pictures to suggest.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub count: i32,
    /// What to go by [default: by how many examples the classes have].
    #[arg(long, value_enum)]
    pub strategy: Option<StrategyArg>,
    /// Cosine similarity from which two pictures are near-duplicates [default:
    /// by the pictures themselves].
    #[arg(long, value_name = "COSINE")]
    pub duplicate_similarity: Option<f64>,
    /// Seed of the clustering.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

/// What a suggestion goes by.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StrategyArg {
    /// Typical pictures of groups that hold no label.
    Typical,
    /// Pictures that the version is undecided on.
    Margin,
}

pub async fn run(
    args: SuggestArgs,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    let pool = unlabelled::open(&args.files)?;
    if pool.examples.is_empty() {
        return Err(Failure::Input("there is no picture to suggest".to_owned()));
    }
    let connection = Connection::open(global).await?;
    let document = suggest(&connection, args, pool, screen).await?;
    if screen.json {
        screen.document(&document)?;
    } else {
        report::suggested(screen, &document)?;
    }
    Ok(Completion::with_failed(
        document.rejected_count.max(0).unsigned_abs(),
    ))
}

async fn suggest(
    connection: &Connection,
    args: SuggestArgs,
    pool: Labelled,
    screen: &Screen,
) -> Result<SuggestionsDocument, Failure> {
    let doing = "choosing pictures to label";
    let limit = connection.message_limit().await?;
    let bar = screen.bar(Some(pool.examples.len() as u64), "sent");
    let (requests, stream) = requests::channel();
    let strategy = match args.strategy {
        None => Strategy::Unspecified,
        Some(StrategyArg::Typical) => Strategy::Typical,
        Some(StrategyArg::Margin) => Strategy::Margin,
    };
    let config = SuggestExamplesConfig {
        cache: args.cache.unwrap_or_default(),
        count: args.count,
        strategy: strategy as i32,
        duplicate_similarity: args.duplicate_similarity,
        seed: args.seed,
        bundle: args.bundle,
    };
    requests
        .send(SuggestExamplesRequest {
            payload: Some(Payload::Config(config)),
        })
        .await;
    let part = Part {
        labelled: pool,
        purpose: crate::labelled::Purpose::Training,
        prefix: String::new(),
    };
    let sent = bar.clone();
    let upload = Upload {
        item,
        message: |items| SuggestExamplesRequest {
            payload: Some(Payload::Items(UnlabelledBatch { items })),
        },
        limit,
        strict: false,
        progress: Box::new(move |_| sent.inc(1)),
    };
    let upload = tokio::spawn(upload.run(reader::start(vec![part], limit), requests));
    let mut client = connection.analysis();
    let answer = async {
        let answer = client.suggest_examples(stream).await;
        answer.map_err(|status| connection.failure(doing, status))
    };
    let (uploaded, answer) = upload::with_answer(upload, answer).await?;
    bar.finish_and_clear();
    Ok(SuggestionsDocument::new(
        answer.into_inner(),
        uploaded.rejected,
    ))
}

fn item(mut loaded: LoadedExample) -> Result<UnlabelledItem, (String, Unusable)> {
    match loaded.content() {
        Ok((_, input)) => Ok(UnlabelledItem {
            id: loaded.id,
            input: Some(input),
        }),
        Err(why) => Err((loaded.id, why)),
    }
}
