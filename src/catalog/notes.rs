//! The columns of a version's file with addresses, metadata and pictures of its
//! examples: written, read and checked.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    ExampleFeature, ExampleNotes, MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES, MAX_METADATA_ENTRIES,
    MAX_URI_BYTES, printable,
};
use tipserve_clip::MAX_THUMBNAIL_BYTES;
use tipserve_store::{
    NamedTensor, PictureColumn, PicturePlace, TensorFile, TextColumn, tensors::names,
};

/// How every JPEG file begins.
const JPEG_START: [u8; 3] = [0xff, 0xd8, 0xff];

/// Names of the columns of training or of validation examples.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoteNames {
    uris: &'static str,
    metadata: &'static str,
    pictures: &'static str,
}

/// Those of the examples that are keys.
pub(super) const TRAINING: NoteNames = NoteNames {
    uris: names::EXAMPLE_URIS,
    metadata: names::EXAMPLE_METADATA,
    pictures: names::EXAMPLE_PICTURES,
};

/// Those of the validation examples.
pub(super) const VALIDATION: NoteNames = NoteNames {
    uris: names::VALIDATION_URIS,
    metadata: names::VALIDATION_METADATA,
    pictures: names::VALIDATION_PICTURES,
};

/// Notes of the examples of no class.
pub(super) const UNKNOWN: NoteNames = NoteNames {
    uris: names::UNKNOWN_URIS,
    metadata: names::UNKNOWN_METADATA,
    pictures: names::UNKNOWN_PICTURES,
};

/// The columns of some examples; only those that hold anything.
pub(super) fn write<'a>(
    columns: NoteNames,
    examples: impl Iterator<Item = &'a ExampleFeature> + Clone,
) -> Vec<NamedTensor> {
    let notes = examples.map(|example| example.notes.as_deref());
    let any = |has: fn(&ExampleNotes) -> bool| notes.clone().flatten().any(has);
    let mut named = Vec::new();
    if any(|notes| !notes.uri.is_empty()) {
        let uris = notes.clone().map(|n| n.map_or("", |n| n.uri.as_str()));
        named.extend(TextColumn::encode(columns.uris, uris));
    }
    if any(|notes| !notes.metadata.is_empty()) {
        let texts = notes.clone().map(|n| match n {
            Some(n) if !n.metadata.is_empty() => json(&n.metadata),
            _ => String::new(),
        });
        named.extend(TextColumn::encode(columns.metadata, texts));
    }
    if any(|notes| !notes.picture.is_empty()) {
        let pictures = notes.map(|n| n.map_or(&[][..], |n| &n.picture));
        named.extend(PictureColumn::encode(columns.pictures, pictures));
    }
    named
}

fn json(metadata: &BTreeMap<String, String>) -> String {
    let texts = metadata.iter();
    let object: serde_json::Map<String, serde_json::Value> = texts
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    serde_json::Value::Object(object).to_string()
}

/// A version's columns, without the pictures themselves.
#[derive(Debug, Default)]
pub(super) struct NoteColumns {
    uris: Option<TextColumn>,
    metadata: Option<TextColumn>,
    pictures: Option<PictureColumn>,
}

impl NoteColumns {
    /// Reads the columns of `rows` examples.
    ///
    /// # Errors
    /// The reason, in words, if one is malformed or has another number of rows.
    pub(super) fn read(
        file: &TensorFile,
        columns: NoteNames,
        rows: usize,
    ) -> Result<NoteColumns, String> {
        let read = NoteColumns {
            uris: TextColumn::read(file, columns.uris)?,
            metadata: TextColumn::read(file, columns.metadata)?,
            pictures: PictureColumn::read(file, columns.pictures)?,
        };
        let lengths = [
            (columns.uris, read.uris.as_ref().map(TextColumn::len)),
            (
                columns.metadata,
                read.metadata.as_ref().map(TextColumn::len),
            ),
            (
                columns.pictures,
                read.pictures.as_ref().map(PictureColumn::len),
            ),
        ];
        for (name, length) in lengths {
            if let Some(length) = length.filter(|length| *length != rows) {
                return Err(format!("{name} has {length} rows for {rows} examples"));
            }
        }
        Ok(read)
    }

