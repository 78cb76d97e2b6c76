//! Pictures with any number of labels each, listed in a file: CSV with the columns
//! `file` and `labels` ("cat;dog", may be empty), or JSON lines with the members
//! `file` and `labels` (`["cat", "dog"]`).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    class_names::refuse_control_characters,
    failure::Failure,
    files,
    labelled::{Example, Labelled, Place, Source, SourceClass},
    lists::read_text,
};

/// Separates the labels in a CSV field.
const SEPARATOR: char = ';';

/// One picture and its labels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    file: String,
    labels: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct CsvRow {
    file: String,
    #[serde(default)]
    labels: String,
}

/// Whether a CSV's columns are those of such a list.
pub(crate) fn is_csv(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let mut names: Vec<&str> = first.split(',').map(str::trim).collect();
    names.sort_unstable();
    names == ["file", "labels"]
}

/// Whether the first of some JSON lines is one of such a list.
pub(crate) fn is_lines(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty());
    first.is_some_and(|line| serde_json::from_str::<Row>(line).is_ok())
}

/// Lists the pictures of a file; their paths are relative to its folder. The
/// classes are the labels that occur, sorted.
pub(crate) fn open(path: &Path, flag: &str) -> Result<Labelled, Failure> {
    let text = read_text(path, flag)?;
    let wrong = |line: u64, why: &str| {
        Failure::Input(format!(
            "{flag} {}: line {line}: {why}",
            files::readable(path)
        ))
    };
    let rows = match is_csv(&text) {
        true => of_csv(&text).map_err(|(line, why)| wrong(line, &why))?,
        false => of_lines(&text).map_err(|(line, why)| wrong(line, &why))?,
    };
    let names: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| &row.labels)
        .map(String::as_str)
        .collect();
    let names: Vec<&str> = names.into_iter().collect();
    for name in &names {
        refuse_control_characters(name)
            .map_err(|why| Failure::Input(format!("{flag}: the label {name:?} {why}")))?;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let examples = rows
        .iter()
        .map(|row| {
            let labels = row.labels.iter().map(String::as_str);
            let labels: BTreeSet<usize> = labels
                .filter_map(|label| names.binary_search(&label).ok())
                .collect();
            Example {
                id: row.file.clone(),
                class: 0,
                labels: Some(labels.into_iter().collect()),
                place: Place::File(folder.join(&row.file)),
            }
        })
        .collect();
    Ok(Labelled {
        source: Source::Folder(PathBuf::new()),
        classes: names
            .iter()
            .map(|name| SourceClass {
                display_name: (*name).to_owned(),
                text_weight: None,
            })
            .collect(),
        examples,
    })
}

type Wrong = (u64, String);

fn of_csv(text: &str) -> Result<Vec<Row>, Wrong> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for row in reader.deserialize() {
        let row: CsvRow = row.map_err(|error| {
            let line = error.position().map_or(1, csv::Position::line);
            (line, error.to_string())
        })?;
        let labels = row.labels.split(SEPARATOR).map(str::trim);
        rows.push(Row {
            file: row.file,
            labels: labels
                .filter(|label| !label.is_empty())
                .map(str::to_owned)
                .collect(),
        });
    }
    Ok(rows)
}

fn of_lines(text: &str) -> Result<Vec<Row>, Wrong> {
    let lines = text.lines().zip(1_u64..);
    lines
        .filter(|(line, _)| !line.trim().is_empty())
        .map(|(line, number)| {
            serde_json::from_str(line).map_err(|error| (number, error.to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels_of(name: &str, text: &str) -> Result<(Vec<String>, Vec<Vec<usize>>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let found = open(&path, "--from").map_err(|error| error.to_string())?;
        let labels = found.examples.iter().map(|one| one.labels.clone().unwrap());
        assert!(
            found
                .examples
                .iter()
                .all(|one| { one.place == Place::File(folder.path().join(&one.id)) })
        );
        let names = found.class_names().into_iter().map(str::to_owned).collect();
        Ok((names, labels.collect()))
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv = "\u{feff}file,labels\na/1.jpg,dog;cat\n\"b,2.jpg\", cat \n3.jpg,\n";
        let lines = "{\"file\": \"a/1.jpg\", \"labels\": [\"dog\", \"cat\", \"dog\"]}\n\n\
                     {\"file\": \"b,2.jpg\", \"labels\": [\"cat\"]}\n\
                     {\"labels\": [], \"file\": \"3.jpg\"}\n";
        let expected = Ok((
            vec!["cat".to_owned(), "dog".to_owned()],
            vec![vec![0, 1], vec![0], vec![]],
        ));
        assert_eq!(labels_of("x.csv", csv), expected);
        assert_eq!(labels_of("x.jsonl", lines), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let error = labels_of("x.jsonl", "{\"file\": \"a\", \"labels\": []}\n[]").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        let error = labels_of("x.csv", "file,labels\na,b\n\"c\n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
    }
}
