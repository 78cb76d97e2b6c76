//! `tipserve finetunes …`: the server's fine-tuning runs.

use clap::Subcommand;

use crate::{
    connect::Connection,
    documents::RunDocument,
    failure::{Completion, Failure},
    global::Global,
    screen::{Screen, percent, table},
};
use tipserve_api::v1::{CancelFineTuneRequest, GetFineTuneRequest, ListFineTunesRequest};

/// `tipserve finetunes …`.
#[derive(Clone, Debug, Subcommand)]
pub enum FineTunesCommand {
    /// List runs: queued, running, and recently ended ones, newest first.
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
    /// Cancel one run. A run that has ended stays as it is.
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

pub async fn run(
    command: FineTunesCommand,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    let connection = Connection::open(global).await?;
    let mut runs = connection.fine_tunes();
    match command {
        FineTunesCommand::List { cache } => list(&connection, cache, screen).await?,
        FineTunesCommand::Show { run } => {
            let call = runs.get_fine_tune(GetFineTuneRequest { name: full(&run) });
            let run = connection
                .unary(&format!("looking up {run:?}"), call)
                .await?;
            show(screen, run.into())?;
        }
        FineTunesCommand::Cancel { run } => {
            let call = runs.cancel_fine_tune(CancelFineTuneRequest { name: full(&run) });
            let run = connection
                .change(&format!("cancelling {run:?}"), call)
                .await?;
            show(screen, run.into())?;
        }
    }
    Ok(Completion::Done)
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
    let mut client = connection.fine_tunes();
    let mut page_token = String::new();
    loop {
        let request = ListFineTunesRequest {
            cache: cache.clone().unwrap_or_default(),
            page_size: 100,
            page_token,
        };
        let page = connection
            .unary("listing runs", client.list_fine_tunes(request))
            .await?;
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
        &["run", "state", "parent", "epoch", "version", "requested"],
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
        vec!["requested".into(), run.create_time.unwrap_or_default()],
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
