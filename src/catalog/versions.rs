//! Storing, importing and deleting versions; deleted ones leave memory at once.

use bytes::Bytes;

use super::{
    Catalog, CatalogError, MemoryPermit,
    check::{ImportBounds, check_version},
    compute,
    version_memory::manifest_bytes,
};
use crate::telemetry;
use tipserve_store::{
    CacheId, Condition, Draft, Export, Manifest, Reference, RequestKey, Store, StoreError,
    VersionNumber, VersionSelector,
};

/// Caches examined in one go when all are pruned.
const PAGE: usize = 256;

impl Catalog {
    /// Stores a draft as the cache's next version, where a condition holds, and
    /// loads it, so that a version reported as made is known to serve. Then
    /// versions beyond those to keep are deleted.
    ///
    /// # Errors
    /// [`CatalogError::WrongDtype`], before anything is published: other
    /// servers on the store would see the version meanwhile. The store's.
    pub async fn store_version(
        &self,
        id: &CacheId,
        draft: Draft,
        condition: &Condition,
    ) -> Result<Manifest, CatalogError> {
        let details = &draft.details;
        if let Some(bundle) = self.bundles.of_fingerprint(&details.bundle_fingerprint) {
            let encoder = bundle.model.encoder();
            encoder.check_details(details, || id.resource_name())?;
        }
        let manifest = self.store.create_version_if(id, draft, condition).await?;
        if self.bundles.of_manifest(&manifest).is_ok() {
            self.check_loads(&manifest).await?;
        }
        telemetry::version_created();
        tracing::info!(version = manifest.resource_name(), "made a version");
        self.keep_newest(id).await;
        Ok(manifest)
    }

    /// Loads what was just published. A version that cannot serve was not made:
    /// it is taken back. One that cannot be loaded now (the store does not
    /// answer, memory is in use) is durable, and stays.
    async fn check_loads(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        let reference = Reference {
            cache: manifest.cache.clone(),
            version: VersionSelector::Number(manifest.version),
        };
        let Err(error) = self.classifier(&reference).await else {
            return Ok(());
        };
        let version = manifest.resource_name();
        // Its bundle may have been unloaded meanwhile.
        if error.is_passing() || matches!(error, CatalogError::WrongBundle { .. }) {
            tracing::warn!(version, %error, "it could not be loaded yet");
            return Ok(());
        }
        tracing::error!(version, %error, "it does not load, and is taken back");
        let retracted = self
            .store
            .retract_version(&manifest.cache, manifest.version);
        if let Err(error) = retracted.await {
            tracing::error!(version, %error, "it could not be taken back");
        }
        Err(error)
    }

    /// A version as one file, for a caller, and the memory that it takes.
    ///
    /// # Errors
    /// The store's.
    pub async fn export(
        &self,
        id: &CacheId,
        number: VersionNumber,
        caller: Option<&str>,
    ) -> Result<(Export, MemoryPermit), CatalogError> {
        let manifest = self.store.manifest(id, number).await?;
        let bytes = self.store.memory_of(manifest.tensors.size) + manifest_bytes(&manifest);
        let memory = self.version_memory.take(caller, bytes).await;
        Ok((self.store.export(id, number).await?, memory))
    }

    /// Publishes an exported file as the next version of a cache, once it is
    /// known to make sense. With `request`, it is safe to repeat.
    ///
    /// # Errors
    /// A file that is no whole export, or whose tensors do not fit its manifest
    /// or each other; [`CatalogError::WrongBundle`];
    /// [`CatalogError::WrongDtype`]; a bound that is passed; the store's.
    pub async fn import(
        &self,
        id: &CacheId,
        file: Bytes,
        bounds: ImportBounds,
        condition: &Condition,
        request: Option<RequestKey>,
    ) -> Result<Manifest, CatalogError> {
        let imported = Store::read_export(file).await?;
        let bundle = self.bundles.of_manifest(&imported.manifest);
        let called = || format!("the imported {}", imported.manifest.resource_name());
        match &bundle {
            Ok(bundle) => {
                let encoder = bundle.model.encoder();
                encoder.check_details(&imported.manifest.details, called)?;
            }
            Err(_) if bounds.other_bundle => {}
            Err(_) => return Err(self.bundles.not_loaded(called(), &imported.manifest)),
        }
        let own_width = bundle.ok().map(|bundle| bundle.model.width);
        let created_by = bounds.created_by.clone();
        let mut imported =
            compute(move || check_version(&imported, own_width, &bounds).map(|()| imported))
                .await??;
        if !created_by.is_empty() {
            imported.manifest.details.created_by = created_by;
        }
        let draft = Draft {
            request,
            ..imported.draft()
        };
        self.store_version(id, draft, condition).await
    }

