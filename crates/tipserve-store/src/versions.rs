//! Reading versions, every byte checked.

use bytes::Bytes;
use object_store::path::Path;

use super::{
    Damage, Store, StoreError,
    backend::{Backend, working},
    layout,
    manifest::Manifest,
    name::{CacheId, VersionNumber},
    sealed::{MAX_JSON_BYTES, unseal},
    tensors::{TensorFile, sha256},
};

impl Backend {
    /// The manifest under a version's number, whether or not the version exists;
    /// none if there is none.
    pub(crate) async fn read_manifest(
        &self,
        id: &CacheId,
        number: VersionNumber,
    ) -> Result<Option<Manifest>, StoreError> {
        let path = layout::manifest(id, number);
        let Some(text) = self.read(&path, MAX_JSON_BYTES).await? else {
            return Ok(None);
        };
        let what = id.version_name(number);
        let manifest: Manifest = unseal(&what, path.as_ref(), &text)?;
        if manifest.cache == *id
            && manifest.version == number
            && layout::is_tensors_name(&manifest.tensors.name)
        {
            return Ok(Some(manifest));
        }
        let detail = format!("{path}: it is the manifest of {}", manifest.resource_name());
        Err(StoreError::damaged(what, detail))
    }
}

impl Store {
    async fn missing_version(&self, id: &CacheId, number: VersionNumber) -> StoreError {
        let reference = super::Reference {
            cache: id.clone(),
            version: super::VersionSelector::Number(number),
        };
        match self.views.fresh(id).await {
            Ok(view) => super::missing(&view, &reference),
            Err(e) => e,
        }
    }

    /// The manifest of a version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Damaged`],
    /// [`StoreError::NewerFormat`].
    pub async fn manifest(
        &self,
        id: &CacheId,
        number: VersionNumber,
    ) -> Result<Manifest, StoreError> {
        let exists = match self.views.recent(id).await?.has(number)? {
            true => true,
            false => self.views.fresh(id).await?.has(number)?,
        };
        let manifest = match exists {
            true => self.backend.read_manifest(id, number).await?,
            false => None,
        };
        if let Some(manifest) = manifest {
            return Ok(manifest);
        }
        // Either it does not exist (any longer), or its manifest is lost.
        Err(match self.views.fresh(id).await?.has(number)? {
            true => {
                let path = layout::manifest(id, number);
                StoreError::damaged(id.version_name(number), format!("{path}: it is missing"))
            }
            false => self.missing_version(id, number).await,
        })
    }

    /// A version with its tensors, every byte checked against the manifest's
    /// SHA-256. Time is in proportion to size; memory too, but for large local
    /// files, which are mapped. A version found damaged is set aside: it is
    /// refused without being read again until its file changes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Damaged`],
    /// [`StoreError::NewerFormat`], [`StoreError::Unavailable`].
    pub async fn load(
        &self,
        id: &CacheId,
        number: VersionNumber,
    ) -> Result<(Manifest, TensorFile), StoreError> {
        let manifest = self.manifest(id, number).await?;
        let path = layout::tensors(id, number, &manifest.tensors.name);
        let file = self.backend.head(&path).await?;
        let key = (id.clone(), number);
        if let Some(damage) = self.damaged.get(&key)
            && damage.file == file
        {
            return Err(damage.error.clone());
        }
        match self
            .read_tensors(&manifest, &path, file.as_ref().map(|f| f.size))
            .await
        {
            Ok(tensors) => {
                self.damaged.remove(&key);
                Ok((manifest, tensors))
            }
            Err(error @ StoreError::Damaged { .. }) => {
                // A version deleted while we read it is not a damaged one.
                if !self.views.fresh(id).await?.has(number)? {
                    return Err(self.missing_version(id, number).await);
                }
                tracing::error!(%error, "version set aside");
                let error_kept = error.clone();
                self.damaged.insert(
                    key,
                    Damage {
                        error: error_kept,
                        file,
                    },
                );
                Err(error)
            }
            Err(e) => Err(e),
        }
    }

    async fn read_tensors(
        &self,
        manifest: &Manifest,
        path: &Path,
        size: Option<u64>,
    ) -> Result<TensorFile, StoreError> {
        let record = &manifest.tensors;
        let damaged = |detail: String| {
            StoreError::damaged(manifest.resource_name(), format!("{path}: {detail}"))
        };
        let wrong_size =
            |found: u64| damaged(format!("it has {found} bytes instead of {}", record.size));
        let found = size.ok_or_else(|| damaged("it is missing".into()))?;
        if found != record.size {
            return Err(wrong_size(found));
        }
        let bytes = self
            .backend
            .read_large(path, record.size)
            .await?
            .ok_or_else(|| damaged("it is missing".into()))?;
        if bytes.len() as u64 != record.size {
            return Err(wrong_size(bytes.len() as u64));
        }
        let hashed: Bytes = bytes.clone();
        let digest = working("checking tensors", hashed.len(), move || sha256(&[hashed])).await?;
        if digest != record.sha256 {
            return Err(damaged(format!(
                "its SHA-256 is {digest} instead of {}",
                record.sha256
            )));
        }
        TensorFile::parse(bytes).map_err(damaged)
    }
}
