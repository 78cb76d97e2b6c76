//! Parquet files, as data frames and `datasets` write them.

use std::path::Path;

use parquet::record::reader::RowIter;

use super::{
    labelled,
    parquet_rows::{Table, bytes_of},
};
use crate::{
    failure::Failure,
    files::readable,
    labelled::{Labelled, Place, Source},
};

/// Lists the rows; pictures that the file itself holds are read with [`ParquetPictures`].
pub(super) fn listed(path: &Path) -> Result<Labelled, String> {
    let table = Table::open(path)?;
    let classes = table.class_names();
    let rows = table.rows(classes.as_deref())?;
    if rows.is_empty() {
        return Err("it has no rows".to_owned());
    }
    let mut found = labelled(path, rows, classes)?;
    let held = |place: &Place| matches!(place, Place::Row(_));
    if found.examples.iter().any(|example| held(&example.place)) {
        found.source = Source::Parquet(path.to_owned());
    }
    Ok(found)
}

/// The pictures in a Parquet file, read in the order of its rows.
pub(crate) struct ParquetPictures {
    rows: RowIter<'static>,
    /// How many rows have been read.
    read: u64,
    path: String,
}

impl ParquetPictures {
    /// Opens a file that was listed.
    ///
    /// # Errors
    /// It is another by now.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let path_text = readable(path);
        let failed = |why: String| Failure::Input(format!("{path_text}: {why}"));
        let rows = Table::open(path)
            .and_then(Table::pictures)
            .map_err(failed)?;
        Ok(Self {
            rows,
            read: 0,
            path: path_text,
        })
    }

    /// The bytes of a row's picture. Rows before it can no longer be read.
    ///
    /// # Errors
    /// The row cannot be read, or has no bytes.
    pub fn bytes(&mut self, row: u64) -> Result<Vec<u8>, Failure> {
        let failed = |why: String| Failure::Input(format!("{}: row {row}: {why}", self.path));
        while self.read <= row {
            let cells = self.rows.next();
            let cells = cells.ok_or_else(|| failed("it is not there".to_owned()))?;
            let cells = cells.map_err(|error| failed(error.to_string()))?;
            self.read += 1;
            if self.read > row {
                return bytes_of(cells).ok_or_else(|| failed("it has no picture".to_owned()));
            }
        }
        Err(failed("it was passed already".to_owned()))
    }
}
