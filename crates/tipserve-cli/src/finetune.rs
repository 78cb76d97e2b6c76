//! `tipserve finetune`: fine-tunes a version, if that is better.

use std::{cell::RefCell, time::Duration};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use crate::{
    connect::Connection,
    documents::RunDocument,
    failure::{Completion, Failure},
    global::Global,
    head::{GridArg, grid},
    report,
    screen::{Screen, number, percent},
};
use tipserve_api::v1::{
    CancelFineTuneRequest, FineTuneProgress, FineTuneRecipe, FineTuneRequest, FineTuneRun,
    fine_tune_request, fine_tune_response::Event, fine_tune_run::State,
};

/// Flags of `tipserve finetune`.
#[derive(Clone, Debug, Args)]
pub struct FineTuneArgs {
    /// The version to start from: CACHE, CACHE@VERSION or CACHE@ALIAS.
    #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: String,
    /// What to train: a residual on the version's own head, kept only where it
    /// does better on examples that it has not seen, or the keys, as
    /// Tip-Adapter-F's authors do it [default: residual; tip-adapter-f where one
    /// of the numbers below is given].
    #[arg(long, value_enum)]
    pub recipe: Option<RecipeArg>,
    /// Passes over the examples [default: 20].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub epochs: Option<i32>,
    /// Learning rate of AdamW [default: 0.001].
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Examples of a step [default: 256].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub batch: Option<i32>,
    /// How the learning rate changes [default: cosine].
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleArg>,
    /// Weight decay of AdamW [default: 0.01].
    #[arg(long, value_name = "DECAY")]
    pub weight_decay: Option<f64>,
    /// Seed of every random choice [default: 1].
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Stop after this many epochs without improvement [default: never].
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(i32).range(1..))]
    pub patience: Option<i32>,
    /// α while training [default: 1.17, the recipe's for most data sets].
    #[arg(long)]
    pub alpha: Option<f64>,
    /// β while training [default: 1].
    #[arg(long)]
    pub beta: Option<f64>,
    /// Grid on which α and β are searched afterwards [default: the version's].
    #[arg(long, value_enum)]
    pub grid: Option<GridArg>,
    /// Point this alias at the new version on success.
    #[arg(long, value_name = "ALIAS")]
    pub alias: Option<String>,
    /// Move the alias only if the score that chose the epoch improved.
    #[arg(long, requires = "alias")]
    pub only_if_improved: bool,
    /// Description of the new version.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub description: String,
    /// Start the run, print its name and return; see `tipserve finetunes`.
    #[arg(long)]
    pub detached: bool,
}

/// Values of `--recipe`, as the API names them.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum RecipeArg {
    Residual,
    TipAdapterF,
}

/// Values of `--schedule`, as the API names them.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum ScheduleArg {
    Cosine,
    Constant,
}

