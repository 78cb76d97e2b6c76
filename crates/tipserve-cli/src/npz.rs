//! Embeddings in an .npz file: `features` [M, D], `labels` [M], `classes`
//! [N] and, optionally, `text_weights` [N, D].
//!
//! Any byte order, C or Fortran order, stored or deflated. `features` may be
//! larger than memory: it is read row by row, unless it is in Fortran order,
//! whose rows are scattered.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use half::f16;
use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar, npz::NpzArchive};

use crate::{
    class_names::refuse_control_characters,
    failure::Failure,
    files::readable,
    labelled::{Example, Labelled, Place, Source, SourceClass},
};
use tipserve_api::v1::{Embedding, Input, input::Content};

/// Most values of `text_weights`, and of a Fortran-order `features`, that are held
/// in memory: 4 GiB of f32.
const MAX_HELD_VALUES: u64 = 1 << 30;

/// An embedding as an input.
pub fn embedding(values: Vec<f32>) -> Input {
    Input {
        content: Some(Content::Embedding(Embedding { values })),
    }
}

/// Lists the rows of an .npz file with their classes.
pub(crate) fn list(path: &Path) -> Result<Labelled, Failure> {
    let mut archive = Archive::open(path)?;
    let (rows, width) = archive.matrix_shape("features")?;
    let labels = archive.integers("labels")?;
    let names = archive.strings("classes")?;
    for (name, position) in names.iter().zip(0_u64..) {
        if name.trim().is_empty() {
            return Err(archive.wrong("classes", &format!("has no name at position {position}")));
        }
        refuse_control_characters(name).map_err(|why| {
            archive.wrong(
                "classes",
                &format!("has a name at position {position} that {why}"),
            )
        })?;
    }
    if labels.len() as u64 != rows {
        return Err(archive.wrong(
            "labels",
            &format!("has {} values, but features has {rows} rows", labels.len()),
        ));
    }
    let text_weights = archive.text_weights(names.len(), width)?;
    let mut text_rows = text_weights.map(Vec::into_iter);
    let classes: Vec<_> = names
        .into_iter()
        .map(|display_name| SourceClass {
            display_name,
            text_weight: text_rows.as_mut().and_then(Iterator::next),
        })
        .collect();
    let examples = labels
        .into_iter()
        .zip(0_u64..)
        .map(|(label, row)| {
            let class = usize::try_from(label)
                .ok()
                .filter(|class| *class < classes.len());
            let class = class.ok_or_else(|| {
                archive.wrong("labels", &format!(
                    "holds {label} at position {row}, but classes has {} names: labels are 0 to \
                     {}",
                    classes.len(),
                    classes.len().saturating_sub(1)
                ))
            })?;
            Ok(Example {
                id: row.to_string(),
                class,
                labels: None,
                place: Place::Row(row),
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Labelled {
        source: Source::Npz(path.to_owned()),
        classes,
        examples,
    })
}

/// An .npz file that is read array by array.
pub struct Archive<R: Read + Seek> {
    path: PathBuf,
    archive: NpzArchive<R>,
}

impl Archive<File> {
    /// Opens a file and reads its directory, not yet its arrays.
    ///
    /// # Errors
    /// [`Failure::Input`] if it cannot be read, or is no archive.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Input(format!("{}: {error}", readable(path)));
        let file = File::open(path).map_err(failed)?;
        let archive = NpzArchive::new(file).map_err(|error| {
            Failure::Input(format!("{} is not an .npz file: {error}", readable(path)))
        })?;
        Ok(Self {
            path: path.to_owned(),
            archive,
        })
    }
}

type Array<'a> = NpyFile<BufReader<Box<dyn Read + 'a>>>;

impl<R: Read + Seek> Archive<R> {
    fn wrong(&self, array: &str, why: &str) -> Failure {
        wrong(&self.path, array, why)
    }

    /// The array, if the file has it.
    fn find(&mut self, name: &str) -> Result<Option<Array<'_>>, Failure> {
        let path = self.path.clone();
        let unreadable = |error: io::Error| wrong(&path, name, &format!("cannot be read: {error}"));
        let Some(array) = self.archive.by_name(name).map_err(unreadable)? else {
            return Ok(None);
        };
        if array.uses_pickled_array() {
            return Err(wrong(
                &path,
                name,
                "holds Python objects (dtype object), which are never unpickled; save it with a \
                 dtype of numbers, or as strings with np.array(names, dtype=str)",
            ));
        }
        let header = array.header().clone();
        let bytes = header.dtype().num_bytes().unwrap_or(0) as u64;
        let values = header
            .shape()
            .iter()
            .fold(1, |all: u64, side| all.saturating_mul(*side));
        let reader: Box<dyn Read + '_> = Box::new(Checked {
            inner: array.into_inner(),
            left: values.saturating_mul(bytes),
        });
        Ok(Some(NpyFile::with_header(
            header,
            BufReader::with_capacity(1 << 16, reader),
        )))
    }

    /// The array; if the file lacks it, an error that lists those it has.
    fn array(&mut self, name: &str) -> Result<Array<'_>, Failure> {
        let path = self.path.clone();
        let mut there: Vec<_> = self.archive.array_names().map(str::to_owned).collect();
        there.sort();
        self.find(name)?.ok_or_else(|| {
            let there = if there.is_empty() {
                "none".to_owned()
            } else {
                there.join(", ")
            };
            wrong(
                &path,
                name,
                &format!("is missing (arrays in the file: {there})"),
            )
        })
    }

    /// Rows and columns of a matrix.
    pub(crate) fn matrix_shape(&mut self, name: &str) -> Result<(u64, u64), Failure> {
        let path = self.path.clone();
        let array = self.array(name)?;
        float_size(array.header()).map_err(|why| wrong(&path, name, &why))?;
        match *array.shape() {
            [rows, columns] if columns > 0 => Ok((rows, columns)),
            ref shape => Err(wrong(
                &path,
                name,
                &format!("has shape {shape:?}, not [rows, width]"),
            )),
        }
    }

    /// A vector of whole numbers of any dtype.
    fn integers(&mut self, name: &str) -> Result<Vec<i128>, Failure> {
        let path = self.path.clone();
        let array = self.array(name)?;
        let [length] = *array.shape() else {
            return Err(wrong(
                &path,
                name,
                &format!("has shape {:?}, not [M]", array.shape()),
            ));
        };
        let kind = plain(array.header());
        let values = match kind {
            Some((TypeChar::Int, 1)) => collect::<i8, _>(array, length),
            Some((TypeChar::Int, 2)) => collect::<i16, _>(array, length),
            Some((TypeChar::Int, 4)) => collect::<i32, _>(array, length),
            Some((TypeChar::Int, 8)) => collect::<i64, _>(array, length),
            Some((TypeChar::Uint, 1)) => collect::<u8, _>(array, length),
            Some((TypeChar::Uint, 2)) => collect::<u16, _>(array, length),
            Some((TypeChar::Uint, 4)) => collect::<u32, _>(array, length),
            Some((TypeChar::Uint, 8)) => collect::<u64, _>(array, length),
            _ => {
                let dtype = array.header().dtype().descr();
                return Err(wrong(
                    &path,
                    name,
                    &format!("has dtype {dtype}, not whole numbers"),
                ));
            }
        };
        values.map_err(|error| wrong(&path, name, &format!("cannot be read: {error}")))
    }

    /// A vector of strings, unicode ('U') or bytes ('S', as UTF-8).
    fn strings(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        let path = self.path.clone();
        let array = self.array(name)?;
        let [length] = *array.shape() else {
            return Err(wrong(
                &path,
                name,
                &format!("has shape {:?}, not [N]", array.shape()),
            ));
        };
        match plain(array.header()) {
            Some((TypeChar::UnicodeStr | TypeChar::ByteStr, _)) => {}
            _ => {
                let dtype = array.header().dtype().descr();
                return Err(wrong(
                    &path,
                    name,
                    &format!("has dtype {dtype}, not strings"),
                ));
            }
        }
        if length == 0 {
            return Err(wrong(&path, name, "is empty: at least one class is needed"));
        }
        read_all::<String, _>(array, length).map_err(|error| {
            // npyz has no kind of its own for it.
            if error.to_string().contains("invalid utf-8") {
                wrong(&path, name, "holds bytes that are not UTF-8")
            } else {
                wrong(&path, name, &format!("cannot be read: {error}"))
            }
        })
    }

    /// The rows of `text_weights`, if the file has it.
    fn text_weights(
        &mut self,
        classes: usize,
        width: u64,
    ) -> Result<Option<Vec<Vec<f32>>>, Failure> {
        let name = "text_weights";
        if self.find(name)?.is_none() {
            return Ok(None);
        }
        let (rows, columns) = self.matrix_shape(name)?;
        if (rows, columns) != (classes as u64, width) {
            return Err(self.wrong(
                name,
                &format!(
                    "has shape [{rows}, {columns}], but classes and features ask for [{classes}, \
                 {width}]"
                ),
            ));
        }
        if rows.saturating_mul(columns) > MAX_HELD_VALUES {
            return Err(self.wrong(
                name,
                &format!(
                    "has {rows} × {columns} values; at most {MAX_HELD_VALUES} are held in memory"
                ),
            ));
        }
        let mut weights = Vec::new();
        self.rows(name, &mut |_, values| {
            weights.push(values);
            true
        })?;
        Ok(Some(weights))
    }

    /// Gives the rows of a matrix to `take`, one after the other, with their
    /// numbers, until it returns false.
    ///
    /// # Errors
    /// [`Failure::Input`] if there is no such matrix, or it cannot be read to its end.
    pub fn rows(
        &mut self,
        name: &str,
        take: &mut dyn FnMut(u64, Vec<f32>) -> bool,
    ) -> Result<(), Failure> {
        let path = self.path.clone();
        let shape = self.matrix_shape(name)?;
        let array = self.array(name)?;
        let size = float_size(array.header()).map_err(|why| wrong(&path, name, &why))?;
        if array.order() == Order::Fortran && shape.0.saturating_mul(shape.1) > MAX_HELD_VALUES {
            return Err(wrong(
                &path,
                name,
                "is large and in Fortran order; save np.ascontiguousarray of it",
            ));
        }
        let outcome = match size {
            2 => rows::<f16>(array, shape, take, f16::to_f32),
            4 => rows::<f32>(array, shape, take, |value| value),
            // An f64 beyond f32's range becomes infinite; the server says so.
            _ => rows::<f64>(array, shape, take, |value| value as f32),
        };
        outcome.map_err(|error| wrong(&path, name, &format!("cannot be read: {error}")))
    }
}

