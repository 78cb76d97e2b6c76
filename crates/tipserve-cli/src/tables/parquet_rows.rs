//! The rows of a Parquet file: which columns count, and what their values stand for.

use std::{fs::File, path::Path, sync::Arc};

use parquet::{
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::ColumnChunkMetaData,
        reader::{FileReader as _, SerializedFileReader},
    },
    record::{Field, Row as Cells, reader::RowIter},
    schema::types::Type,
};
use serde_json::Value;

use super::{
    columns::Columns,
    name_of,
    rows::{self, Label, Picture, Row},
};

/// A Parquet file whose columns are known.
pub(super) struct Table {
    reader: SerializedFileReader<File>,
    columns: Columns,
}

impl Table {
    /// Reads which columns there are, and no row yet.
    ///
    /// # Errors
    /// It is no such file, or which of its columns count would be a guess.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let reader = SerializedFileReader::new(file).map_err(|error| said(&error))?;
        let schema = reader.metadata().file_metadata().schema();
        let names: Vec<&str> = schema.get_fields().iter().map(|one| one.name()).collect();
        let columns = Columns::among(&names)?;
        check_compression(&reader)?;
        Ok(Self { reader, columns })
    }

    /// What the indices in the column of labels stand for, which `datasets` writes beside the
    /// columns.
    pub fn class_names(&self) -> Option<Vec<String>> {
        let metadata = self.reader.metadata().file_metadata();
        let mut pairs = metadata.key_value_metadata()?.iter();
        let text = pairs
            .find(|pair| pair.key == "huggingface")?
            .value
            .as_ref()?;
        let value: Value = serde_json::from_str(text).ok()?;
        let features = value.get("info")?.get("features")?;
        let feature = features.get(&self.columns.label)?;
        // Of a list of labels, what it is a list of.
        let feature = feature.get("feature").unwrap_or(feature);
        let names = feature.get("names")?.as_array()?;
        names
            .iter()
            .map(|name| Some(name_of(name.as_str()?)))
            .collect()
    }

    /// The rows.
    ///
    /// # Errors
    /// A row that cannot be read, or whose class would be a guess.
    pub fn rows(self, classes: Option<&[String]>) -> Result<Vec<Row>, String> {
        let columns = self.columns.clone();
        let wanted = [
            Some(&*columns.picture),
            Some(&*columns.label),
            columns.id.as_deref(),
        ];
        let cells = self.cells(&wanted)?;
        cells
            .zip(0_u64..)
            .map(|(cells, row)| {
                let cells = cells.map_err(|error| said(&error))?;
                of_cells(cells, row, &columns, classes).map_err(|why| format!("row {row}: {why}"))
            })
            .collect()
    }

    /// The column of pictures alone, row by row.
    ///
    /// # Errors
    /// The file cannot be read so.
    pub fn pictures(self) -> Result<RowIter<'static>, String> {
        let picture = self.columns.picture.clone();
        self.cells(&[Some(&picture)])
    }

    fn cells(self, wanted: &[Option<&str>]) -> Result<RowIter<'static>, String> {
        let schema = self.reader.metadata().file_metadata().schema();
        let fields = schema.get_fields().iter();
        let fields = fields.filter(|one| wanted.contains(&Some(one.name())));
        let projection = Type::group_type_builder(schema.name())
            .with_fields(fields.map(Arc::clone).collect())
            .build()
            .map_err(|error| said(&error))?;
        RowIter::from_file_into(Box::new(self.reader))
            .project(Some(projection))
            .map_err(|error| said(&error))
    }
}

/// Refuses the compressions that this program is built without.
fn check_compression(reader: &SerializedFileReader<File>) -> Result<(), String> {
    let groups = reader.metadata().row_groups().iter();
    let mut used =
        groups.flat_map(|group| group.columns().iter().map(ColumnChunkMetaData::compression));
    let known = |one: &Compression| {
        matches!(
            one,
            Compression::UNCOMPRESSED
                | Compression::SNAPPY
                | Compression::GZIP(_)
                | Compression::BROTLI(_)
                | Compression::LZ4
                | Compression::LZ4_RAW
                | Compression::ZSTD(_)
        )
    };
    match used.find(|one| !known(one)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "its columns are compressed with {other}, which is not read; write it with Snappy or \
             Zstandard (pandas: compression=\"zstd\")"
        )),
    }
}

fn said(error: &ParquetError) -> String {
    format!("it cannot be read as Parquet: {error}")
}

