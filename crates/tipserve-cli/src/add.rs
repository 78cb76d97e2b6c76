//! `tipserve add`: makes a version of a cache from an earlier one, with
//! examples and classes added and examples removed.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    about::{AboutArgs, ConditionArgs},
    class_names::match_or_new,
    connect::Connection,
    create::on_rejected,
    examples::{self, DrawArgs, Examples},
    failure::{Completion, Failure},
    files::readable,
    global::Global,
    head::{MethodArg, NumbersArgs, template},
    labelled::{Labelled, Source, SourceClass},
    lists, report,
    screen::Screen,
    source,
    version_call::{self, UploadOptions},
};
use tipserve_api::v1::{self, AddExamplesSpec, GetVersionRequest, Relabelled};

/// Flags of `tipserve add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tipserve add pets --from pets/more
  tipserve add pets@3 --from more.npz --no-new-classes
  tipserve add pets --remove cat/017.jpg --remove dog/002.jpg
  tipserve add pets --relabel cat/003.jpg=lynx")]
pub struct AddArgs {
    /// The version to start from: CACHE (its newest), CACHE@VERSION or
    /// CACHE@ALIAS. It stays as it is.
    #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: String,
    /// A folder with one folder a class, or an .npz file, as for create.
    /// Examples of a class that the version has are added to it; all others
    /// become new classes.
    #[arg(long, value_name = "DIR|FILE.npz", required_unless_present_any = ["validation", "unknown", "unlabelled", "drop_unlabelled", "remove", "remove_file", "relabel"])]
    pub from: Option<PathBuf>,
    /// Leave out the version's pictures without labels.
    #[arg(long)]
    pub drop_unlabelled: bool,
    /// Fail if --from has a class that the version does not have.
    #[arg(long)]
    pub no_new_classes: bool,
    /// Remove the example with this id; may be repeated.
    #[arg(long, value_name = "ID")]
    pub remove: Vec<String>,
    /// Remove the examples whose ids are the lines of this file.
    #[arg(long, value_name = "FILE")]
    pub remove_file: Option<PathBuf>,
    /// Give an example another class, one of the version's or a new one; may be
    /// repeated. Nothing is encoded again: its features and its picture stay.
    #[arg(long, value_name = "ID=CLASS", value_parser = relabelling)]
    pub relabel: Vec<(String, String)>,
    /// What the new examples' ids begin with [default: nothing for a folder,
    /// "NAME/" for the rows of NAME.npz].
    #[arg(long, value_name = "TEXT")]
    pub id_prefix: Option<String>,
    #[command(flatten)]
    pub draw: DrawArgs,
    /// Prompt template for new classes, in which "{}" stands for the class; may
    /// be repeated [default: the bundle's own].
    #[arg(long, value_name = "TEXT", value_parser = template)]
    pub template: Vec<String>,
    /// Leave out the text weights that the file has for new classes: for
    /// versions that were made without text.
    #[arg(long)]
    pub without_text: bool,
    /// How to make the head [default: as the version's, with its numbers chosen
    /// anew].
    #[arg(long, value_enum)]
    pub method: Option<MethodArg>,
    #[command(flatten)]
    pub numbers: NumbersArgs,
    /// Keep classes that are left without an example.
    #[arg(long)]
    pub allow_empty_classes: bool,
    /// Truncate prompts that are too long for the text encoder.
    #[arg(long)]
    pub truncate_prompts: bool,
    #[command(flatten)]
    pub about: AboutArgs,
    /// Fail, and make nothing, if any example cannot be used.
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub condition: ConditionArgs,
}

pub async fn run(args: AddArgs, global: &Global, screen: &Screen) -> Result<Completion, Failure> {
    args.draw.check()?;
    if args.draw.shots.is_some() && args.from.is_none() {
        return Err(Failure::Usage("--shots draws of --from".to_owned()));
    }
    let opened = match &args.from {
        Some(path) => Some(source::open(path, "--from", args.draw.names.as_deref())?),
        None => None,
    };
    let mut removed = args.remove.clone();
    if let Some(path) = &args.remove_file {
        removed.extend(read_ids(path)?);
    }
    let connection = Connection::open(global).await?;
    let doing = format!("adding to {:?}", args.cache);
    let request = GetVersionRequest {
        name: args.cache.clone(),
        read_mask: None,
    };
    let mut client = connection.caches();
    let base = connection
        .unary(&doing, client.get_version(request))
        .await?;

    let known: Vec<_> = base.classes.into_iter().map(named).collect();
    let old = known.len();
    let drawn = match opened {
        Some(all) => {
            let number = |all| number(all, &known, &args);
            Examples::draw(all, &args.draw, number, screen)?
        }
        None => {
            let nothing = Labelled {
                source: Source::Folder(PathBuf::new()),
                classes: known,
                examples: Vec::new(),
            };
            Examples::draw(nothing, &args.draw, Ok, screen)?
        }
    };
    examples::note_unused_templates(&args.template, &drawn.train, screen);
    let mut new = drawn.train.classes.get(old..).unwrap_or_default().to_vec();
    let (relabel, also_new) = relabelled(&args, &drawn.train.class_names())?;
    new.extend(also_new);
    let spec = AddExamplesSpec {
        relabel,
        remove_example_ids: removed,
        ..spec(&args, base.name, &new)
    };
    let options = UploadOptions {
        doing,
        id_prefix: id_prefix(&args),
        strict: args.strict,
        screen,
    };
    let made = version_call::run(&connection, spec, drawn, &options).await?;
    if screen.json {
        screen.document(&made)?;
    } else {
        report::made(screen, &made)?;
    }
    Ok(Completion::with_failed(made.rejected.len() as u64))
}

