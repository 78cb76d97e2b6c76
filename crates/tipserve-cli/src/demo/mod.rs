//! `tipserve demo`: from a folder of pictures to a served classifier, over
//! the API, in one command.

mod lessons;
mod local_server;
mod report;
mod speed;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    about::AboutArgs,
    class_names::match_classes,
    connect::Connection,
    create::{self, CreateArgs},
    documents::{ServerDocument, VersionDocument},
    evaluate,
    examples::{DrawArgs, Examples},
    failure::{Completion, Failure},
    files::readable,
    global::Global,
    head::MethodArg,
    labelled::Labelled,
    report::numbers,
    screen::Screen,
    source,
    terminal::escaped,
};
use lessons::Draw;
use local_server::LocalServer;
use report::DemoDocument;
use speed::Speed;
use tip_spec::Method;

/// Flags of `tipserve demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// One folder a class; or a folder with the folders "train" and "test",
    /// each with one folder a class.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Start a server with this bundle, on a free port with a temporary store,
    /// and stop it at the end [default: use --server].
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Examples of each class to learn from.
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub shots: u32,
    /// Seed of the draw.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// How many held-out pictures to classify, equally many of each class.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub pictures: u32,
    /// Prompt template; may be repeated [default: the bundle's own].
    #[arg(long, value_name = "TEXT")]
    pub template: Vec<String>,
    /// The cache to create.
    #[arg(long, value_name = "CACHE", default_value = "demo")]
    pub cache: String,
    /// Draws of examples to compare, the first with --seed; 1 shows that alone.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub draws: u32,
    /// Pictures in flight at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub in_flight: u32,
}

/// Pictures that are sent one at a time, to measure the latency of one; at most half of them.
const ALONE: usize = 50;

pub async fn run(args: DemoArgs, global: &Global, screen: &Screen) -> Result<Completion, Failure> {
    let (train, test) = pictures(&args)?;
    // Dropped at the end, whatever happens.
    let (_server, connection) = match &args.bundle {
        Some(bundle) => {
            say(
                screen,
                &format!("starting a server with {}", readable(bundle)),
            )?;
            let (server, connection) = LocalServer::start(bundle).await?;
            (Some(server), connection)
        }
        None => (None, Connection::open(global).await?),
    };
    let server = ServerDocument::new(connection.info().await?, connection.address());
    let classes: Vec<String> = train.class_names().into_iter().map(str::to_owned).collect();
    introduce(screen, &server, &classes, (&train, &test))?;

    let train_count = train.examples.len();
    let (tip, seconds) = make(
        &connection,
        &args,
        MethodArg::Named(Method::TipAdapter),
        &train,
        screen,
    )
    .await?;
    let (auto, _) = make(&connection, &args, MethodArg::Auto, &train, screen).await?;

    // Each picture is new to the server then: nothing is answered from its memory.
    let (first, others) = parts(&test, ALONE.min(test.examples.len() / 2));
    let version = name(&tip);
    let (mut replies, wall) = speed::classify(&connection, &version, 1, first, None).await?;
    let alone = Speed::of(&replies, wall, 1);
    let window = args.in_flight as usize;
    let (more, wall) = speed::classify(&connection, &version, window, others, None).await?;
    let speed = Speed::of(&more, wall, window);
    replies.extend(more);
    let caches = [name(&tip), name(&auto)];
    let scores = evaluate::evaluate(&connection, &caches, test.clone(), screen).await?;
    let top1 = |index: usize| scores.evaluations.get(index).map_or(0.0, |it| it.top1);
    let draws = draws(&connection, &args, screen).await?;
    let added_class = lessons::added_class(&connection, &args, (&train, &test), screen).await?;

    let outcome = DemoDocument {
        server,
        shots: args.shots,
        classes,
        train_count,
        test_count: replies.len() as u64,
        create_seconds: seconds,
        zero_shot_top1: scores.zero_shot_top1,
        tip_adapter_top1: top1(0),
        auto_top1: top1(1),
        draws,
        added_class,
        auto_head: auto.head,
        tip_adapter_head: tip.head,
        stream: speed,
        alone,
        failed: replies
            .iter()
            .filter(|reply| reply.outcome.is_err())
            .count(),
    };
    if screen.json {
        screen.document(&outcome)?;
    } else {
        report::print(screen, &outcome, &replies, &test)?;
        screen.line(&next(&args, &outcome.server.address))?;
    }
    Ok(Completion::with_failed(outcome.failed as u64))
}

/// Prints what the demo works with.
fn introduce(
    screen: &Screen,
    server: &ServerDocument,
    classes: &[String],
    (train, test): (&Labelled, &Labelled),
) -> Result<(), Failure> {
    say(
        screen,
        &format!(
            "server {} with the bundle {} on {} in {}",
            server.address, server.bundle.name, server.device, server.dtype
        ),
    )?;
    say(
        screen,
        &format!(
            "{} classes: {}; {} examples to learn from, {} held out\n",
            classes.len(),
            classes.join(", "),
            train.examples.len(),
            test.examples.len()
        ),
    )
}