    /// Deletes a cache, and forgets its versions.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_cache(
        &self,
        id: &CacheId,
        expected: Option<&str>,
    ) -> Result<(), CatalogError> {
        self.store.delete_cache(id, expected).await?;
        self.forget(id, |_| true);
        Ok(())
    }

    /// Deletes a version, and forgets it.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_version(
        &self,
        id: &CacheId,
        number: VersionNumber,
        expected: Option<&str>,
    ) -> Result<(), CatalogError> {
        self.store.delete_version(id, number, expected).await?;
        self.forget(id, |version| version == number);
        Ok(())
    }

    /// Deletes all versions but the newest `keep` and those with an alias, and
    /// forgets them. Returns them, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn prune(
        &self,
        id: &CacheId,
        keep: usize,
        expected: Option<&str>,
    ) -> Result<Vec<VersionNumber>, CatalogError> {
        let deleted = self.store.retain(id, keep, expected).await?;
        self.forget(id, |version| deleted.contains(&version));
        Ok(deleted)
    }

    /// Sweeps the store, applies the server's retention to every cache, and
    /// drops from memory what other servers deleted.
    ///
    /// # Errors
    /// The store's; what is left is done the next time.
    pub async fn tidy(&self) -> Result<(), CatalogError> {
        let swept = self.store.sweep().await?;
        tracing::debug!(?swept, "swept the store");
        if self.keep_versions > 0 {
            self.keep_newest_of_all().await?;
        }
        for key in self.resident.keys() {
            let reference = Reference {
                cache: key.cache.clone(),
                version: VersionSelector::Number(key.version),
            };
            match self.store.identify(&reference).await {
                Ok(known) if known == key => {}
                Ok(_) | Err(StoreError::NotFound { .. }) => {
                    self.resident.remove(&key);
                    let name = key.cache.version_name(key.version);
                    telemetry::versions_deleted(|deleted| deleted == name);
                }
                Err(error) => tracing::debug!(version = %key, %error, "it is kept in memory"),
            }
        }
        Ok(())
    }

    async fn keep_newest_of_all(&self) -> Result<(), CatalogError> {
        let mut after = None;
        loop {
            let page = self.store.list_caches(PAGE, after.as_ref()).await?;
            for info in &page.caches {
                if info.versions.len() > self.keep_versions {
                    self.keep_newest(&info.id).await;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Applies the server's retention to a cache. What fails is done by the
    /// next sweep.
    async fn keep_newest(&self, id: &CacheId) {
        if self.keep_versions == 0 {
            return;
        }
        match self.prune(id, self.keep_versions, None).await {
            Ok(deleted) if deleted.is_empty() => {}
            Ok(deleted) => {
                let keep_versions = self.keep_versions;
                tracing::info!(cache = %id, ?deleted, keep_versions, "deleted old versions");
            }
            Err(error) => tracing::warn!(cache = %id, %error, "could not delete old versions"),
        }
    }

    fn forget(&self, id: &CacheId, gone: impl Fn(VersionNumber) -> bool) {
        for key in self.resident.keys() {
            if key.cache == *id && gone(key.version) {
                self.resident.remove(&key);
            }
        }
        // Not those of resident versions alone: what was evicted has series too.
        telemetry::versions_deleted(|name| {
            let Ok(Reference { cache, version }) = name.parse() else {
                return false;
            };
            cache == *id && matches!(version, VersionSelector::Number(number) if gone(number))
        });
        let mut listed = self.listed.lock();
        if listed.as_ref().is_some_and(|l| l.is_of(id, &gone)) {
            *listed = None;
        }
    }
}
