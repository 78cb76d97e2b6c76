//! Labelled examples: a folder with one folder a class, or an .npz file.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    draw::{self, Drawable},
    failure::Failure,
    files, npz,
};

/// Labelled examples, listed but not yet read.
#[derive(Debug)]
pub struct Labelled {
    /// Where they are.
    pub source: Source,
    /// The classes, in the order of their indices.
    pub classes: Vec<SourceClass>,
    /// The examples, in the order in which they are read.
    pub examples: Vec<Pick>,
}

/// What examples come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A folder with one folder a class.
    Folder(PathBuf),
    /// An .npz file with embeddings.
    Npz(PathBuf),
}

/// A class as its source has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceClass {
    /// What people call it.
    pub display_name: String,
    /// Its text classifier row, where the source brings one.
    pub text_weight: Option<Vec<f32>>,
}

/// One example, not yet read.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// Path from the source's folder, or row of the source's array.
    pub id: String,
    /// Index into the source's classes.
    pub class: usize,
    /// Where it lies.
    pub place: Place,
}

/// Where an example lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A picture file.
    File(PathBuf),
    /// A row of `features`.
    Row(u64),
}

impl Drawable for Pick {
    fn id(&self) -> &str {
        &self.id
    }
    fn class(&self) -> usize {
        self.class
    }
}

impl Labelled {
    /// Lists what `path` holds. `names` (see [`read_names`]) overrides the
    /// display names of folders.
    pub fn open(path: &Path, flag: &str, names: Option<&Path>) -> Result<Self, Failure> {
        if files::existing(path, flag)?.is_dir() {
            let names = names.map(read_names).transpose()?.unwrap_or_default();
            return Self::open_folder(path, flag, names);
        }
        if names.is_some() {
            return Err(Failure::Usage(format!(
                "--names goes with a folder of pictures, and {} is a file",
                path.display()
            )));
        }
        npz::list(path)
    }

    fn open_folder(
        root: &Path,
        flag: &str,
        mut names: HashMap<String, String>,
    ) -> Result<Self, Failure> {
        let (folders, loose) = class_folders(root)?;
        if folders.is_empty() {
            let found = match loose {
                0 => "is empty".to_owned(),
                count => format!("holds {count} files but no folder"),
            };
            return Err(Failure::Input(format!(
                "{flag} {} {found}; it must hold one folder a class, with the class's pictures \
                 in it",
                root.display()
            )));
        }
        let mut classes = Vec::with_capacity(folders.len());
        let mut examples = Vec::new();
        for (class, folder) in folders.iter().enumerate() {
            let name = folder
                .file_name()
                .and_then(|name| name.to_str())
                .ok_or_else(|| {
                    Failure::Input(format!(
                        "the folder {} has a name that is not UTF-8",
                        folder.display()
                    ))
                })?;
            let display_name = names.remove(name).unwrap_or_else(|| name.replace('_', " "));
            classes.push(SourceClass {
                display_name,
                text_weight: None,
            });
            for path in files::walk(folder) {
                let path = path?;
                examples.push(Pick {
                    id: files::relative_id(root, &path),
                    class,
                    place: Place::File(path),
                });
            }
        }
        if let Some(unknown) = names.keys().min() {
            return Err(Failure::Input(format!(
                "--names names the folder {unknown:?}, but {} has none of that name",
                root.display()
            )));
        }
        Ok(Self {
            source: Source::Folder(root.to_owned()),
            classes,
            examples,
        })
    }

    /// Examples of each class.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for example in &self.examples {
            if let Some(count) = counts.get_mut(example.class) {
                *count += 1;
            }
        }
        counts
    }

    /// Display names of the classes that have fewer than `least` examples,
    /// with how many they have.
    pub fn short_classes(&self, least: usize) -> Vec<(String, usize)> {
        let names = self.classes.iter().map(|class| class.display_name.clone());
        names
            .zip(self.counts())
            .filter(|(_, count)| *count < least)
            .collect()
    }

    /// The classes' display names.
    pub fn class_names(&self) -> Vec<&str> {
        self.classes
            .iter()
            .map(|class| class.display_name.as_str())
            .collect()
    }

    /// Splits off the draw of `count` a class (see [`draw::split`]): first the
    /// drawn ones, then the rest.
    pub fn split(self, seed: u64, count: usize) -> (Self, Self) {
        let (drawn, rest) = draw::split(self.examples, seed, count);
        let part = |examples| Self {
            source: self.source.clone(),
            classes: self.classes.clone(),
            examples,
        };
        (part(drawn), part(rest))
    }

    /// Renumbers the classes: class c becomes `map[c]` of `classes`.
    pub fn renumber(mut self, map: &[usize], classes: Vec<SourceClass>) -> Self {
        for example in &mut self.examples {
            example.class = map.get(example.class).copied().unwrap_or(usize::MAX);
        }
        self.classes = classes;
        self
    }
}

/// The folders in `root` by name (byte order), hidden ones left out, and how
/// many files lie beside them.
fn class_folders(root: &Path) -> Result<(Vec<PathBuf>, usize), Failure> {
    let failed = |error| {
        Failure::Input(format!(
            "cannot read the folder {}: {error}",
            root.display()
        ))
    };
    let (mut folders, mut loose) = (Vec::new(), 0);
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else {
            loose += 1;
        }
    }
    folders.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok((folders, loose))
}

/// Reads lines "folder<TAB>display name"; empty lines and lines that begin
/// with '#' are skipped.
fn read_names(path: &Path) -> Result<HashMap<String, String>, Failure> {
    files::existing(path, "--names")?;
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Input(format!("--names {}: {error}", path.display())))?;
    let mut names = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| {
            Failure::Input(format!(
                "--names {} line {}: {why}",
                path.display(),
                index + 1
            ))
        };
        let (folder, name) = line
            .split_once('\t')
            .ok_or_else(|| wrong("is not \"folder<TAB>display name\""))?;
        if name.trim().is_empty() {
            return Err(wrong("has an empty display name"));
        }
        if names
            .insert(folder.to_owned(), name.trim().to_owned())
            .is_some()
        {
            return Err(wrong(&format!("names the folder {folder:?} a second time")));
        }
    }
    Ok(names)
}
