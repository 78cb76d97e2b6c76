//! Versions: published in one atomic step, read with every byte checked.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use chrono::Utc;
use object_store::path::Path;

use super::{
    Condition, Damage, Store, StoreError,
    backend::{Backend, blocking},
    fault::die_at,
    layout,
    manifest::{Draft, Manifest, TensorsRecord},
    name::{CacheId, VersionNumber},
    sealed::{FORMAT, MAX_JSON_BYTES, seal, unseal},
    tensors::{EncodedTensors, TensorFile, sha256},
};

/// Attempts to win a number before giving up; each lost one means that another
/// writer has won.
const MAX_RACES: usize = 1000;

/// Takes a tensors file back if the writing of its version is given up before
/// anything names the file.
struct Unpublished {
    backend: Arc<Backend>,
    path: Option<Path>,
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let (Some(path), Ok(runtime)) = (self.path.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let backend = Arc::clone(&self.backend);
        runtime.spawn(async move {
            // Best effort: what stays is swept when it is old enough.
            let _ = backend.delete(vec![path]).await;
        });
    }
}

impl Store {
    /// Publishes `draft` as the next version of a cache, which is made where it
    /// is new. When this returns, the version survives power loss. When it
    /// fails, or is dropped before its end, there is no such version, with one
    /// exception: where the storage does not answer one of the last requests,
    /// or the future is dropped during them, the version may appear, whole.
    ///
    /// # Errors
    /// [`StoreError::InvalidDraft`], [`StoreError::Full`],
    /// [`StoreError::Refused`], [`StoreError::Unavailable`].
    pub async fn create_version(&self, id: &CacheId, draft: Draft) -> Result<Manifest, StoreError> {
        self.create_version_if(id, draft, &Condition::default())
            .await
    }

    /// [`Self::create_version`], where a condition holds. It is looked at first
    /// and again just before the version is published. An etag holds exactly
    /// against other versions: of several writers that expect the same one,
    /// one wins. (An alias that is moved between that last look and the
    /// publication is not seen: the two are different objects.)
    ///
    /// # Errors
    /// [`StoreError::EtagMismatch`]; [`StoreError::NotFound`] where something
    /// needed is not there; else as [`Self::create_version`].
    pub async fn create_version_if(
        &self,
        id: &CacheId,
        draft: Draft,
        condition: &Condition,
    ) -> Result<Manifest, StoreError> {
        let what = format!("a version of {}", id.resource_name());
        let Draft { details, tensors } = draft;
        let encoded = blocking("encoding tensors", || EncodedTensors::new(tensors)).await??;
        let mut manifest = Manifest {
            format: FORMAT,
            cache: id.clone(),
            version: VersionNumber::FIRST,
            create_time: Utc::now(),
            details,
            tensors: TensorsRecord {
                name: layout::tensors_name(),
                size: encoded.size,
                sha256: encoded.sha256,
            },
        };
        // What cannot be read back (a NaN has no JSON) is refused before it is
        // written.
        unseal::<Manifest>(&what, "manifest.json", &seal(&what, &manifest)?)
            .map_err(|e| StoreError::invalid(&what, e))?;

        let (number, since) = self.next_number(id, condition).await?;
        manifest.version = number;
        die_at!("store::version::encoded");
        let tensors_of = |number| layout::tensors(id, number, &manifest.tensors.name);
        let started = Instant::now();
        let mut guard = Unpublished {
            backend: Arc::clone(&self.backend),
            path: Some(tensors_of(manifest.version)),
        };
        self.backend
            .put(
                &tensors_of(manifest.version),
                encoded.chunks.clone(),
                encoded.size,
            )
            .await?;
        die_at!("store::version::tensors");

        for _ in 0..MAX_RACES {
            if started.elapsed() > self.options.leftover_age / 4 {
                return Err(StoreError::conflict(
                    what,
                    "publishing took so long that its parts may have been swept; try again",
                ));
            }
            if !condition.is_none() {
                let view = self.views.fresh(id).await?;
                condition.check(&view)?;
                condition.check_not_cleared(&view, since)?;
            }
            manifest.create_time = Utc::now();
            let body = seal(&what, &manifest)?;
            let path = layout::manifest(id, manifest.version);
            // From here on a manifest may name the file.
            let tensors = guard.path.take();
            let created = self.backend.create(&path, body.clone()).await;
            die_at!("store::version::manifest");
            match created {
                Ok(true) => {
                    // The number may have been that of a version published and
                    // deleted since we looked: then ours was never visible.
                    let view = self.views.fresh(id).await?;
                    if !view.state()?.is_deleted(manifest.version) {
                        if let Err(cleared) = condition.check_not_cleared(&view, since) {
                            self.take_back(id, manifest.version).await?;
                            return Err(cleared);
                        }
                        die_at!("store::version::confirmed");
                        return unseal(&what, path.as_ref(), &body);
                    }
                    condition.check(&view)?;
                }
                Ok(false) => {
                    guard.path = tensors;
                    condition.check(&*self.views.fresh(id).await?)?;
                }
                Err(e) => {
                    let local = self.backend.folder().is_some();
                    if local && matches!(self.backend.head(&path).await, Ok(None)) {
                        guard.path = tensors;
                    }
                    return Err(e);
                }
            }
            // Lost: take the file along to the next number.
            let (next, _) = self.next_number(id, condition).await?;
            let from = tensors_of(manifest.version);
            guard.path = Some(from.clone());
            let to = tensors_of(next);
            if self.backend.copy(&from, &to).await.is_err() {
                // Gone with the version that won the number and was deleted,
                // or too large for one copy: written once more.
                let chunks = encoded.chunks.clone();
                self.backend.put(&to, chunks, encoded.size).await?;
            }
            die_at!("store::version::moved");
            guard.path = Some(to);
            let _ = self.backend.delete(vec![from]).await; // else swept later
            manifest.version = next;
        }
        Err(StoreError::conflict(
            what,
            format!("{MAX_RACES} other writers were faster"),
        ))
    }

