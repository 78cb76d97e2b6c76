//! Which examples a version holds.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Catalog, CatalogError, Purpose,
    columns::{check_shapes, classes_of},
    compute,
    notes::{self, NoteColumns, NoteNames},
};
use tipserve_store::{
    CacheId, PicturePlace, StoreError, TensorFile, TextColumn, VersionNumber, tensors::names,
};

/// The examples of a version: those of its keys in their order, then those for
/// validation, then those of no class.
#[derive(Debug)]
pub struct ExampleList {
    cache: CacheId,
    version: VersionNumber,
    class_names: Vec<String>,
    training: Column,
    validation: Column,
    unknown: Column,
    multi_label: bool,
}

/// One example of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleEntry<'a> {
    /// The id that it was sent with.
    pub id: &'a str,
    /// Indices of its classes: one; none for an example of no class; any number
    /// in a version with several labels per example.
    pub classes: &'a [usize],
    /// Its first class's display name; empty if there is none.
    pub class_name: &'a str,
    /// Whether it is for training, for validation or of no class.
    pub purpose: Purpose,
    /// Where it came from; empty if that is not known.
    pub uri: &'a str,
    /// Whether a picture of it is kept.
    pub has_picture: bool,
}

#[derive(Debug, Default)]
struct Column {
    classes: Vec<Vec<usize>>,
    ids: Option<TextColumn>,
    notes: NoteColumns,
}

impl Column {
    fn read(
        file: &TensorFile,
        classes: Vec<Vec<usize>>,
        id_name: &str,
        noted: NoteNames,
    ) -> Result<Column, String> {
        Ok(Column {
            notes: NoteColumns::read(file, noted, classes.len())?,
            classes,
            // In memory of its own: the list outlives the file.
            ids: TextColumn::read(file, id_name)?.map(|ids| ids.detached()),
        })
    }
}

impl ExampleList {
    /// The number of examples, validation ones included.
    pub fn len(&self) -> usize {
        let columns = [&self.training, &self.validation, &self.unknown];
        columns.iter().map(|column| column.classes.len()).sum()
    }

    /// Whether they carry any number of classes.
    pub fn is_multi_label(&self) -> bool {
        self.multi_label
    }

    /// Whether the version has no examples at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, at: usize) -> (&Column, usize, Purpose) {
        let mut row = at;
        for (column, purpose) in [
            (&self.training, Purpose::Training),
            (&self.validation, Purpose::Validation),
        ] {
            match row.checked_sub(column.classes.len()) {
                None => return (column, row, purpose),
                Some(rest) => row = rest,
            }
        }
        (&self.unknown, row, Purpose::Unknown)
    }

    /// The metadata that example `at` came with.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it cannot be read.
    pub fn metadata(&self, at: usize) -> Result<BTreeMap<String, String>, CatalogError> {
        let (column, row, _) = self.find(at);
        column.notes.metadata(row).map_err(|detail| {
            StoreError::damaged(self.cache.version_name(self.version), detail).into()
        })
    }

    /// Where the picture of the example with this id is; the inner option is
    /// none if no picture is kept, the outer one if there is no such example.
    fn picture(&self, id: &str) -> Option<Option<PicturePlace>> {
        let mut all = (0..self.len()).map(|at| self.find(at));
        let found = all.find(|(column, row, _)| {
            let ids = column.ids.as_ref();
            ids.and_then(|ids| ids.get(*row)) == Some(id)
        });
        found.map(|(column, row, _)| column.notes.picture(row))
    }

    /// Example `at`, training examples first, those of no class last.
    pub fn get(&self, at: usize) -> Option<ExampleEntry<'_>> {
        let (column, row, purpose) = self.find(at);
        let classes = column.classes.get(row)?;
        Some(ExampleEntry {
            id: column
                .ids
                .as_ref()
                .and_then(|ids| ids.get(row))
                .unwrap_or(""),
            classes,
            class_name: classes
                .first()
                .and_then(|class| self.class_names.get(*class))
                .map_or("", String::as_str),
            purpose,
            uri: column.notes.uri(row),
            has_picture: column.notes.picture(row).is_some(),
        })
    }

    /// The version whose examples these are.
    pub fn version(&self) -> VersionNumber {
        self.version
    }

    pub(super) fn is_of(&self, id: &CacheId, number: impl Fn(VersionNumber) -> bool) -> bool {
        self.cache == *id && number(self.version)
    }
}

impl Catalog {
    /// The examples of a version. The list that was asked for last is kept, so
    /// that its next page costs nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn examples(
        &self,
        id: &CacheId,
        number: VersionNumber,
    ) -> Result<Arc<ExampleList>, CatalogError> {
        // Even if the list is cached: the version may be gone.
        let manifest = self.store.manifest(id, number).await?;
        let kept = self.listed.lock().clone();
        if let Some(list) = kept.filter(|list| list.is_of(id, |version| version == number)) {
            return Ok(list);
        }
        let (_, file) = self.store.load(id, number).await?;
        let list = compute::load(move || {
            check_shapes(&manifest.details, &file)?;
            let classes = |purpose| classes_of(&manifest.details, &file, purpose);
            Ok(ExampleList {
                training: Column::read(
                    &file,
                    classes(Purpose::Training)?,
                    names::EXAMPLE_IDS,
                    notes::TRAINING,
                )?,
                validation: Column::read(
                    &file,
                    classes(Purpose::Validation)?,
                    names::VALIDATION_IDS,
                    notes::VALIDATION,
                )?,
                unknown: Column::read(
                    &file,
                    classes(Purpose::Unknown)?,
                    names::UNKNOWN_IDS,
                    notes::UNKNOWN,
                )?,
                multi_label: manifest.details.multi_label.is_some(),
                class_names: manifest
                    .details
                    .classes
                    .iter()
                    .map(|class| class.display_name.clone())
                    .collect(),
                version: manifest.version,
                cache: manifest.cache,
            })
        });
        let what = id.version_name(number);
        let list = list
            .await?
            .map_err(|detail: String| StoreError::damaged(what, detail))?;
        let list = Arc::new(list);
        *self.listed.lock() = Some(Arc::clone(&list));
        Ok(list)
    }

    /// The kept picture of an example, a JPEG.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the version holds no such example or keeps
    /// no picture of it; else the store's.
    pub async fn example_picture(
        &self,
        id: &CacheId,
        number: VersionNumber,
        example: &str,
    ) -> Result<Bytes, CatalogError> {
        let manifest = self.store.manifest(id, number).await?;
        let not_found = |hint: &str| StoreError::NotFound {
            what: format!(
                "a picture of example {example:?} of {}",
                id.version_name(number)
            ),
            hint: hint.to_owned(),
        };
        if manifest.details.pictures == 0 {
            return Err(not_found(": the version was made without keep_pictures").into());
        }
        let list = self.examples(id, number).await?;
        let wanted = example.to_owned();
        // Millions of rows may have to be read.
        let found = compute(move || list.picture(&wanted)).await?;
        let place = match found {
            None => return Err(not_found(": it holds no such example").into()),
            Some(None) => return Err(not_found(": none was kept of this one").into()),
            Some(Some(place)) => place,
        };
        Ok(self.store.read_picture(&manifest, &place).await?)
    }
}
