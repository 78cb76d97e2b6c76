//! `tipserve demo`: from a folder of pictures to a served classifier, over
//! the API, in one command.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use serde::Serialize;

use super::{
    Global,
    about::AboutArgs,
    classes::match_classes,
    classify::described,
    connect::Connection,
    create::{self, CreateArgs},
    demo_server::DemoServer,
    documents::{HeadDocument, ServerDocument, VersionDocument},
    evaluate,
    examples::{DrawArgs, Examples},
    failure::{Failure, Outcome},
    head::MethodArg,
    labelled::Labelled,
    load::{self, Part},
    report,
    screen::{Screen, percent, printable, table},
    window::{self, Entry, Flow, Reply},
};
use tipserve_api::v1::{ClassifyOptions, ClassifyStreamConfig};

/// Flags of `tipserve demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// One folder a class; or a folder with the folders "train" and "test",
    /// each with one folder a class.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Start a server of its own with this bundle, on a free port with a
    /// temporary store, and stop it at the end. Default: use --server.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Examples of each class to learn from.
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub shots: u32,
    /// Seed of the draw.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Held-out pictures to classify, in all; equally many of each class.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub pictures: u32,
    /// Prompt template; may be given many times. Default: the bundle's own.
    #[arg(long, value_name = "TEXT")]
    pub template: Vec<String>,
    /// The cache to make.
    #[arg(long, value_name = "CACHE", default_value = "demo")]
    pub cache: String,
    /// Pictures on their way at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub in_flight: u32,
}

/// Pictures that are sent one at a time to see the latency of one.
const ALONE: usize = 50;

/// What `demo --json` prints.
#[derive(Debug, Serialize)]
struct DemoDocument {
    server: ServerDocument,
    shots: u32,
    classes: Vec<String>,
    train_count: usize,
    test_count: u64,
    create_seconds: f64,
    zero_shot_top1: Option<f64>,
    tip_adapter_top1: f64,
    auto_top1: f64,
    auto_head: Option<HeadDocument>,
    tip_adapter_head: Option<HeadDocument>,
    stream: Speed,
    alone: Speed,
    failed: usize,
}

/// How fast pictures were answered.
#[derive(Debug, Serialize)]
struct Speed {
    in_flight: usize,
    pictures: usize,
    pictures_per_second: f64,
    p50_seconds: f64,
    p99_seconds: f64,
}

/// Runs `tipserve demo`.
pub async fn run(args: DemoArgs, global: &Global, screen: &Screen) -> Result<Outcome, Failure> {
    let (train, test) = pictures(&args)?;
    // Dropped at the end, however it comes.
    let (_server, connection) = match &args.bundle {
        Some(bundle) => {
            say(
                screen,
                &format!("starting a server with {}", bundle.display()),
            )?;
            let (server, connection) = DemoServer::start(bundle).await?;
            (Some(server), connection)
        }
        None => (None, Connection::open(global).await?),
    };
    let server = ServerDocument::of(connection.info().await?, connection.address());
    say(
        screen,
        &format!(
            "server {} with the bundle {} on {} in {}",
            server.address, server.bundle.name, server.device, server.dtype
        ),
    )?;
    let classes: Vec<String> = train.class_names().into_iter().map(str::to_owned).collect();
    say(
        screen,
        &format!(
            "{} classes: {}; {} examples to learn from, {} held out\n",
            classes.len(),
            classes.join(", "),
            train.examples.len(),
            test.examples.len()
        ),
    )?;

    let train_count = train.examples.len();
    let (tip, seconds) = make(&connection, &args, MethodArg::TipAdapter, &train, screen).await?;
    let (auto, _) = make(&connection, &args, MethodArg::Auto, &train, screen).await?;

    let (replies, wall) = stream(
        &connection,
        &tip,
        args.in_flight as usize,
        &test,
        usize::MAX,
    )
    .await?;
    let speed = Speed::of(&replies, wall, args.in_flight as usize);
    let (few, wall) = stream(&connection, &tip, 1, &test, ALONE).await?;
    let alone = Speed::of(&few, wall, 1);
    let caches = [name(&tip), name(&auto)];
    let scores = evaluate::evaluate(&connection, &caches, copy(&test), screen).await?;
    let top1 = |index: usize| scores.evaluations.get(index).map_or(0.0, |it| it.top1);

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
        print(screen, &outcome, &replies, &test)?;
    }
    Ok(Outcome::of(outcome.failed))
}

fn say(screen: &Screen, text: &str) -> Result<(), Failure> {
    if screen.json {
        Ok(())
    } else {
        screen.line(&printable(text))
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
            test.renumber(&map, classes),
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
            args.data.display(),
            args.shots
        )));
    }
    Ok((train, test))
}

fn open(path: &Path) -> Result<Labelled, Failure> {
    let found = Labelled::open(path, "--data", None)?;
    if let Some((name, _)) = found.short_classes(1).first() {
        return Err(Failure::Input(format!(
            "the folder of the class {name:?} in {} holds no file",
            path.display()
        )));
    }
    Ok(found)
}

