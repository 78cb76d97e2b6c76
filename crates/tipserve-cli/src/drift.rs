//! `tipserve drift`: how what a version is asked differs from its examples.

use clap::Args;

use crate::{
    connect::Connection,
    documents::DriftDocument,
    failure::{Completion, Failure},
    global::Global,
    report,
    screen::Screen,
};
use tipserve_api::v1::GetDriftRequest;

/// Flags of `tipserve drift`.
#[derive(Clone, Debug, Args)]
pub struct DriftArgs {
    /// The version: CACHE, CACHE@VERSION or CACHE@ALIAS.
    #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: String,
}

pub async fn run(args: DriftArgs, global: &Global, screen: &Screen) -> Result<Completion, Failure> {
    let connection = Connection::open(global).await?;
    let doing = format!("looking at the traffic of {:?}", args.cache);
    let mut client = connection.analysis();
    let request = GetDriftRequest { cache: args.cache };
    let drift = connection.unary(&doing, client.get_drift(request)).await?;
    let document = DriftDocument::from(drift);
    if screen.json {
        screen.document(&document)?;
    } else {
        report::drifted(screen, &document)?;
    }
    Ok(Completion::with_failed(0))
}
