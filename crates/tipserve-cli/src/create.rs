//! `tipserve create`: makes a version of a cache from labelled examples.

use std::path::PathBuf;

use clap::Args;

use crate::{
    about::{AboutArgs, ConditionArgs},
    connect::Connection,
    documents::VersionMadeDocument,
    examples::{self, DrawArgs, Examples},
    failure::{Completion, Failure},
    global::Global,
    head::{BalanceArg, ExifOrientationArg, KeyDtypeArg, MethodArg, NumbersArgs, template},
    labelled::Labelled,
    report,
    screen::Screen,
    source,
    version_call::{self, UploadOptions},
};
use tipserve_api::v1::{self, CacheSpec, cache_spec::OnRejected};

/// Flags of `tipserve create`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  tipserve create pets --from pets/train --shots 16 --val-shots 4
  tipserve create pets --from features.npz --method tip-adapter --label team=vision
  tipserve create pets --from pets/train --if-etag new   # only if it does not exist yet")]
pub struct CreateArgs {
    /// The cache's id: a-z, 0-9, '-', '_', '.'. A cache that exists gets a new
    /// version.
    pub cache: String,
    /// A folder with one folder a class; an .npz file with the arrays features
    /// [M,D], labels [M], classes [N] and, optionally, text_weights [N,D]; a
    /// .csv, .tsv or .jsonl file with a picture (image, path, file_name, …) and
    /// its class (label, class, category, …) in each row; or COCO's .json. With
    /// any number of labels a picture: a .csv file with the columns file and
    /// labels ("cat;dog"), or .jsonl lines {"file": …, "labels": […]}; the
    /// version is then of independent labels.
    #[arg(long, value_name = "DIR|FILE")]
    pub from: PathBuf,
    #[command(flatten)]
    pub draw: DrawArgs,
    /// The bundle to encode with: its name or fingerprint [default: the
    /// server's].
    #[arg(
        long,
        value_name = "BUNDLE",
        default_value = "",
        hide_default_value = true
    )]
    pub bundle: String,
    /// Prompt template, in which "{}" stands for the class; may be repeated
    /// [default: the bundle's own].
    #[arg(long, value_name = "TEXT", value_parser = template)]
    pub template: Vec<String>,
    /// Augmented views of each picture [default: the plain centre crop].
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(i32).range(1..=64))]
    pub views: Option<i32>,
    /// What to do with the orientation that cameras write beside the pixels.
    /// The version keeps to it, whatever it is asked later.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub exif_orientation: ExifOrientationArg,
    /// How to make the head; auto takes the best by validation or
    /// leave-one-out.
    #[arg(long, value_enum, default_value_t)]
    pub method: MethodArg,
    #[command(flatten)]
    pub numbers: NumbersArgs,
    /// Whether a class's affinities are added up or averaged [default: sum].
    #[arg(long, value_enum)]
    pub balance: Option<BalanceArg>,
    /// Ignore text: the cache alone decides.
    #[arg(long)]
    pub without_text: bool,
    /// Keep classes without a usable example; their text alone decides.
    #[arg(long)]
    pub allow_empty_classes: bool,
    /// Truncate prompts that are too long for the text encoder.
    #[arg(long)]
    pub truncate_prompts: bool,
    /// Number format of the keys in memory [default: f32].
    #[arg(long, value_enum)]
    pub key_dtype: Option<KeyDtypeArg>,
    #[command(flatten)]
    pub about: AboutArgs,
    /// Fail, and make nothing, if any example cannot be used.
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub condition: ConditionArgs,
}

pub async fn run(
    args: CreateArgs,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    args.draw.check()?;
    let all = source::open(&args.from, "--from", args.draw.names.as_deref())?;
    if !args.allow_empty_classes {
        examples::refuse_empty(&all, &args.from)?;
    }
    let drawn = Examples::draw(all, &args.draw, Ok, screen)?;
    examples::note_unused_templates(&args.template, &drawn.train, screen);
    let connection = Connection::open(global).await?;
    let made = create(&connection, &args, drawn, screen).await?;
    if screen.json {
        screen.document(&made)?;
    } else {
        report::made(screen, &made)?;
    }
    Ok(Completion::with_failed(made.rejected.len() as u64))
}

/// Makes the version over the API.
pub async fn create(
    connection: &Connection,
    args: &CreateArgs,
    examples: Examples,
    screen: &Screen,
) -> Result<VersionMadeDocument, Failure> {
    let options = UploadOptions {
        doing: format!("creating the cache {:?}", args.cache),
        id_prefix: String::new(),
        strict: args.strict,
        screen,
    };
    let spec = spec(args, &examples.train);
    version_call::run(connection, spec, examples, &options).await
}

fn spec(args: &CreateArgs, train: &Labelled) -> CacheSpec {
    CacheSpec {
        cache_id: args.cache.clone(),
        classes: version_call::class_specs(&train.classes, args.without_text),
        prompt_templates: args.template.clone(),
        method: args.method.number(),
        alpha: args.numbers.alpha,
        beta: args.numbers.beta,
        lambda: args.numbers.lambda,
        views: args.views.unwrap_or(0),
        seed: args.draw.seed,
        on_rejected: on_rejected(args.strict).into(),
        description: args.about.description.clone(),
        multi_label: train.is_multi_label(),
        labels: args.about.labels(),
        class_balance: args
            .balance
            .map_or(v1::ClassBalance::Unspecified, Into::into)
            .into(),
        grid: args.numbers.search_grid(),
        key_dtype: args
            .key_dtype
            .map_or(v1::KeyDtype::Unspecified, Into::into)
            .into(),
        without_text: args.without_text,
        truncate_prompts: args.truncate_prompts,
        allow_empty_classes: args.allow_empty_classes,
        created_by: args.about.creator(),
        etag: args.condition.if_etag.clone(),
        exif_orientation: v1::ExifOrientation::from(args.exif_orientation).into(),
        bundle: args.bundle.clone(),
        ..CacheSpec::default()
    }
}

/// What `--strict` asks the server to do.
pub fn on_rejected(strict: bool) -> OnRejected {
    if strict {
        OnRejected::Fail
    } else {
        OnRejected::Skip
    }
}
