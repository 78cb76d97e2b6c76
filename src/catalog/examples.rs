//! Which examples a version holds.

use std::sync::Arc;

use super::{
    Catalog, CatalogError,
    columns::{check_shapes, labels},
    compute,
};
use tipserve_store::{CacheId, StoreError, TensorFile, TextColumn, VersionNumber, tensors::names};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExampleEntry<'a> {
    /// Its id.
    pub id: &'a str,
    /// Index of its class.
    pub class: usize,
    /// Its class's display name.
    pub class_name: &'a str,
    /// Whether it is for validation.
    pub validation: bool,
}

#[derive(Debug, Default)]
struct Column {
    labels: Vec<usize>,
    ids: Option<TextColumn>,
}

impl Column {
    fn read(file: &TensorFile, label_name: &str, id_name: &str) -> Result<Column, String> {
        Ok(Column {
            labels: labels(file, label_name),
            // The column's own memory: the list outlives the file.
            ids: TextColumn::read(file, id_name)?.map(|ids| ids.detached()),
        })
    }
}

impl ExampleList {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.training.labels.len() + self.validation.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Example `at`, training examples first.
    pub fn get(&self, at: usize) -> Option<ExampleEntry<'_>> {
        let (column, row, validation) = match at.checked_sub(self.training.labels.len()) {
            None => (&self.training, at, false),
            Some(row) => (&self.validation, row, true),
        };
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
        })
    }

    /// The version.
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
        // Also where the list is kept: the version may be gone.
        let manifest = self.store.manifest(id, number).await?;
        let kept = self.listed.lock().clone();
        if let Some(list) = kept.filter(|list| list.is_of(id, |version| version == number)) {
            return Ok(list);
        }
        let (_, file) = self.store.load(id, number).await?;
        let list = compute::load(move || {
            check_shapes(&manifest.details, &file)?;
            Ok(ExampleList {
                training: Column::read(&file, names::LABELS, names::EXAMPLE_IDS)?,
                validation: Column::read(&file, names::VALIDATION_LABELS, names::VALIDATION_IDS)?,
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
}
