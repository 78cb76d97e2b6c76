//! Which examples a version holds.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Catalog, CatalogError,
    columns::{check_shapes, labels},
    compute,
    notes::{self, NoteColumns, NoteNames},
};
use tipserve_store::{
    CacheId, PicturePlace, StoreError, TensorFile, TextColumn, VersionNumber, tensors::names,
};

/// The examples of a version: those of its keys in their order, then those for
/// validation.
#[derive(Debug)]
pub struct ExampleList {
    cache: CacheId,
    version: VersionNumber,
    class_names: Vec<String>,
    training: Column,
    validation: Column,
}

/// One example of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleEntry<'a> {
    /// The id that it was sent with.
    pub id: &'a str,
    /// Index of the class that it is labelled with.
    pub class: usize,
    /// Display name of that class.
    pub class_name: &'a str,
    /// Whether it is for validation.
    pub validation: bool,
    /// Where it came from; empty if that is not known.
    pub uri: &'a str,
    /// Whether a picture of it is kept.
    pub has_picture: bool,
}

#[derive(Debug, Default)]
struct Column {
    labels: Vec<usize>,
    ids: Option<TextColumn>,
    notes: NoteColumns,
}

impl Column {
    fn read(
        file: &TensorFile,
        label_name: &str,
        id_name: &str,
        noted: NoteNames,
    ) -> Result<Column, String> {
        let labels = labels(file, label_name);
        Ok(Column {
            notes: NoteColumns::read(file, noted, labels.len())?,
            labels,
            // In memory of its own: the list outlives the file.
            ids: TextColumn::read(file, id_name)?.map(|ids| ids.detached()),
        })
    }
}

impl ExampleList {
    /// The number of examples, validation ones included.
    pub fn len(&self) -> usize {
        self.training.labels.len() + self.validation.labels.len()
    }

    /// Whether the version has no examples at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, at: usize) -> (&Column, usize, bool) {
        match at.checked_sub(self.training.labels.len()) {
            None => (&self.training, at, false),
            Some(row) => (&self.validation, row, true),
        }
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

    /// Example `at`, training examples first.
    pub fn get(&self, at: usize) -> Option<ExampleEntry<'_>> {
        let (column, row, validation) = self.find(at);
        let class = *column.labels.get(row)?;
        Some(ExampleEntry {
            id: column
                .ids
                .as_ref()
                .and_then(|ids| ids.get(row))
                .unwrap_or(""),
            class,
            class_name: self.class_names.get(class).map_or("", String::as_str),
            validation,
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
            Ok(ExampleList {
                training: Column::read(&file, names::LABELS, names::EXAMPLE_IDS, notes::TRAINING)?,
                validation: Column::read(
                    &file,
                    names::VALIDATION_LABELS,
                    names::VALIDATION_IDS,
                    notes::VALIDATION,
                )?,
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