    /// The number that comes next, and the sequence of the state that says so.
    async fn next_number(
        &self,
        id: &CacheId,
        condition: &Condition,
    ) -> Result<(VersionNumber, u64), StoreError> {
        let view = self.views.fresh(id).await?;
        // Deletions that cannot be read could hide higher numbers.
        let sequence = view.state()?.sequence;
        condition.check(&view)?;
        let number = VersionNumber::new(view.highest().saturating_add(1)).ok_or_else(|| {
            StoreError::conflict(id.resource_name(), "its version numbers are used up")
        })?;
        Ok((number, sequence))
    }

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
        let path = layout::manifest(id, number);
        let text = match exists {
            true => self.backend.read(&path, MAX_JSON_BYTES).await?,
            false => None,
        };
        let Some(text) = text else {
            return Err(self.missing_version(id, number).await);
        };
        let what = id.version_name(number);
        let manifest: Manifest = unseal(&what, path.as_ref(), &text)?;
        if manifest.cache != *id
            || manifest.version != number
            || !layout::is_tensors_name(&manifest.tensors.name)
        {
            return Err(StoreError::damaged(
                what,
                format!("{path}: it is the manifest of {}", manifest.resource_name()),
            ));
        }
        Ok(manifest)
    }

    /// A version with its tensors, every byte checked against the manifest's
    /// SHA-256. Time is in proportion to size; memory too, but for large local
    /// files, which are mapped. A version found damaged is set aside: it is
    /// refused without another reading for as long as its file stays as it is.
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
        let digest = blocking("checking tensors", move || sha256(&[hashed])).await?;
        if digest != record.sha256 {
            return Err(damaged(format!(
                "its SHA-256 is {digest} instead of {}",
                record.sha256
            )));
        }
        TensorFile::parse(bytes).map_err(damaged)
    }
}