fn wrong(path: &Path, array: &str, why: &str) -> Failure {
    Failure::Input(format!("{}: the array {array} {why}", readable(path)))
}

/// Reads an array's bytes; with the last of them, on to the end of its part of the archive, where
/// the checksum is compared. Damaged numbers would be numbers all the same.
struct Checked<R> {
    inner: R,
    /// Bytes of the array that are still to come.
    left: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.left > 0 {
            self.left = self.left.saturating_sub(count as u64);
            if self.left == 0 {
                io::copy(&mut self.inner, &mut io::sink())?;
            }
        }
        Ok(count)
    }
}

fn plain(header: &NpyHeader) -> Option<(TypeChar, u64)> {
    match header.dtype() {
        DType::Plain(kind) => Some((kind.type_char(), kind.size_field())),
        _ => None,
    }
}

fn float_size(header: &NpyHeader) -> Result<u64, String> {
    match plain(header) {
        Some((TypeChar::Float, size @ (2 | 4 | 8))) => Ok(size),
        _ => Err(format!(
            "has dtype {}, not float16, float32 or float64",
            header.dtype().descr()
        )),
    }
}

fn collect<T: Deserialize + Into<i128>, R: Read>(
    array: NpyFile<R>,
    length: u64,
) -> io::Result<Vec<i128>> {
    Ok(read_all::<T, R>(array, length)?
        .into_iter()
        .map(Into::into)
        .collect())
}