fn spec(args: &AddArgs, base: String, new_classes: &[SourceClass]) -> AddExamplesSpec {
    let unspecified = v1::Method::Unspecified.into();
    AddExamplesSpec {
        // By its number: an alias that moves meanwhile must not mix up classes.
        base,
        new_classes: version_call::class_specs(new_classes, args.without_text),
        prompt_templates: args.template.clone(),
        method: args.method.map_or(unspecified, MethodArg::number),
        alpha: args.numbers.alpha,
        beta: args.numbers.beta,
        lambda: args.numbers.lambda,
        seed: args.draw.seed,
        on_rejected: on_rejected(args.strict).into(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        grid: args.numbers.search_grid(),
        truncate_prompts: args.truncate_prompts,
        allow_empty_classes: args.allow_empty_classes,
        created_by: args.about.creator(),
        etag: args.condition.if_etag.clone(),
        drop_unlabelled: args.drop_unlabelled,
        ..AddExamplesSpec::default()
    }
}

/// Split at the last "=": ids may contain it, classes rarely do.
fn relabelling(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((id, class)) if !id.is_empty() && !class.is_empty() => {
            Ok((id.to_owned(), class.to_owned()))
        }
        _ => Err("expected ID=CLASS, such as cat/003.jpg=lynx".to_owned()),
    }
}

/// Examples that get another class, and the classes that are created for them.
fn relabelled(
    args: &AddArgs,
    known: &[&str],
) -> Result<(Vec<Relabelled>, Vec<SourceClass>), Failure> {
    let mut names: Vec<&str> = Vec::new();
    for (_, class) in &args.relabel {
        if !names.contains(&class.as_str()) {
            names.push(class);
        }
    }
    let mut new = Vec::new();
    let mut indices = HashMap::new();
    let matched = match_or_new(&names, "--relabel", known, &args.cache)?;
    for (name, matched) in names.into_iter().zip(matched) {
        if matched.is_none() && args.no_new_classes {
            return Err(Failure::Input(format!(
                "{} has no class {name:?} (--no-new-classes)",
                args.cache
            )));
        }
        let index = matched.unwrap_or(known.len() + new.len());
        if matched.is_none() {
            new.push(SourceClass {
                display_name: name.to_owned(),
                text_weight: None,
            });
        }
        let index = i32::try_from(index)
            .map_err(|_| Failure::Input(format!("{index} classes are too many")))?;
        indices.insert(name, index);
    }
    let relabel = args.relabel.iter().filter_map(|(id, class)| {
        Some(Relabelled {
            example_id: id.clone(),
            class_index: *indices.get(class.as_str())?,
            ..Relabelled::default()
        })
    });
    Ok((relabel.collect(), new))
}

fn named(class: v1::ClassInfo) -> SourceClass {
    SourceClass {
        display_name: class.display_name,
        text_weight: None,
    }
}

/// Gives the examples' classes their indices: those of the base's classes,
/// then those of new ones.
fn number(all: Labelled, known: &[SourceClass], args: &AddArgs) -> Result<Labelled, Failure> {
    let names: Vec<_> = known.iter().map(|it| it.display_name.as_str()).collect();
    let matched = match_or_new(&all.class_names(), "--from", &names, &args.cache)?;
    let mut classes = known.to_vec();
    let mut map = Vec::with_capacity(matched.len());
    let counts = all.counts();
    for ((class, count), known) in all.classes.iter().zip(counts).zip(matched) {
        let Some(index) = known else {
            if args.no_new_classes {
                return Err(Failure::Input(format!(
                    "--from has the class {:?}, which {} does not have (--no-new-classes)",
                    class.display_name, args.cache
                )));
            }
            if count == 0 && !args.allow_empty_classes {
                return Err(Failure::Input(format!(
                    "the new class {:?} of --from has no example",
                    class.display_name
                )));
            }
            map.push(classes.len());
            classes.push(class.clone());
            continue;
        };
        map.push(index);
    }
    all.renumber(&map, classes)
}

/// What new ids begin with. Rows count from 0 in every file, so that those of
/// two files would be the same ids.
fn id_prefix(args: &AddArgs) -> String {
    if let Some(prefix) = &args.id_prefix {
        return prefix.clone();
    }
    let draw = &args.draw;
    let source = args.from.as_ref().or(draw.validation.as_ref());
    let source = source.or(draw.unknown.as_ref());
    let source = source.or(draw.unlabelled.as_ref());
    match source {
        Some(path) if !path.is_dir() => path
            .file_stem()
            .map(|stem| format!("{}/", readable(stem)))
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// The lines of a file, without empty ones.
fn read_ids(path: &Path) -> Result<Vec<String>, Failure> {
    let text = lists::read_text(path, "--remove-file")?;
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}
