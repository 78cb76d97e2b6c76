//! `tipserve analyze`: what a version's own examples say of it.

use clap::Args;

use crate::{
    connect::Connection,
    documents::AnalysisDocument,
    failure::{Completion, Failure},
    global::Global,
    report,
    screen::Screen,
};
use tipserve_api::v1::AnalyzeVersionRequest;

/// Flags of `tipserve analyze`.
#[derive(Clone, Debug, Args)]
pub struct AnalyzeArgs {
    /// The version: CACHE, CACHE@VERSION or CACHE@ALIAS.
    #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: String,
    /// Most entries of each list.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub limit: i32,
    /// Cosine similarity from which two examples are near-duplicates [default:
    /// by the examples themselves].
    #[arg(long, value_name = "COSINE")]
    pub duplicate_similarity: Option<f64>,
    /// Random subsets at each point of the learning curve.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..=50))]
    pub draws: i32,
    /// Seed of these subsets.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Say from which probability on each class's answers are right with this
    /// precision, and what recall is left.
    #[arg(long, value_name = "PRECISION", default_value_t = 0.95)]
    pub precision: f64,
}

pub async fn run(
    args: AnalyzeArgs,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    let connection = Connection::open(global).await?;
    let doing = format!("analyzing {:?}", args.cache);
    let request = AnalyzeVersionRequest {
        cache: args.cache,
        list_limit: args.limit,
        duplicate_similarity: args.duplicate_similarity,
        draws: args.draws,
        seed: args.seed,
        precision: Some(args.precision),
    };
    let mut client = connection.analysis();
    let answer = client.analyze_version(request).await;
    let answer = answer.map_err(|status| connection.failure(&doing, status))?;
    let document = AnalysisDocument::new(answer.into_inner())?;
    if screen.json {
        screen.document(&document)?;
    } else {
        report::analyzed(screen, &document)?;
    }
    Ok(Completion::Done)
}