    /// Where example `row` came from; empty if that is not known.
    pub(super) fn uri(&self, row: usize) -> &str {
        let uris = self.uris.as_ref();
        uris.and_then(|uris| uris.get(row)).unwrap_or_default()
    }

    /// The metadata that example `row` came with.
    ///
    /// # Errors
    /// The reason, in words, if it is no JSON object of strings.
    pub(super) fn metadata(&self, row: usize) -> Result<BTreeMap<String, String>, String> {
        let column = self.metadata.as_ref();
        match column.and_then(|column| column.get(row)) {
            None | Some("") => Ok(BTreeMap::new()),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| format!("the metadata of example {row} cannot be read: {error}")),
        }
    }

    /// Where its picture is; none if none is kept.
    pub(super) fn picture(&self, row: usize) -> Option<PicturePlace> {
        self.pictures.as_ref()?.place(row)
    }

    /// All that is known of example `row`, its picture in the file's memory.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub(super) fn notes(
        &self,
        file: &TensorFile,
        row: usize,
    ) -> Result<Option<Box<ExampleNotes>>, String> {
        let pictures = self.pictures.as_ref();
        let picture = pictures.and_then(|pictures| pictures.get(file, row));
        let notes = ExampleNotes {
            uri: self.uri(row).to_owned(),
            metadata: self.metadata(row)?,
            picture: picture.unwrap_or_default(),
        };
        Ok(notes.boxed())
    }
}

/// Whether what is noted of examples may be kept: for what comes from outside.
/// Gives the number of pictures among them.
///
/// # Errors
/// The reason, in words.
pub(super) fn check(file: &TensorFile, columns: NoteNames, rows: usize) -> Result<u64, String> {
    let read = NoteColumns::read(file, columns, rows)?;
    let mut pictures = 0;
    for row in 0..rows {
        let about = |error: String| format!("example {row}: {error}");
        check_uri(read.uri(row)).map_err(about)?;
        check_metadata(read.metadata(row)?.iter()).map_err(about)?;
        let column = read.pictures.as_ref();
        let picture = column.and_then(|column| column.get(file, row));
        if let (Some(place), Some(picture)) = (read.picture(row), picture) {
            check_picture(&place, &picture).map_err(about)?;
            pictures += 1;
        }
    }
    Ok(pictures)
}

fn check_picture(place: &PicturePlace, picture: &Bytes) -> Result<(), String> {
    if picture.len() > MAX_THUMBNAIL_BYTES {
        let size = picture.len();
        return Err(format!(
            "its picture has {size} bytes, over {MAX_THUMBNAIL_BYTES}"
        ));
    }
    if !picture.starts_with(&JPEG_START) {
        return Err("its picture is not a JPEG".to_owned());
    }
    match place.is(picture) {
        true => Ok(()),
        false => Err("its picture does not have the SHA-256 beside it".to_owned()),
    }
}

/// Whether a URI may be kept.
///
/// # Errors
/// The reason, in words.
pub fn check_uri(uri: &str) -> Result<(), String> {
    if uri.len() > MAX_URI_BYTES {
        let size = uri.len();
        return Err(format!("its uri has {size} bytes, over {MAX_URI_BYTES}"));
    }
    printable::check(uri).map_err(|reason| format!("its uri {reason}"))
}

/// Whether metadata may be kept.
///
/// # Errors
/// The reason, in words.
pub fn check_metadata<'a>(
    metadata: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
) -> Result<(), String> {
    let entries = metadata.len();
    if entries > MAX_METADATA_ENTRIES {
        return Err(format!(
            "its metadata has {entries} entries, over {MAX_METADATA_ENTRIES}"
        ));
    }
    for (key, value) in metadata {
        for (what, text, most) in [
            ("key", key, MAX_LABEL_KEY_BYTES),
            ("value", value, MAX_LABEL_VALUE_BYTES),
        ] {
            if text.len() > most {
                let size = text.len();
                return Err(format!(
                    "a {what} of its metadata has {size} bytes, over {most}"
                ));
            }
            printable::check(text)
                .map_err(|reason| format!("a {what} of its metadata {reason}"))?;
        }
    }
    Ok(())
}