/// One picture a class, and `--shots`, of several draws.
async fn draws(
    connection: &Connection,
    args: &DemoArgs,
    screen: &Screen,
) -> Result<Vec<Draw>, Failure> {
    let whole = args.data.join("train");
    let all = open(if whole.is_dir() { &whole } else { &args.data })?;
    let quiet = screen.without_lines();
    let mut draws = Vec::new();
    for shots in [1, args.shots] {
        if all.short_classes(shots as usize + 1).is_empty() {
            for number in 0..u64::from(args.draws) {
                let of = (args.seed.wrapping_add(number), shots);
                draws.push(lessons::draw(connection, args, &all, of, &quiet).await?);
            }
        }
    }
    Ok(draws)
}

/// What to try next, as commands that can be pasted.
fn next(args: &DemoArgs, address: &str) -> String {
    let (data, program) = (readable(&args.data), program());
    match &args.bundle {
        Some(bundle) => format!(
            "\nnext: a server that stays, and a classifier of your own folders, one for each class\n  \
             {program} serve --bundle {}\n  {program} create mine --from {data} --shots {}\n\
             the same in a browser, once it serves: http://127.0.0.1:50051/",
            readable(bundle),
            args.shots
        ),
        None => format!(
            "\nnext: your own folders, one for each class\n  {program} create mine --from {data} \
             --shots {} --server {address}",
            args.shots
        ),
    }
}

/// The program as it was called: a path, if it is not on the search path.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let path = called.filter(|called| called.components().count() > 1);
    path.map_or_else(|| "tipserve".to_owned(), |path| readable(&path))
}

fn say(screen: &Screen, text: &str) -> Result<(), Failure> {
    if screen.json {
        Ok(())
    } else {
        screen.line(&escaped(text))
    }
}

/// What to learn from, and what to classify: never the same pictures.
fn pictures(args: &DemoArgs) -> Result<(Labelled, Labelled), Failure> {
    let (train, test) = (args.data.join("train"), args.data.join("test"));
    let (train, rest) = if train.is_dir() && test.is_dir() {
        let train = open(&train)?;
        let test = open(&test)?;
        let (map, _) = match_classes(
            &test.class_names(),
            "test",
            &train.class_names(),
            "train",
            false,
        )?;
        let classes = train.classes.clone();
        (
            train.split(args.seed, args.shots as usize).0,
            test.renumber(&map, classes)?,
        )
    } else {
        open(&args.data)?.split(args.seed, args.shots as usize)
    };
    let each = (args.pictures as usize).div_ceil(train.classes.len().max(1));
    let (test, _) = rest.split(args.seed, each);
    if test.examples.is_empty() {
        return Err(Failure::Input(format!(
            "{} holds no more than the {} examples a class to learn from: nothing is left to \
             classify; take fewer --shots",
            readable(&args.data),
            args.shots
        )));
    }
    Ok((train, test))
}

/// The first `count` examples, and the others.
fn parts(labelled: &Labelled, count: usize) -> (Labelled, Labelled) {
    let mut first = labelled.clone();
    let mut others = labelled.clone();
    others.examples = first.examples.split_off(count);
    (first, others)
}

fn open(path: &Path) -> Result<Labelled, Failure> {
    let found = source::open(path, "--data", None)?;
    if let Some((name, _)) = found.short_classes(1).first() {
        return Err(Failure::Input(format!(
            "the folder of the class {name:?} in {} holds no file",
            readable(path)
        )));
    }
    Ok(found)
}

fn name(version: &VersionDocument) -> String {
    format!("{}@{}", version.cache, version.version)
}

async fn make(
    connection: &Connection,
    args: &DemoArgs,
    method: MethodArg,
    train: &Labelled,
    screen: &Screen,
) -> Result<(VersionDocument, f64), Failure> {
    let flags = CreateArgs {
        cache: args.cache.clone(),
        method,
        draw: DrawArgs {
            seed: args.seed,
            ..DrawArgs::default()
        },
        template: args.template.clone(),
        about: AboutArgs {
            description: "made by tipserve demo".to_owned(),
            ..AboutArgs::default()
        },
        ..CreateArgs::default()
    };
    let made = create::create(connection, &flags, Examples::drawn(train.clone()), screen).await?;
    let head = made.version.head.as_ref().map(numbers).unwrap_or_default();
    say(
        screen,
        &format!(
            "made {} in {:.2} s: {head}",
            name(&made.version),
            made.seconds
        ),
    )?;
    Ok((made.version, made.seconds))
}
