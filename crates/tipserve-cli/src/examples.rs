//! Which examples a version is made from: those that the draw takes from a
//! source, and those that choose its numbers.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    class_names::match_classes,
    failure::Failure,
    files::readable,
    labelled::{Labelled, Source},
    screen::Screen,
    source, unlabelled,
};

/// Which examples to take from a source.
#[derive(Clone, Debug, Default, Args)]
pub struct DrawArgs {
    /// Display names of folders: lines "folder<TAB>display name" [default: the
    /// folder's name with '_' as ' '].
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// Draw this many examples of each class [default: all].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub shots: Option<u32>,
    /// Seed of the draw and of the augmentation.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Validation examples, in the forms that --from takes; classes are
    /// matched by display name.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub validation: Option<PathBuf>,
    /// Draw this many validation examples of each class: from --validation if
    /// it is given, otherwise from those of --from that --shots left.
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u32).range(1..))]
    pub val_shots: Option<u32>,
    /// Pictures of none of the classes (walked), or an .npz file's features: they
    /// sharpen what is rejected, and become no keys.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub unknown: Option<PathBuf>,
    /// Pictures without labels (walked), or an .npz file's features: what AUTO
    /// learns from, if that helps. Some may be of other classes. Nothing is kept
    /// of them but their features.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub unlabelled: Option<PathBuf>,
}

impl DrawArgs {
    /// Refuses flags that contradict each other.
    pub fn check(&self) -> Result<(), Failure> {
        if self.val_shots.is_some() && self.shots.is_none() && self.validation.is_none() {
            return Err(Failure::Usage(
                "--val-shots needs --shots (it then draws from what --shots leaves) or --validation"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// The examples of a version to be made, drawn but not read.
#[derive(Debug)]
pub(crate) struct Examples {
    /// Examples that become the version's keys.
    pub train: Labelled,
    /// Examples that its numbers are chosen on; none if there are none.
    pub validation: Option<Labelled>,
    /// Whether the validation examples come from a source of their own, which
    /// may use the ids of `train`.
    pub apart: bool,
    /// These are of none of the classes.
    pub unknown: Option<Labelled>,
    /// These have no label.
    pub unlabelled: Option<Labelled>,
    /// Classes that have fewer than --shots.
    pub short: Vec<(String, usize)>,
}

impl Examples {
    /// Draws from `all` as the flags say. `number` gives its classes their
    /// indices in the version.
    pub fn draw(
        all: Labelled,
        draw: &DrawArgs,
        number: impl FnOnce(Labelled) -> Result<Labelled, Failure>,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        draw.check()?;
        if all.is_multi_label() && (draw.shots.is_some() || draw.val_shots.is_some()) {
            return Err(Failure::Usage(
                "--shots and --val-shots draw of examples with one class each: a list of labels \
                 has any number"
                    .to_owned(),
            ));
        }
        let shots = draw.shots.map_or(usize::MAX, |shots| shots as usize);
        let short = if draw.shots.is_some() {
            all.short_classes(shots)
        } else {
            Vec::new()
        };
        let (train, rest) = number(all)?.split(draw.seed, shots);
        let pool = match &draw.validation {
            Some(path) => Some(matching(path, &train)?),
            None => draw.val_shots.map(|_| rest),
        };
        let validation = match (pool, draw.val_shots) {
            (Some(pool), Some(count)) => Some(pool.split(draw.seed, count as usize).0),
            (pool, _) => pool,
        };
        for (name, count) in short.iter().take(10) {
            screen.note(&format!(
                "note: class {name:?} has {count} of {shots} shots: all are used"
            ));
        }
        if short.len() > 10 {
            screen.note(&format!(
                "note: and {} more classes have fewer",
                short.len() - 10
            ));
        }
        Ok(Self {
            train,
            validation,
            apart: draw.validation.is_some(),
            unknown: draw
                .unknown
                .as_deref()
                .map(unlabelled::within)
                .transpose()?,
            unlabelled: (draw.unlabelled.as_deref())
                .map(unlabelled::within)
                .transpose()?,
            short,
        })
    }

    /// Examples that have been drawn already.
    pub fn drawn(train: Labelled) -> Self {
        Self {
            train,
            validation: None,
            apart: false,
            unknown: None,
            unlabelled: None,
            short: Vec::new(),
        }
    }
}

/// Refuses a folder with class folders that hold no file.
pub(crate) fn refuse_empty(all: &Labelled, path: &Path) -> Result<(), Failure> {
    if !matches!(all.source, Source::Folder(_)) {
        return Ok(());
    }
    let empty = all.short_classes(1);
    match empty.first() {
        None => Ok(()),
        Some((name, _)) => Err(Failure::Input(format!(
            "{} of the {} class folders in {} hold no file; the first is that of {name:?}",
            empty.len(),
            all.classes.len(),
            readable(path)
        ))),
    }
}

/// Notes that templates go unused if classes have text weights of their own.
pub(crate) fn note_unused_templates(templates: &[String], train: &Labelled, screen: &Screen) {
    let text = train
        .classes
        .iter()
        .any(|class| class.text_weight.is_some());
    if text && !templates.is_empty() {
        screen.note("note: --template is not used: the file brings text_weights");
    }
}

/// Validation examples with the training classes' indices.
fn matching(path: &Path, train: &Labelled) -> Result<Labelled, Failure> {
    let found = source::open(path, "--validation", None)?;
    let (map, _) = match_classes(
        &found.class_names(),
        "--validation",
        &train.class_names(),
        "the version to be made",
        matches!(found.source, Source::Npz(_)),
    )?;
    found.renumber(&map, train.classes.clone())
}