fn copy(labelled: &Labelled) -> Labelled {
    Labelled {
        source: labelled.source.clone(),
        classes: labelled.classes.clone(),
        examples: labelled.examples.clone(),
    }
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
    let made = create::create(connection, &flags, Examples::of(copy(train)), screen).await?;
    let head = made
        .version
        .head
        .as_ref()
        .map(report::numbers)
        .unwrap_or_default();
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

/// Classifies the pictures, at most `count` of them, through ClassifyStream.
async fn stream(
    connection: &Connection,
    version: &VersionDocument,
    window: usize,
    test: &Labelled,
    count: usize,
) -> Result<(Vec<Reply>, f64), Failure> {
    let limit = connection.message_limit().await?;
    let mut labelled = copy(test);
    labelled.examples.truncate(count);
    let part = Part {
        labelled,
        validation: false,
        prefix: String::new(),
    };
    let mut loading = load::start(vec![part], limit);
    let (sender, entries) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(loaded) = loading.recv().await {
            let entry = loaded.map(|it| Entry {
                id: it.id,
                input: it.input,
            });
            if sender.send(entry).await.is_err() {
                return;
            }
        }
    });
    let config = ClassifyStreamConfig {
        cache: name(version),
        options: Some(ClassifyOptions {
            top_k: 3,
            neighbours: 3,
            ..ClassifyOptions::default()
        }),
        ordered: true,
        priority: 0,
    };
    let flow = Flow {
        window,
        limit,
        time_limit: None,
    };
    let mut replies = Vec::new();
    let started = Instant::now();
    window::classify(connection, config, &flow, entries, |reply| {
        replies.push(reply);
        Ok(())
    })
    .await?;
    Ok((replies, started.elapsed().as_secs_f64()))
}

impl Speed {
    fn of(replies: &[Reply], wall: f64, in_flight: usize) -> Self {
        let mut seconds: Vec<f64> = replies
            .iter()
            .filter(|it| it.outcome.is_ok())
            .map(|it| it.seconds)
            .collect();
        seconds.sort_by(f64::total_cmp);
        // Nearest rank.
        let at = |share: f64| {
            let rank = (share * seconds.len() as f64).ceil().max(1.0) as usize;
            seconds.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self {
            in_flight,
            pictures: seconds.len(),
            pictures_per_second: seconds.len() as f64 / wall.max(1e-9),
            p50_seconds: at(0.5),
            p99_seconds: at(0.99),
        }
    }

    fn row(&self, what: &str) -> Vec<String> {
        vec![
            what.to_owned(),
            self.pictures.to_string(),
            format!("{:.1}", self.pictures_per_second),
            format!("{:.1} ms", self.p50_seconds * 1e3),
            format!("{:.1} ms", self.p99_seconds * 1e3),
        ]
    }
}

fn print(
    screen: &Screen,
    outcome: &DemoDocument,
    replies: &[Reply],
    test: &Labelled,
) -> Result<(), Failure> {
    let method =
        |head: &Option<HeadDocument>| head.as_ref().map(report::numbers).unwrap_or_default();
    let rows = vec![
        vec![
            "zero-shot".into(),
            outcome
                .zero_shot_top1
                .map_or_else(|| "no text".into(), percent),
            "the class names alone".into(),
        ],
        vec![
            "Tip-Adapter".into(),
            percent(outcome.tip_adapter_top1),
            method(&outcome.tip_adapter_head),
        ],
        vec![
            "auto".into(),
            percent(outcome.auto_top1),
            method(&outcome.auto_head),
        ],
    ];
    let title = format!("{} shots", outcome.shots);
    screen.line("")?;
    screen.line(&table(&[&title, "accuracy", "head"], &[1], rows))?;
    let rows = vec![
        outcome.stream.row(&format!(
            "ClassifyStream, {} in flight",
            outcome.stream.in_flight
        )),
        outcome.alone.row("one at a time"),
    ];
    screen.line("")?;
    let headers = ["speed", "pictures", "pictures/s", "p50", "p99"];
    screen.line(&table(&headers, &[1, 2, 3, 4], rows))?;
    for reply in shown(replies, test) {
        if let Ok(answer) = &reply.outcome {
            screen.line("")?;
            let truth = usize::try_from(reply.index)
                .ok()
                .and_then(|index| test.examples.get(index))
                .and_then(|example| test.classes.get(example.class))
                .map_or_else(String::new, |class| format!(" (is {})", class.display_name));
            screen.line(&described(&format!("{}{truth}", reply.id), answer))?;
        }
    }
    if outcome.failed > 0 {
        screen.complaint(&format!("{} pictures failed", outcome.failed));
    }
    Ok(())
}

/// Two answers, of two classes where there are two.
fn shown<'a>(replies: &'a [Reply], test: &Labelled) -> Vec<&'a Reply> {
    let class = |reply: &Reply| {
        let index = usize::try_from(reply.index).ok()?;
        test.examples.get(index).map(|example| example.class)
    };
    let mut good = replies.iter().filter(|reply| reply.outcome.is_ok());
    let Some(first) = good.next() else {
        return Vec::new();
    };
    let rest: Vec<_> = good.collect();
    let other = rest
        .iter()
        .find(|reply| class(reply) != class(first))
        .or(rest.first());
    std::iter::once(first).chain(other.copied()).collect()
}
