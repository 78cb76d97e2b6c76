//! The rows of CSV, TSV and JSON lines.

use serde_json::{Map, Value};

use super::{columns::Columns, is_address, name_of, of_address};
use crate::{files, inline_address};

/// One picture with its class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub id: Option<String>,
    pub picture: Picture,
    pub label: Label,
}

/// What a row has for a picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Picture {
    /// As it is written, from the table's folder.
    Path(String),
    Address(String),
    /// An address that is the picture itself.
    Inline(String),
    /// A row of the table that holds the picture itself.
    Cell(u64),
    Embedding(Vec<f32>),
}

/// A row's class, or any number of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    One(String),
    Several(Vec<String>),
}

impl Label {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        };
        names.iter().map(String::as_str)
    }
}

/// Separates the labels in a field that holds any number of them.
const SEPARATOR: char = ';';

/// What separates a CSV's columns: in countries with a decimal comma, spreadsheets write
/// semicolons.
pub(super) fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default();
    let count = |wanted: u8| first.bytes().filter(|byte| *byte == wanted).count();
    // Of equally many the last one wins.
    [b'\t', b';', b',']
        .into_iter()
        .max_by_key(|one| count(*one))
        .unwrap_or(b',')
}

/// The rows of a text with a line of names first.
pub(super) fn of_columns(text: &str, delimiter: u8) -> Result<Vec<Row>, String> {
    if text.starts_with('\u{feff}') {
        // The reader would take a second one off, too.
        return Err("it begins with two byte order marks".to_owned());
    }
    check_quotes(text, delimiter)?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let names = reader.headers().map_err(|error| wrong(&error))?.clone();
    let names: Vec<&str> = names.iter().map(str::trim).collect();
    let columns = Columns::among(&names)?;
    let place = |wanted: &str| names.iter().rposition(|name| *name == wanted);
    let id_at = columns.id.as_deref().and_then(place);
    let (picture_at, label_at) = (place(&columns.picture), place(&columns.label));
    // A list of pictures with any number of labels: "cat;dog", or nothing.
    let several = delimiter == b',' && matches!(*names, ["file", "labels"] | ["labels", "file"]);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(&error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |at: Option<usize>| at.and_then(|at| record.get(at)).unwrap_or_default();
        let label = if several {
            let names = field(label_at).split(SEPARATOR).map(name_of);
            Label::Several(names.filter(|name| !name.is_empty()).collect())
        } else {
            Label::One(name_of(field(label_at)))
        };
        if label == Label::One(String::new()) {
            return Err(format!("line {line} has no class"));
        }
        rows.push(Row {
            id: id_at
                .and_then(|at| record.get(at))
                .filter(|id| !id.is_empty())
                .map(str::to_owned),
            picture: path(field(picture_at)).map_err(|why| format!("line {line}: {why}"))?,
            label,
        });
    }
    Ok(rows)
}

/// Refuses a quoted field that goes on after its quotes, or that has no end: what is meant is not
/// to be guessed. (The reader takes both.) A quote within a field without quotes is one.
fn check_quotes(text: &str, delimiter: u8) -> Result<(), String> {
    enum At {
        Start,
        Plain,
        Quoted(u64),
        AfterQuote,
    }
    let mut at = At::Start;
    let mut line = 1;
    for byte in text.bytes() {
        at = match (at, byte) {
            (At::Quoted(_), b'"') => At::AfterQuote,
            (At::Quoted(since), _) => At::Quoted(since),
            (At::Start, b'"') => At::Quoted(line),
            (At::AfterQuote, b'"') => At::Quoted(line),
            (_, b'\n' | b'\r') => At::Start,
            (_, byte) if byte == delimiter => At::Start,
            (At::AfterQuote, _) => {
                return Err(format!("line {line}: a field goes on after its quotes"));
            }
            (At::Start | At::Plain, _) => At::Plain,
        };
        line += u64::from(byte == b'\n');
    }
    match at {
        At::Quoted(since) => Err(format!("line {since}: a quoted field has no end")),
        _ => Ok(()),
    }
}

fn wrong(error: &csv::Error) -> String {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { .. } => {
            format!("line {line} has another number of columns")
        }
        _ => format!("line {line}: {error}"),
    }
}

/// A picture by what a table has for it: a path, or an address.
pub(super) fn path(text: &str) -> Result<Picture, String> {
    if text.is_empty() {
        return Err("it has no picture".to_owned());
    }
    if inline_address::holds_picture(text) {
        return Ok(Picture::Inline(text.to_owned()));
    }
    if let Some(path) = inline_address::local_path(text) {
        return Ok(Picture::Path(files::readable(&path)));
    }
    if is_address(text) {
        return of_address(text);
    }
    Ok(Picture::Path(text.to_owned()))
}

/// The rows of JSON lines. The first names the columns.
pub(super) fn of_lines(text: &str) -> Result<Vec<Row>, String> {
    let mut columns = None;
    let mut rows = Vec::new();
    for (line, number) in text.lines().zip(1_u64..) {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |why: String| format!("line {number}: {why}");
        let row: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        if columns.is_none() {
            let names: Vec<&str> = row.keys().map(String::as_str).collect();
            columns = Some(Columns::among(&names)?);
        }
        if let Some(columns) = &columns {
            rows.push(of_object(&row, columns).map_err(wrong)?);
        }
    }
    if rows.is_empty() {
        return Err("it has no lines".to_owned());
    }
    Ok(rows)
}

fn of_object(row: &Map<String, Value>, columns: &Columns) -> Result<Row, String> {
    let of = |name: &str| row.get(name).ok_or_else(|| format!("it lacks {name:?}"));
    let picture = match of(&columns.picture)? {
        Value::String(text) => path(text)?,
        Value::Array(values) => Picture::Embedding(embedding(values)?),
        other => {
            return Err(format!(
                "{:?} is {other}, neither a path nor an embedding",
                columns.picture
            ));
        }
    };
    let label = match of(&columns.label)? {
        Value::Array(labels) => {
            Label::Several(labels.iter().map(class_name).collect::<Result<_, _>>()?)
        }
        one => Label::One(class_name(one)?),
    };
    let id = match columns.id.as_deref().and_then(|name| row.get(name)) {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.clone()).filter(|id| !id.is_empty()),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Some(id.to_string()),
        Some(other) => {
            return Err(format!(
                "its id is {other}, neither a text nor a whole number of at most 64 bits"
            ));
        }
    };
    Ok(Row { id, picture, label })
}

fn class_name(value: &Value) -> Result<String, String> {
    let name = match value {
        Value::String(name) => name_of(name),
        Value::Null => String::new(),
        other => {
            return Err(format!(
                "it has the class {other}, which is no name: write it as a text"
            ));
        }
    };
    if name.is_empty() {
        return Err("it has no class".to_owned());
    }
    Ok(name)
}

fn embedding(values: &[Value]) -> Result<Vec<f32>, String> {
    let number = |value: &Value| {
        value
            .as_f64()
            // Beyond f32's range it becomes infinite; the server says so.
            .map(|value| value as f32)
            .ok_or_else(|| format!("its embedding holds {value}, which is no number"))
    };
    values.iter().map(number).collect()
}
