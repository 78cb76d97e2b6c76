//! Publishing a version in one atomic step, and acknowledging it only once
//! every part of it has been verified.

use std::{sync::Arc, time::Duration};

use object_store::path::Path;

use super::{
    Condition, Store, StoreError,
    backend::{Backend, working},
    fault::die_at,
    layout,
    manifest::{Draft, Manifest, TensorsRecord},
    name::{CacheId, VersionNumber},
    sealed::{FORMAT, seal, unseal},
    tensors::EncodedTensors,
    view::View,
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
        let Some(path) = self.path.take() else {
            return;
        };
        let backend = Arc::clone(&self.backend);
        self.backend.environment().spawn(Box::pin(async move {
            // Best effort: the rest is swept when it is old enough.
            let _ = backend.delete(vec![path]).await;
        }));
    }
}

/// A version in the making: its tensors are written, its manifest is not.
struct Publication<'a> {
    store: &'a Store,
    condition: &'a Condition,
    manifest: Manifest,
    encoded: EncodedTensors,
    /// Sequence of the cache's state when its number was chosen.
    since: u64,
    begun: Duration,
    unpublished: Unpublished,
}

/// The outcome of an attempt to publish under one number.
enum Attempt {
    /// It is there, and acknowledged.
    Published,
    /// The request had made this version before.
    Repeated(Box<Manifest>),
    /// Another writer published under the number first.
    Lost,
}

impl Store {
    /// Publishes `draft` as the next version of a cache, which is made where it
    /// is new. When this returns, the version survives power loss. When it
    /// fails, or is dropped before its end, there is no such version, with one
    /// exception: where the storage does not answer one of the last requests,
    /// or the future is dropped during them, the version may appear, whole.
    /// With a key ([`Draft::request`]) asking again is safe: it returns the
    /// version that the request made before, if that is there.
    ///
    /// # Errors
    /// [`StoreError::InvalidDraft`], [`StoreError::RequestReused`],
    /// [`StoreError::Full`], [`StoreError::Refused`],
    /// [`StoreError::Unavailable`], [`StoreError::NotDurable`].
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
        let Draft {
            details,
            tensors,
            request,
        } = draft;
        let what = format!("a version of {}", id.resource_name());
        if let Some(request) = &request
            && let Some(made) = self.made_by(id, request).await?
        {
            return Ok(made);
        }
        let bytes = tensors.iter().map(|t| t.bytes.len()).sum();
        let encode = || EncodedTensors::new(tensors);
        let encoded = working("encoding tensors", bytes, encode).await??;
        let environment = &self.options.environment;
        let name = layout::tensors_name(
            environment.random(),
            request.as_ref().map(|request| request.id.as_str()),
        );
        let (request_id, request_digest) = request.map(|key| (key.id, key.digest)).unzip();
        let manifest = Manifest {
            format: FORMAT,
            cache: id.clone(),
            version: VersionNumber::FIRST,
            create_time: environment.time_of_day(),
            details,
            request_id,
            request_digest,
            tensors: TensorsRecord {
                name,
                size: encoded.size,
                sha256: encoded.sha256.clone(),
            },
        };
        // A manifest that cannot be read back (a NaN has no JSON) is refused
        // before it is written.
        unseal::<Manifest>(&what, "manifest.json", &seal(&what, &manifest)?)
            .map_err(|e| StoreError::invalid(&what, e))?;
        let mut publication = Publication {
            store: self,
            condition,
            manifest,
            encoded,
            since: 0,
            begun: Duration::ZERO,
            unpublished: Unpublished {
                backend: Arc::clone(&self.backend),
                path: None,
            },
        };
        publication.run().await
    }

    /// Withdraws a version that turned out not to load, or not to be durable,
    /// before its caller was answered. It stays if an alias names it by now.
    ///
    /// # Errors
    /// Those of the storage: then the version may stay.
    pub async fn retract_version(
        &self,
        id: &CacheId,
        version: VersionNumber,
    ) -> Result<(), StoreError> {
        self.take_back(id, version).await
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

    /// Records, besides the state and the manifests, how high numbers and
    /// sequences have come, so that the loss of any of these is noticed and no
    /// number is used twice. A failure costs that, not the change itself.
    pub(super) async fn raise_high_water(
        &self,
        view: &View,
        number: u64,
    ) -> Result<(), StoreError> {
        let mark = view.mark_with(number)?;
        if mark.number == 0 && mark.sequence == 0 || view.is_marked(&mark) {
            return Ok(());
        }
        let body = format!("state record {}, version {}\n", mark.sequence, mark.number);
        let path = layout::mark(&view.id, &mark);
        self.backend.create(&path, body.into()).await.map(drop)
    }
}

