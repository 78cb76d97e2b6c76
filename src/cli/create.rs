//! `tipserve create`: makes a version of a cache from labelled examples.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use clap::{Args, ValueEnum};
use prost::Message as _;
use serde::Serialize;

use super::{
    Global,
    batch::{self, Fed},
    classes::match_classes,
    connect::Connection,
    documents::{RejectedDocument, VersionDocument},
    failure::{Failure, Outcome},
    labelled::{Labelled, Source},
    load::{self, Part},
    report, requests,
    screen::Screen,
};
use crate::proto::v1::{
    self, CacheSpec, ClassSpec, CreateCacheRequest, Example, ExampleBatch, SearchGrid, cache_spec,
    create_cache_request::Payload, create_cache_response::Event, create_progress::Stage,
    search_grid,
};

/// Flags of `tipserve create`.
#[derive(Clone, Debug, Default, Args)]
pub struct CreateArgs {
    /// The cache's id: a-z, 0-9, '-', '_', '.'. A cache that is there gets a
    /// new version.
    pub cache: String,
    /// A folder with one folder a class, or an .npz file with the arrays
    /// features [M,D], labels [M], classes [N] and, if wanted, text_weights
    /// [N,D].
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub from: PathBuf,
    /// Display names of folders: lines "folder<TAB>display name". Default:
    /// the folder's name with '_' as ' '.
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// Draw so many examples of each class. Default: all.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub shots: Option<u32>,
    /// Seed of the draw and of the augmentation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Prompt template, "{}" stands for the class; may be given many times.
    /// Default: the bundle's own.
    #[arg(long, value_name = "TEXT", value_parser = template)]
    pub template: Vec<String>,
    /// Augmented views of each picture. Default: the plain centre crop.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(i32).range(1..=64))]
    pub views: Option<i32>,
    /// How to make the head; auto takes the best by validation or
    /// leave-one-out.
    #[arg(long, value_enum, default_value_t)]
    pub method: MethodArg,
    /// Weight of the cache, over 0. Default: chosen.
    #[arg(long, value_parser = positive)]
    pub alpha: Option<f64>,
    /// Sharpness, over 0. Default: chosen.
    #[arg(long, value_parser = positive)]
    pub beta: Option<f64>,
    /// Regularisation of ProKeR, over 0. Default: chosen.
    #[arg(long, value_parser = positive)]
    pub lambda: Option<f64>,
    /// The grid of α and β to search: the authors' own, or a wider one.
    #[arg(long, value_enum)]
    pub grid: Option<GridArg>,
    /// Largest β of the official grid, s_β. Default: 7.
    #[arg(long, value_name = "S", value_parser = positive)]
    pub beta_scale: Option<f64>,
    /// Largest α of the official grid, s_α. Default: 3.
    #[arg(long, value_name = "S", value_parser = positive)]
    pub alpha_scale: Option<f64>,
    /// Whether a class's affinities add up or are averaged. Default: sum.
    #[arg(long, value_enum)]
    pub balance: Option<BalanceArg>,
    /// Validation examples, in the forms that --from takes; classes are
    /// matched by display name.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub validation: Option<PathBuf>,
    /// Draw so many validation examples of each class: of --validation where
    /// given, else of those of --from that --shots left.
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u32).range(1..))]
    pub val_shots: Option<u32>,
    /// Ignore text altogether: the cache alone decides.
    #[arg(long)]
    pub without_text: bool,

    /// Keep classes that no usable example names, decided by their text alone.
    #[arg(long)]
    pub allow_empty_classes: bool,

    /// Cut prompts that are too long for the text encoder.
    #[arg(long)]
    pub truncate_prompts: bool,
    /// Number format of the keys when resident. Default: f32.
    #[arg(long, value_enum)]
    pub key_dtype: Option<KeyDtypeArg>,
    /// Free text about the version.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub description: String,
    /// A free label; may be given many times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Fail, and make nothing, if any example cannot be used.
    #[arg(long)]
    pub strict: bool,
}