/// Reads the values that a header promises, growing as they come: a false
/// header cannot make it reserve memory.
fn read_all<T: Deserialize, R: Read>(array: NpyFile<R>, length: u64) -> io::Result<Vec<T>> {
    let values = array
        .data::<T>()
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut all = Vec::new();
    for value in values {
        all.push(value?);
    }
    if all.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(all)
}

fn rows<T: Deserialize>(
    array: Array<'_>,
    (rows, columns): (u64, u64),
    take: &mut dyn FnMut(u64, Vec<f32>) -> bool,
    convert: impl Fn(T) -> f32,
) -> io::Result<()> {
    if array.order() == Order::Fortran {
        let all: Vec<f32> = read_all::<T, _>(array, rows.saturating_mul(columns))?
            .into_iter()
            .map(convert)
            .collect();
        let stride = usize::try_from(rows).map_err(io::Error::other)?;
        for row in 0..stride {
            if !take(
                row as u64,
                all.iter().skip(row).step_by(stride).copied().collect(),
            ) {
                return Ok(());
            }
        }
        return Ok(());
    }
    let mut values = array
        .data::<T>()
        .map_err(|error| io::Error::other(error.to_string()))?;
    for row in 0..rows {
        let mut vector = Vec::new();
        for _ in 0..columns {
            let value = values.next().ok_or(io::ErrorKind::UnexpectedEof)?;
            vector.push(convert(value?));
        }
        if !take(row, vector) {
            return Ok(());
        }
    }
    Ok(())
}