impl Publication<'_> {
    fn id(&self) -> &CacheId {
        &self.manifest.cache
    }

    fn tensors_at(&self, number: VersionNumber) -> Path {
        layout::tensors(self.id(), number, &self.manifest.tensors.name)
    }

    async fn run(&mut self) -> Result<Manifest, StoreError> {
        let (number, since) = self.store.next_number(self.id(), self.condition).await?;
        (self.manifest.version, self.since) = (number, since);
        die_at!("store::version::encoded");
        self.begun = self.store.options.environment.now();
        self.write_tensors(number).await?;
        die_at!("store::version::tensors");
        for _ in 0..MAX_RACES {
            match self.attempt().await? {
                Attempt::Published => return Ok(self.manifest.clone()),
                Attempt::Repeated(made) => return Ok(*made),
                Attempt::Lost => self.move_on().await?,
            }
        }
        let what = self.id().resource_name();
        let detail = format!("{MAX_RACES} other writers were faster");
        Err(StoreError::conflict(what, detail))
    }

    async fn write_tensors(&mut self, number: VersionNumber) -> Result<(), StoreError> {
        let path = self.tensors_at(number);
        self.unpublished.path = Some(path.clone());
        let (chunks, size) = (self.encoded.chunks.clone(), self.encoded.size);
        self.store.backend.put(&path, chunks, size).await
    }

    fn swept(&self) -> StoreError {
        StoreError::conflict(
            format!("a version of {}", self.id().resource_name()),
            "publishing took so long that its parts were swept, or may have been; try again",
        )
    }

    /// Tries to publish under the present number.
    async fn attempt(&mut self) -> Result<Attempt, StoreError> {
        let store = self.store;
        let environment = &store.options.environment;
        let request_id = self.manifest.request_id.as_deref();
        if request_id.is_some() || !self.condition.is_none() {
            let view = store.views.fresh(self.id()).await?;
            // An earlier attempt of the same request may have published
            // already. One that publishes after this check either takes the
            // number that we are about to take, and one of us fails, or sees
            // our version.
            if let Some(request_id) = request_id {
                let digest = self.manifest.request_digest.as_deref();
                let made = store.version_of_request(&view, request_id, digest, None);
                if let Some(made) = made.await? {
                    return Ok(Attempt::Repeated(Box::new(made)));
                }
            }
            self.condition.check(&view)?;
            self.condition.check_not_cleared(&view, self.since)?;
        }
        // Last of all: what comes before waits for the storage, for hours if
        // this process is suspended.
        let taken = environment.now().saturating_sub(self.begun);
        if taken > store.options.leftover_age / 4 {
            return Err(self.swept());
        }
        self.manifest.create_time = environment.time_of_day();
        let body = seal(&self.id().resource_name(), &self.manifest)?;
        let path = layout::manifest(self.id(), self.manifest.version);
        // From here on a manifest may name the file.
        let tensors = self.unpublished.path.take();
        let created = store.backend.create(&path, body).await;
        die_at!("store::version::manifest");
        match created {
            Ok(true) => self.acknowledge().await,
            Ok(false) => {
                self.unpublished.path = tensors;
                let view = store.views.fresh(self.id()).await?;
                self.condition.check(&view)?;
                Ok(Attempt::Lost)
            }
            Err(error @ StoreError::NotDurable { .. }) => {
                // It may be visible, yet gone after a power loss: nobody must
                // build on it.
                self.retract("it is not durable").await;
                Err(error)
            }
            Err(error) => {
                let local = store.backend.folder().is_some();
                if local && matches!(store.backend.head(&path).await, Ok(None)) {
                    self.unpublished.path = tensors;
                }
                Err(error)
            }
        }
    }

    /// Verifies that what was published exists, and is meant to.
    async fn acknowledge(&self) -> Result<Attempt, StoreError> {
        let (store, version) = (self.store, self.manifest.version);
        let view = store.views.fresh(self.id()).await?;
        // Either the number was that of a version published and deleted since
        // we looked, and ours was never visible; or ours was, and somebody has
        // deleted it. A condition that no longer holds would be refused as if
        // nothing had been published, which the second case denies.
        if view.state()?.is_deleted(version) {
            if self.condition.is_none() {
                return Ok(Attempt::Lost);
            }
            let detail = "it was deleted while it was published; look at the cache, and try again";
            return Err(StoreError::conflict(
                self.id().version_name(version),
                detail,
            ));
        }
        // A sweep that gives notice before our manifest is listed may remove
        // the file after we see it; one that gives notice later sees the
        // manifest.
        let record = &self.manifest.tensors;
        let file = view.tensors_file(version, &record.name);
        if file.is_none_or(|file| file.size != record.size)
            || view.is_noticed(version, &record.name)
        {
            self.retract("its tensors were swept").await;
            return Err(self.swept());
        }
        if let Err(cleared) = self.condition.check_not_cleared(&view, self.since) {
            store.take_back(self.id(), version).await?;
            return Err(cleared);
        }
        if let Some(request_id) = &self.manifest.request_id {
            let digest = self.manifest.request_digest.as_deref();
            let made = store
                .version_of_request(&view, request_id, digest, Some(version))
                .await;
            match made {
                Ok(None) => {}
                Ok(Some(made)) => {
                    store.take_back(self.id(), version).await?;
                    return Ok(Attempt::Repeated(Box::new(made)));
                }
                Err(error @ StoreError::RequestReused { .. }) => {
                    store.take_back(self.id(), version).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = store.raise_high_water(&view, version.get()).await {
            // The version itself is durable.
            tracing::warn!(cache = %self.id(), %error, "no high-water mark was written");
        }
        die_at!("store::version::confirmed");
        Ok(Attempt::Published)
    }

    /// Deletes what must not be visible, as far as possible now.
    async fn retract(&self, why: &str) {
        let version = self.manifest.version;
        if let Err(error) = self.store.take_back(self.id(), version).await {
            let version = self.id().version_name(version);
            tracing::error!(version, %error, why, "a version that was refused could not be removed");
        }
    }

    /// Takes the tensors along to the next number.
    async fn move_on(&mut self) -> Result<(), StoreError> {
        let store = self.store;
        let (next, _) = store.next_number(self.id(), self.condition).await?;
        let from = self.tensors_at(self.manifest.version);
        self.unpublished.path = Some(from.clone());
        let to = self.tensors_at(next);
        if store.backend.copy(&from, &to).await.is_ok() {
            self.unpublished.path = Some(to);
        } else {
            // Gone with the version that won the number and was deleted, or
            // too large for one copy: written once more.
            self.write_tensors(next).await?;
        }
        die_at!("store::version::moved");
        let _ = store.backend.delete(vec![from]).await; // else swept later
        self.manifest.version = next;
        Ok(())
    }
}
