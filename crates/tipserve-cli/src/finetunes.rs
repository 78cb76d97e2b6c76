//! `tipserve finetunes …`: the server's fine-tuning runs.

use clap::Subcommand;

use super::{
    Global,
    connect::Connection,
    documents::RunDocument,
    failure::{Failure, Outcome},
    screen::{Screen, percent, table},
};
use tipserve_api::v1::{CancelFineTuneRequest, GetFineTuneRequest, ListFineTunesRequest};

/// `tipserve finetunes …`.
#[derive(Clone, Debug, Subcommand)]
pub enum FineTunesCommand {
    /// List runs: waiting, running, lately ended; newest first.
    List {
        /// Only runs of this cache.
        #[arg(long, value_name = "CACHE")]
        cache: Option<String>,
    },
    /// Show one run.
    Show {
        /// Its name: "fineTunes/ID" or "ID".
        run: String,
    },
    /// Cancel one run. One that has ended is left as it is.
    Cancel {
        /// Its name: "fineTunes/ID" or "ID".
        run: String,
    },
}

/// What `finetunes list --json` prints.
#[derive(serde::Serialize)]
struct RunsDocument {
    finetunes: Vec<RunDocument>,
}

/// Runs `tipserve finetunes …`.
pub async fn run(
    command: FineTunesCommand,
    global: &Global,
    screen: &Screen,
) -> Result<Outcome, Failure> {
    let connection = Connection::open(global).await?;
    let mut runs = connection.fine_tunes();
    match command {
        FineTunesCommand::List { cache } => list(&connection, cache, screen).await?,
        FineTunesCommand::Show { run } => {
            let answer = runs
                .get_fine_tune(GetFineTuneRequest { name: full(&run) })
                .await;
            let run = answer
                .map_err(|status| connection.failure(&format!("looking up {run:?}"), status))?;
            show(screen, run.into_inner().into())?;
        }
        FineTunesCommand::Cancel { run } => {
            let answer = runs
                .cancel_fine_tune(CancelFineTuneRequest { name: full(&run) })
                .await;
            let run = answer
                .map_err(|status| connection.failure(&format!("cancelling {run:?}"), status))?;
            show(screen, run.into_inner().into())?;
        }
    }
    Ok(Outcome::Done)
}

fn full(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("fineTunes/{name}")
    }
}

async fn list(
    connection: &Connection,
    cache: Option<String>,
    screen: &Screen,
) -> Result<(), Failure> {
    let mut finetunes: Vec<RunDocument> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListFineTunesRequest {
            cache: cache.clone().unwrap_or_default(),
            page_size: 100,
            page_token,
        };
        let page = connection.fine_tunes().list_fine_tunes(request).await;
        let page = page
            .map_err(|status| connection.failure("listing runs", status))?
            .into_inner();
        finetunes.extend(page.fine_tunes.into_iter().map(RunDocument::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if screen.json {
        return screen.document(&RunsDocument { finetunes });
    }
    let rows = finetunes
        .iter()
        .map(|run| {
            let epoch = run
                .progress
                .as_ref()
                .map(|at| format!("{}/{}", at.epoch, at.epochs));
            vec![
                run.name.clone(),
                run.state.clone(),
                run.parent.clone(),
                epoch.unwrap_or_default(),
                run.version
                    .as_ref()
                    .map(|it| it.name.clone())
                    .unwrap_or_default(),
                run.create_time.clone().unwrap_or_default(),
            ]
        })
        .collect();
    screen.line(&table(
        &["run", "state", "parent", "epoch", "version", "asked for"],
        &[3],
        rows,
    ))
}

fn show(screen: &Screen, run: RunDocument) -> Result<(), Failure> {
    if screen.json {
        return screen.document(&run);
    }
    let mut rows = vec![
        vec!["run".into(), run.name],
        vec!["state".into(), run.state],
        vec!["parent".into(), run.parent],
        vec!["asked for".into(), run.create_time.unwrap_or_default()],
    ];
    if let Some(end) = run.end_time {
        rows.push(vec!["ended".into(), end]);
    }
    if let Some(at) = run.progress {
        rows.push(vec![
            "epoch".into(),
            format!("{} of {}", at.epoch, at.epochs),
        ]);
        rows.push(vec!["loss".into(), format!("{:.4}", at.loss)]);
        rows.push(vec!["train".into(), percent(at.train_accuracy)]);
        if let Some(accuracy) = at.validation_accuracy {
            rows.push(vec!["validation".into(), percent(accuracy)]);
        }
    }
    if let Some(error) = run.error {
        rows.push(vec![
            "error".into(),
            format!("{} [{}]", error.message, error.code),
        ]);
    }
    if let Some(version) = run.version {
        rows.push(vec!["version".into(), version.name]);
        rows.push(vec![
            "alias moved".into(),
            if run.alias_moved { "yes" } else { "no" }.into(),
        ]);
    }
    screen.line(&table(&[], &[], rows))
}