/// `--method`.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum MethodArg {
    #[default]
    Auto,
    ZeroShot,
    TipAdapter,
    Gda,
    Proker,
    ClassMean,
}

/// `--grid`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum GridArg {
    Official,
    Wide,
}

/// `--balance`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum BalanceArg {
    Sum,
    Mean,
}

/// `--key-dtype`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[allow(missing_docs)]
pub enum KeyDtypeArg {
    F32,
    Bf16,
    F16,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("must be a number over 0".to_owned()),
    }
}

fn template(text: &str) -> Result<String, String> {
    if text.contains("{}") {
        Ok(text.to_owned())
    } else {
        Err("must hold {}, which stands for the class".to_owned())
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// What `create --json` prints.
#[derive(Debug, Serialize)]
pub struct CreateDocument {
    /// The finished version.
    pub version: VersionDocument,
    /// Examples that could not be used.
    pub rejected: Vec<RejectedDocument>,
    /// Examples read, validation ones included.
    pub example_count: u64,
    /// Classes that have fewer examples than --shots.
    pub short_classes: Vec<ShortClass>,
    /// From the first byte to the finished version.
    pub seconds: f64,
    /// Examples used over seconds.
    pub examples_per_second: f64,
}

/// A class with fewer examples than asked for.
#[derive(Debug, Serialize)]
pub struct ShortClass {
    display_name: String,
    example_count: usize,
}

/// Runs `tipserve create`.
pub async fn run(args: CreateArgs, global: &Global, screen: &Screen) -> Result<Outcome, Failure> {
    let examples = Examples::open(&args, screen)?;
    let connection = Connection::open(&global.server).await?;
    let made = create(&connection, &args, examples, screen).await?;
    if screen.json {
        screen.document(&made)?;
    } else {
        report::created(screen, &made)?;
    }
    Ok(Outcome::of(made.rejected.len()))
}

/// The examples of a cache to be made, drawn but not read.
#[derive(Debug)]
pub struct Examples {
    /// These become keys.
    pub train: Labelled,
    /// These choose numbers.
    pub validation: Option<Labelled>,
    /// Classes that have fewer than --shots.
    pub short: Vec<(String, usize)>,
}

impl Examples {
    /// Lists and draws as the flags say.
    pub fn open(args: &CreateArgs, screen: &Screen) -> Result<Self, Failure> {
        if args.val_shots.is_some() && args.shots.is_none() && args.validation.is_none() {
            return Err(Failure::Usage(
                "--val-shots needs --shots (then it draws of what --shots leaves) or --validation"
                    .to_owned(),
            ));
        }
        let all = Labelled::open(&args.from, "--from", args.names.as_deref())?;
        if matches!(all.source, Source::Folder(_)) && !args.allow_empty_classes {
            let empty = all.short_classes(1);
            if let Some((name, _)) = empty.first() {
                return Err(Failure::Input(format!(
                    "{} of the {} class folders in {} hold no file: the first is that of {name:?}",
                    empty.len(),
                    all.classes.len(),
                    args.from.display()
                )));
            }
        }
        let shots = args.shots.map_or(usize::MAX, |shots| shots as usize);
        let short = if args.shots.is_some() {
            all.short_classes(shots)
        } else {
            Vec::new()
        };
        let (train, rest) = all.split(args.seed, shots);
        let pool = match &args.validation {
            Some(path) => Some(matching(path, &train)?),
            None => args.val_shots.map(|_| rest),
        };
        let validation = match (pool, args.val_shots) {
            (Some(pool), Some(count)) => Some(pool.split(args.seed, count as usize).0),
            (pool, _) => pool,
        };
        let text = train
            .classes
            .iter()
            .any(|class| class.text_weight.is_some());
        if text && !args.template.is_empty() {
            screen.note("note: --template is not used: the file brings text_weights");
        }
        for (name, count) in short.iter().take(10) {
            screen.note(&format!(
                "note: class {name:?} has {count} of {shots} shots: all are used"
            ));
        }
        if short.len() > 10 {
            screen.note(&format!(
                "note: and {} classes more have fewer",
                short.len() - 10
            ));
        }
        Ok(Self {
            train,
            validation,
            short,
        })
    }

    /// Of examples that were drawn already.
    pub fn of(train: Labelled) -> Self {
        Self {
            train,
            validation: None,
            short: Vec::new(),
        }
    }
}

/// Validation examples with the training classes' indices.
fn matching(path: &std::path::Path, train: &Labelled) -> Result<Labelled, Failure> {
    let found = Labelled::open(path, "--validation", None)?;
    let (map, _) = match_classes(
        &found.class_names(),
        "--validation",
        &train.class_names(),
        "--from",
        matches!(found.source, Source::Npz(_)),
    )?;
    Ok(found.renumber(&map, train.classes.clone()))
}

/// Makes the version over the API.
pub async fn create(
    connection: &Connection,
    args: &CreateArgs,
    examples: Examples,
    screen: &Screen,
) -> Result<CreateDocument, Failure> {
    let limit = connection.message_limit().await?;
    let spec = CreateCacheRequest {
        payload: Some(Payload::Spec(spec(args, &examples.train))),
    };
    let size = spec.encoded_len();
    if size > limit {
        return Err(Failure::Input(format!(
            "the specification with {} classes (their names, prompts, text weights) takes {size} \
             bytes, but the server takes messages of at most {limit} bytes",
            examples.train.classes.len()
        )));
    }
    let Examples {
        train,
        validation,
        short,
    } = examples;
    let total = train.examples.len() + validation.as_ref().map_or(0, |it| it.examples.len());
    let mut parts = vec![Part {
        labelled: train,
        validation: false,
        prefix: "",
    }];
    if let Some(labelled) = validation {
        // Of a source of its own, whose ids may be those of --from.
        let prefix = if args.validation.is_some() {
            "validation/"
        } else {
            ""
        };
        parts.push(Part {
            labelled,
            validation: true,
            prefix,
        });
    }

    let started = Instant::now();
    let bar = screen.bar(Some(total as u64), "examples");
    let (requests, stream) = requests::channel();
    let doing = format!("creating the cache {:?}", args.cache);
    requests.send(spec).await;
    let feeding = tokio::spawn(batch::feed(
        load::start(parts, limit),
        requests,
        limit,
        args.strict,
        bar.clone(),
        example,
        |examples| CreateCacheRequest {
            payload: Some(Payload::Examples(ExampleBatch { examples })),
        },
    ));
    let failed = |status| connection.failure(&doing, status);
    let mut caches = connection.caches();
    let answering = async {
        let mut rejected = Vec::new();
        let mut version = None;
        let mut events = caches
            .create_cache(stream)
            .await
            .map_err(failed)?
            .into_inner();
        while let Some(answer) = events.message().await.map_err(failed)? {
            match answer.event {
                Some(Event::Progress(progress)) => bar.set_message(stage(progress.stage())),
                Some(Event::Rejected(example)) => rejected.push(RejectedDocument::from(example)),
                Some(Event::Version(made)) => version = Some(made),
                None => {}
            }
        }
        let version = version.ok_or_else(|| {
            Failure::Broken(format!(
                "{doing}: the server ended the call without a version"
            ))
        })?;
        Ok::<_, Failure>((version, rejected))
    };
    let (fed, (version, mut rejected)) = whole(feeding, answering).await?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let used = fed.sent.saturating_sub(rejected.len() as u64);
    rejected.extend(fed.rejected);
    Ok(CreateDocument {
        version: version.into(),
        rejected,
        example_count: total as u64,
        short_classes: short
            .into_iter()
            .map(|(display_name, example_count)| ShortClass {
                display_name,
                example_count,
            })
            .collect(),
        seconds,
        examples_per_second: used as f64 / seconds.max(1e-9),
    })
}

/// Waits for the feeding and the answer of a call. Where either fails, the
/// other is given up.
pub async fn whole<T>(
    feeding: tokio::task::JoinHandle<Result<Fed, Failure>>,
    answering: impl Future<Output = Result<T, Failure>>,
) -> Result<(Fed, T), Failure> {
    let stop = feeding.abort_handle();
    let feeding = async {
        feeding
            .await
            .map_err(|error| Failure::Broken(error.to_string()))?
    };
    let outcome = tokio::try_join!(feeding, answering);
    stop.abort();
    outcome
}

fn example(loaded: load::Loaded) -> Result<Example, (String, super::files::Unusable)> {
    match loaded.input {
        Ok(input) => Ok(Example {
            example_id: loaded.id,
            class_index: i32::try_from(loaded.class).unwrap_or(i32::MAX),
            input: Some(input),
            validation: loaded.validation,
        }),
        Err(why) => Err((loaded.id, why)),
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "",
        Stage::Text => "text",
        Stage::Examples => "examples",
        Stage::Selection => "choosing",
        Stage::Storing => "storing",
    }
}

fn spec(args: &CreateArgs, train: &Labelled) -> CacheSpec {
    let classes = train
        .classes
        .iter()
        .map(|class| ClassSpec {
            display_name: class.display_name.clone(),
            prompts: Vec::new(),
            text_weight: class
                .text_weight
                .clone()
                .filter(|_| !args.without_text)
                .map(|values| v1::Embedding { values }),
        })
        .collect();
    let method = match args.method {
        MethodArg::Auto => v1::Method::Auto,
        MethodArg::ZeroShot => v1::Method::ZeroShot,
        MethodArg::TipAdapter => v1::Method::TipAdapter,
        MethodArg::Gda => v1::Method::Gda,
        MethodArg::Proker => v1::Method::Proker,
        MethodArg::ClassMean => v1::Method::ClassMean,
    };
    let on_rejected = if args.strict {
        cache_spec::OnRejected::Fail
    } else {
        cache_spec::OnRejected::Skip
    };
    CacheSpec {
        cache_id: args.cache.clone(),
        classes,
        prompt_templates: args.template.clone(),
        method: method.into(),
        alpha: args.alpha,
        beta: args.beta,
        lambda: args.lambda,
        views: args.views.unwrap_or(0),
        seed: args.seed,
        on_rejected: on_rejected.into(),
        description: args.description.clone(),
        labels: args.label.iter().cloned().collect::<HashMap<_, _>>(),
        class_balance: args
            .balance
            .map_or(v1::ClassBalance::Unspecified, |balance| match balance {
                BalanceArg::Sum => v1::ClassBalance::Sum,
                BalanceArg::Mean => v1::ClassBalance::Mean,
            })
            .into(),
        grid: grid(args.grid, args.beta_scale, args.alpha_scale),
        key_dtype: args
            .key_dtype
            .map_or(v1::KeyDtype::Unspecified, |dtype| match dtype {
                KeyDtypeArg::F32 => v1::KeyDtype::F32,
                KeyDtypeArg::Bf16 => v1::KeyDtype::Bf16,
                KeyDtypeArg::F16 => v1::KeyDtype::F16,
            })
            .into(),
        without_text: args.without_text,
        allow_empty_classes: args.allow_empty_classes,
        truncate_prompts: args.truncate_prompts,
        ..Default::default()
    }
}

/// The grid that the flags ask for; a scale alone asks for the official one.
pub fn grid(
    grid: Option<GridArg>,
    beta_scale: Option<f64>,
    alpha_scale: Option<f64>,
) -> Option<SearchGrid> {
    let scaled = beta_scale.is_some() || alpha_scale.is_some();
    let kind = match grid {
        Some(GridArg::Wide) => search_grid::Kind::Wide,
        Some(GridArg::Official) => search_grid::Kind::Official,
        None if scaled => search_grid::Kind::Official,
        None => return None,
    };
    Some(SearchGrid {
        kind: kind.into(),
        beta_scale: beta_scale.unwrap_or(0.0),
        alpha_scale: alpha_scale.unwrap_or(0.0),
    })
}
