//! Files that list pictures with the class of each: CSV, TSV, JSON lines, Parquet and COCO's JSON.
//! The Python client reads the same files, by the same rules.

mod coco;
mod columns;
mod parquet_file;
mod parquet_rows;
mod rows;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use tipserve_api::text::canonical;

use crate::{
    class_names::refuse_control_characters,
    failure::Failure,
    files,
    labelled::{Example, Labelled, Place, Source, SourceClass},
    lists::read_text,
    pull,
};
pub(crate) use parquet_file::ParquetPictures;
use rows::{Label, Picture, Row};

/// What a file is, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Columns, separated by commas, or by semicolons or tabs if its first line has more of them.
    Csv,
    /// Columns, separated by tabs.
    Tsv,
    /// A JSON object a line.
    Lines,
    /// COCO's annotations.
    Coco,
    /// Columns of Parquet, with the pictures themselves or their paths.
    Parquet,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Lines),
            "json" => Some(Self::Coco),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Lists the pictures of a file; paths begin at its folder. None if the end of its name says that
/// it is no such file.
pub(crate) fn open(path: &Path, flag: &str) -> Option<Result<Labelled, Failure>> {
    let kind = Kind::of(path)?;
    Some(listed(path, flag, kind))
}

fn listed(path: &Path, flag: &str, kind: Kind) -> Result<Labelled, Failure> {
    let wrong = |why: String| Failure::Input(format!("{flag} {}: {why}", files::readable(path)));
    if kind == Kind::Parquet {
        return parquet_file::listed(path).map_err(wrong);
    }
    let text = read_text(path, flag)?;
    let rows = match kind {
        Kind::Csv => rows::of_columns(&text, rows::delimiter(&text)),
        Kind::Tsv => rows::of_columns(&text, b'\t'),
        Kind::Lines => rows::of_lines(&text),
        Kind::Coco | Kind::Parquet => return coco::listed(path, &text).map_err(wrong),
    };
    labelled(path, rows.map_err(wrong)?, None).map_err(wrong)
}

/// The rows as examples. The classes are the file's own, or the names that occur, sorted, one for
/// all ways to write the same characters.
fn labelled(path: &Path, rows: Vec<Row>, own: Option<Vec<String>>) -> Result<Labelled, String> {
    let names = own.unwrap_or_else(|| {
        let names: BTreeSet<&str> = rows.iter().flat_map(|row| row.label.names()).collect();
        names.into_iter().map(str::to_owned).collect()
    });
    for name in &names {
        refuse_control_characters(name).map_err(|why| format!("the class {name:?} {why}"))?;
    }
    let places: HashMap<&str, usize> = (0..names.len())
        .filter_map(|index| Some((names.get(index)?.as_str(), index)))
        .collect();
    let index = |name: &str| {
        let found = places.get(name).copied();
        found.ok_or_else(|| format!("the class {name:?} is not one of its classes"))
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let examples = rows.iter().enumerate().map(|(position, row)| {
        let (class, labels) = match &row.label {
            Label::One(name) => (index(name)?, None),
            Label::Several(labels) => {
                let indices: Result<BTreeSet<usize>, String> =
                    labels.iter().map(|name| index(name)).collect();
                (0, Some(indices?.into_iter().collect()))
            }
        };
        let (place, id) = match &row.picture {
            Picture::Path(picture) => (Place::File(folder.join(picture)), picture.clone()),
            Picture::Address(address) => (Place::Address(address.clone()), address.clone()),
            Picture::Inline(address) => (Place::Inline(address.clone()), position.to_string()),
            Picture::Cell(row) => (Place::Row(*row), position.to_string()),
            Picture::Embedding(values) => (Place::Values(values.clone()), position.to_string()),
        };
        Ok(Example {
            id: row.id.clone().unwrap_or(id),
            class,
            labels,
            place,
        })
    });
    let examples: Result<Vec<Example>, String> = examples.collect();
    Ok(Labelled {
        source: Source::Table(path.to_owned()),
        examples: examples?,
        classes: classes(names),
    })
}

fn classes<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Vec<SourceClass> {
    let named = |name: N| SourceClass {
        display_name: name.into(),
        text_weight: None,
    };
    names.into_iter().map(named).collect()
}

/// A class's name as a table has it: without spaces around it, in NFC.
fn name_of(text: &str) -> String {
    canonical(text.trim()).into_owned()
}

/// Whether it is an address, such as "s3://bucket/cat.jpg", and not a path.
fn is_address(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|one| one.is_ascii_alphanumeric() || "+.-".contains(one))
    })
}

/// The picture at an address.
///
/// # Errors
/// The address is of a kind that is not read.
fn of_address(text: &str) -> Result<Picture, String> {
    if pull::is_readable(text) {
        return Ok(Picture::Address(text.to_owned()));
    }
    Err(format!(
        "{text} is an address of a kind that is not read: the command line reads https://, http:// \
         and s3://; the Python client reads others too (pip install 'tipserve[urls]')"
    ))
}

/// The folder of a file, "." written as nothing.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}