fn of_cells(
    cells: Cells,
    row: u64,
    columns: &Columns,
    classes: Option<&[String]>,
) -> Result<Row, String> {
    let (mut picture, mut label, mut id) = (Field::Null, Field::Null, None);
    for (name, field) in cells.into_columns() {
        if name == columns.picture {
            picture = field;
        } else if name == columns.label {
            label = field;
        } else {
            id = id_of(&field)?;
        }
    }
    Ok(Row {
        id,
        picture: picture_of(picture, row)?,
        label: match &label {
            Field::ListInternal(labels) => Label::Several(
                labels
                    .elements()
                    .iter()
                    .map(|one| class_name(one, classes))
                    .collect::<Result<_, _>>()?,
            ),
            one => Label::One(class_name(one, classes)?),
        },
    })
}

/// An example's id; none where the table has nothing. What another program would write otherwise
/// is no id: a column of whole numbers in which one is missing may have become one of floats.
fn id_of(field: &Field) -> Result<Option<String>, String> {
    match field {
        Field::Null => Ok(None),
        Field::Str(id) => Ok(Some(id.clone()).filter(|id| !id.is_empty())),
        Field::ULong(id) => Ok(Some(id.to_string())),
        Field::Float(value) if value.is_nan() => Ok(None),
        Field::Double(value) if value.is_nan() => Ok(None),
        other => whole(other).map(|id| Some(id.to_string())).ok_or_else(|| {
            format!("its id is {other}, neither a text nor a whole number of at most 64 bits")
        }),
    }
}

fn picture_of(field: Field, row: u64) -> Result<Picture, String> {
    match field {
        Field::Str(text) => rows::path(&text),
        Field::Bytes(_) => Ok(Picture::Cell(row)),
        Field::ListInternal(values) => {
            let values: Result<Vec<f32>, String> = values.elements().iter().map(number).collect();
            Ok(Picture::Embedding(values?))
        }
        // As `datasets` has a picture: its bytes, or the path of its file.
        Field::Group(parts) => {
            let mut path = None;
            for (name, field) in parts.into_columns() {
                match (name.as_str(), field) {
                    ("bytes", Field::Bytes(_)) => return Ok(Picture::Cell(row)),
                    ("path", Field::Str(text)) => path = Some(text),
                    _ => {}
                }
            }
            rows::path(&path.ok_or("it has no picture")?)
        }
        Field::Null => Err("it has no picture".to_owned()),
        other => Err(format!(
            "its picture is {other}, neither bytes, a path nor an embedding"
        )),
    }
}

/// The bytes of a picture that a row holds.
pub(super) fn bytes_of(cells: Cells) -> Option<Vec<u8>> {
    cells
        .into_columns()
        .into_iter()
        .find_map(|(_, field)| match field {
            Field::Bytes(bytes) => Some(bytes.data().to_vec()),
            Field::Group(parts) => parts
                .into_columns()
                .into_iter()
                .find_map(|part| match part {
                    (name, Field::Bytes(bytes)) if name == "bytes" => Some(bytes.data().to_vec()),
                    _ => None,
                }),
            _ => None,
        })
}

fn class_name(field: &Field, classes: Option<&[String]>) -> Result<String, String> {
    let name = match (field, classes) {
        (Field::Str(name), _) => name_of(name),
        (Field::Null, _) => String::new(),
        (other, Some(classes)) => {
            let index = whole(other).and_then(|index| usize::try_from(index).ok());
            let name = index.and_then(|index| classes.get(index));
            let count = classes.len();
            name.cloned()
                .ok_or_else(|| format!("it has the class {other}, none of its {count} classes"))?
        }
        (other, None) => {
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

fn whole(field: &Field) -> Option<i64> {
    match *field {
        Field::Byte(value) => Some(value.into()),
        Field::Short(value) => Some(value.into()),
        Field::Int(value) => Some(value.into()),
        Field::Long(value) => Some(value),
        Field::UByte(value) => Some(value.into()),
        Field::UShort(value) => Some(value.into()),
        Field::UInt(value) => Some(value.into()),
        Field::ULong(value) => i64::try_from(value).ok(),
        _ => None,
    }
}

fn number(field: &Field) -> Result<f32, String> {
    match field {
        Field::Float16(value) => Ok(value.to_f32()),
        Field::Float(value) => Ok(*value),
        // Beyond f32's range it becomes infinite; the server says so.
        Field::Double(value) => Ok(*value as f32),
        other => whole(other)
            .map(|value| value as f32)
            .ok_or_else(|| format!("its embedding holds {other}, which is no number")),
    }
}