/// How long an interrupted command waits for its run to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `tipserve finetune` until it ends or `interrupted` does.
pub async fn run(
    args: FineTuneArgs,
    global: &Global,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Completion, Failure> {
    tokio::pin!(interrupted);
    let running = RefCell::new(None);
    let connection = tokio::select! {
        connection = Connection::open(global) => connection?,
        () = &mut interrupted => return Err(Failure::Interrupted),
    };
    tokio::select! {
        outcome = follow(&connection, &args, screen, &running) => return outcome,
        () = &mut interrupted => {}
    }
    // Closing the call cancels a run too; asking says whether it came in time.
    if let Some(name) = running.into_inner() {
        let mut runs = connection.fine_tunes();
        let cancelling = runs.cancel_fine_tune(CancelFineTuneRequest { name: name.clone() });
        match tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await {
            Ok(Ok(_)) => screen.note(&format!("cancelled {name}")),
            Ok(Err(status)) => {
                screen.error(&format!("cancelling {name}: {}", status.message()));
            }
            Err(_) => screen.error(&format!("cancelling {name}: no answer")),
        }
    }
    Err(Failure::Interrupted)
}

async fn follow(
    connection: &Connection,
    args: &FineTuneArgs,
    screen: &Screen,
    running: &RefCell<Option<String>>,
) -> Result<Completion, Failure> {
    let doing = format!("fine-tuning {:?}", args.cache);
    let failed = |status| connection.failure(&doing, status);
    let bar = screen.bar(Some(0), "steps");
    bar.set_message("starting");
    let mut latest: Option<FineTuneRun> = None;
    let mut events = connection
        .fine_tunes()
        .fine_tune(request(args))
        .await
        .map_err(failed)?
        .into_inner();
    while let Some(answer) = events.message().await.map_err(failed)? {
        match answer.event {
            Some(Event::Run(run)) => {
                *running.borrow_mut() = Some(run.name.clone());
                if run.state() == State::Queued {
                    bar.set_message("queued");
                }
                if args.detached {
                    bar.finish_and_clear();
                    return started(screen, run);
                }
                latest = Some(run);
            }
            Some(Event::Progress(progress)) => show(&bar, &progress),
            None => {}
        }
    }
    bar.finish_and_clear();
    let run = latest.ok_or_else(|| {
        Failure::Broken(format!("{doing}: the server ended the call without a run"))
    })?;
    ended(screen, run)
}

fn request(args: &FineTuneArgs) -> FineTuneRequest {
    let schedule = match args.schedule {
        None => fine_tune_request::Schedule::Unspecified,
        Some(ScheduleArg::Cosine) => fine_tune_request::Schedule::Cosine,
        Some(ScheduleArg::Constant) => fine_tune_request::Schedule::Constant,
    };
    FineTuneRequest {
        cache: args.cache.clone(),
        epochs: args.epochs.unwrap_or(0),
        learning_rate: args.lr,
        batch_size: args.batch.unwrap_or(0),
        schedule: schedule.into(),
        weight_decay: args.weight_decay,
        seed: args.seed,
        patience: args.patience.unwrap_or(0),
        move_alias: args.alias.clone().unwrap_or_default(),
        only_if_improved: args.only_if_improved,
        detached: args.detached,
        alpha: args.alpha,
        beta: args.beta,
        grid: grid(args.grid, None, None),
        description: args.description.clone(),
        recipe: match args.recipe {
            None => FineTuneRecipe::Unspecified,
            Some(RecipeArg::Residual) => FineTuneRecipe::Residual,
            Some(RecipeArg::TipAdapterF) => FineTuneRecipe::TipAdapterF,
        }
        .into(),
        ..FineTuneRequest::default()
    }
}

fn show(bar: &ProgressBar, progress: &FineTuneProgress) {
    bar.set_length(progress.steps.max(0).unsigned_abs());
    bar.set_position(progress.step.max(0).unsigned_abs());
    let mut text = format!(
        "epoch {}/{}  loss {:.4}  train {}",
        progress.epoch,
        progress.epochs,
        progress.loss,
        percent(progress.train_accuracy)
    );
    if let Some(accuracy) = progress.validation_accuracy {
        text += &format!("  validation {}", percent(accuracy));
    }
    text += &format!("  lr {}", number(progress.learning_rate));
    bar.set_message(text);
}

/// Reports a run that goes on without this command.
fn started(screen: &Screen, run: FineTuneRun) -> Result<Completion, Failure> {
    if screen.json {
        screen.document(&RunDocument::from(run))?;
    } else {
        screen.line(&format!("started {}", run.name))?;
        screen.note(&format!("see: tipserve finetunes show {}", run.name));
    }
    Ok(Completion::Done)
}

/// Reports how a run ended; a failed or cancelled one is a [`Failure`].
fn ended(screen: &Screen, run: FineTuneRun) -> Result<Completion, Failure> {
    let state = run.state();
    let run = RunDocument::from(run);
    match state {
        State::Succeeded => {
            if screen.json {
                screen.document(&run)?;
            } else {
                succeeded(screen, &run)?;
            }
            Ok(Completion::Done)
        }
        _ => {
            let why = run
                .error
                .as_ref()
                .map(|error| format!(": {} [{}]", error.message, error.code));
            Err(Failure::Broken(format!(
                "{} {}{}",
                run.name,
                run.state,
                why.unwrap_or_default()
            )))
        }
    }
}

fn succeeded(screen: &Screen, run: &RunDocument) -> Result<(), Failure> {
    let Some(version) = &run.version else {
        return Err(Failure::Broken(format!(
            "{} succeeded without a version",
            run.name
        )));
    };
    if run.unchanged {
        let outcome = run.outcome.as_deref().unwrap_or("nothing changed");
        screen.line(&format!("{}: {outcome}", run.parent))?;
        return Ok(());
    }
    screen.line(&format!(
        "made {}@{} from {}",
        version.cache, version.version, run.parent
    ))?;
    if let Some(record) = &version.fine_tune {
        screen.line(&report::tuned(record))?;
    }
    if let Some(head) = &version.head {
        screen.line(&format!("method {}", report::numbers(head)))?;
    }
    if run.alias_moved {
        screen.line("the alias was moved")?;
    }
    Ok(())
}
