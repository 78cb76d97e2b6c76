//! Changes of a cache's state: aliases, deletions, retention. Each is one new
//! state record, created only if no other change came first.

use std::time::Duration;

use object_store::path::Path;

use super::{
    CacheInfo, Store, StoreError,
    condition::check_etag,
    fault::die_at,
    layout,
    name::{AliasName, CacheId, Reference, VersionNumber, VersionSelector},
    sealed::seal,
    state::{AliasRecord, State},
    view::View,
};

/// Attempts to be the next change; each lost one means that another has won.
const MAX_RACES: usize = 1000;
/// When whoever was not told what became of a change should look.
const UNCONFIRMED_RETRY: Duration = Duration::from_secs(1);

impl Store {
    /// Lets `edit` change the newest state until it is accepted; `edit` returns
    /// what changed, in words, or none to leave all as it is. A damaged state
    /// counts as an error unless `edit` is to start from an empty one.
    async fn change(
        &self,
        id: &CacheId,
        over_damage: bool,
        mut edit: impl FnMut(&View, &mut State) -> Result<Option<String>, StoreError>,
    ) -> Result<(), StoreError> {
        let environment = &self.options.environment;
        for race in 0..MAX_RACES {
            let view = self.views.fresh(id).await?;
            let newest = match view.state() {
                Ok(state) => State::clone(state),
                Err(StoreError::Damaged { .. }) if over_damage => {
                    view.check_numbers_known()?;
                    State::empty(id)
                }
                Err(e) => return Err(e),
            };
            let mut next = newest.next(view.newest_state() + 1, self.random_nonce());
            let Some(change) = edit(&view, &mut next)? else {
                return Ok(());
            };
            next.time = environment.time_of_day();
            next.change = change;
            die_at!("store::state::before");
            let body = seal(&id.resource_name(), &next)?;
            let path = layout::state(id, next.sequence);
            let ours = self.backend.create(&path, body).await?;
            die_at!("store::state::written");
            if ours && self.confirm(id, &next, &path).await? {
                return Ok(());
            }
            let most = race.min(50) as u128 + 2;
            let pause = u64::try_from(environment.random() % most).unwrap_or_default();
            environment.sleep(Duration::from_millis(pause)).await;
        }
        Err(StoreError::conflict(
            id.resource_name(),
            format!("{MAX_RACES} other changes came first"),
        ))
    }

    /// Whether a record that was created is part of the cache's history. One
    /// whose writer slept for long may not be: its sequence number was another
    /// record's, swept since.
    async fn confirm(&self, id: &CacheId, ours: &State, path: &Path) -> Result<bool, StoreError> {
        // So that this server sees its own change at once. Where the storage does
        // not answer, the record may be one that does not count: its outcome is
        // unknown, and nobody may be told that the change was made.
        let view = self.views.fresh(id).await?;
        match view.state()?.includes(ours) {
            Some(true) => {}
            Some(false) => {
                self.backend.delete(vec![path.clone()]).await?;
                return Ok(false);
            }
            // To make it once more could undo what others have done since.
            None => {
                return Err(StoreError::Unavailable {
                    doing: format!("confirming a change of {}", id.resource_name()),
                    detail: "so many others came since that it is not known whether it counts"
                        .to_owned(),
                    retry_after: UNCONFIRMED_RETRY,
                });
            }
        }
        if let Err(error) = self.raise_high_water(&view, 0).await {
            // The change itself is durable.
            tracing::warn!(cache = %id, %error, "no high-water mark was written");
        }
        Ok(true)
    }

    /// Points an alias at a version, in one atomic step; makes it if it is new.
    /// With `expected`, only if the cache has that etag.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the version does not exist,
    /// [`StoreError::EtagMismatch`].
    pub async fn set_alias(
        &self,
        id: &CacheId,
        alias: &AliasName,
        version: VersionNumber,
        expected: Option<&str>,
    ) -> Result<CacheInfo, StoreError> {
        self.change(id, false, |view, state| {
            check_exists(view)?;
            check_etag(view, expected)?;
            check_has(view, version)?;
            if state
                .aliases
                .get(alias)
                .is_some_and(|a| a.version == version)
            {
                return Ok(None);
            }
            let changed = state.sequence;
            let record = AliasRecord { version, changed };
            state.aliases.insert(alias.clone(), record);
            Ok(Some(format!("alias {alias} set to version {version}")))
        })
        .await?;
        self.cache(id).await
    }

    /// Removes an alias; the version stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::EtagMismatch`] where `expected`
    /// is given and the cache has another etag.
    pub async fn delete_alias(
        &self,
        id: &CacheId,
        alias: &AliasName,
        expected: Option<&str>,
    ) -> Result<CacheInfo, StoreError> {
        self.change(id, false, |view, state| {
            check_exists(view)?;
            check_etag(view, expected)?;
            match state.aliases.remove(alias) {
                Some(_) => Ok(Some(format!("alias {alias} removed"))),
                None => Err(StoreError::not_found(id.alias_name(alias))),
            }
        })
        .await?;
        self.cache(id).await
    }

    /// Deletes one version. Its number is never used again. With `expected`,
    /// only if the cache has that etag.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where an alias points
    /// at it, or where it is the cache's only version;
    /// [`StoreError::EtagMismatch`].
    pub async fn delete_version(
        &self,
        id: &CacheId,
        version: VersionNumber,
        expected: Option<&str>,
    ) -> Result<(), StoreError> {
        let what = id.version_name(version);
        self.change(id, false, |view, state| {
            check_exists(view)?;
            check_etag(view, expected)?;
            check_has(view, version)?;
            let aliases = state.aliases_of(version);
            if !aliases.is_empty() {
                let aliases: Vec<&str> = aliases.iter().map(|a| a.as_str()).collect();
                let detail = format!(
                    "{} point{} at it",
                    aliases.join(", "),
                    if aliases.len() == 1 { "s" } else { "" }
                );
                return Err(StoreError::conflict(&what, detail));
            }
            if view.versions()?.len() == 1 {
                let detail = "it is the cache's only version; delete the cache instead";
                return Err(StoreError::conflict(&what, detail));
            }
            state.delete(version.get(), version.get());
            Ok(Some(format!("version {version} deleted")))
        })
        .await?;
        self.remove_deleted(id).await;
        Ok(())
    }

    /// Deletes a cache with all its versions and aliases, in one atomic step.
    /// If a cache of that id is made again, its numbers go on from the old ones.
    /// With `expected`, only if the cache has that etag.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::EtagMismatch`].
    pub async fn delete_cache(
        &self,
        id: &CacheId,
        expected: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut highest = 0;
        self.change(id, true, |view, state| {
            match check_exists(view) {
                // A cache whose state is damaged can still be deleted, if the
                // caller states no etag.
                Err(StoreError::Damaged { .. }) if expected.is_none() => {}
                other => other?,
            }
            check_etag(view, expected)?;
            state.aliases.clear();
            state.cleared = state.sequence;
            highest = view.highest();
            if highest > 0 {
                state.delete(1, highest);
            }
            Ok(Some("cache deleted".into()))
        })
        .await?;
        self.remove_deleted(id).await;
        self.delete_orphans(id, highest).await?;
        if let Err(error) = self.bury(id).await {
            tracing::warn!(cache = %id, %error, "what is left of it stays until swept");
        }
        Ok(())
    }

    /// Deletes children of versions up to `highest`, all deleted with their
    /// cache, that were published between the listing that the deletion was
    /// made from and its record: neither side could see the other.
    async fn delete_orphans(&self, id: &CacheId, highest: u64) -> Result<(), StoreError> {
        let view = self.views.fresh(id).await?;
        for (version, _) in view.versions()? {
            let Ok(manifest) = self.manifest(id, version).await else {
                continue; // gone, or damaged: its parent is not known
            };
            let parent = manifest.details.parent.as_deref();
            let parent = parent.and_then(|name| name.parse::<Reference>().ok());
            let orphan = parent.is_some_and(|parent| {
                let deleted = |number: VersionNumber| number.get() <= highest;
                parent.cache == *id
                    && matches!(parent.version, VersionSelector::Number(n) if deleted(n))
            });
            if version.get() > highest && orphan {
                self.take_back(id, version).await?;
            }
        }
        Ok(())
    }

    /// Which versions [`Self::retain`] would delete now, newest first.
    ///
    /// # Errors
    /// As [`Self::retain`].
    pub async fn superseded(
        &self,
        id: &CacheId,
        keep: usize,
        expected: Option<&str>,
    ) -> Result<Vec<VersionNumber>, StoreError> {
        superseded(&*self.views.fresh(id).await?, keep, expected)
    }

    /// Deletes all versions but the newest `keep` (at least 1) and those that
    /// an alias points at, in one atomic step; returns the deleted ones, newest
    /// first. With `expected`, only if the cache has that etag.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such cache,
    /// [`StoreError::EtagMismatch`].
    pub async fn retain(
        &self,
        id: &CacheId,
        keep: usize,
        expected: Option<&str>,
    ) -> Result<Vec<VersionNumber>, StoreError> {
        let mut deleted = Vec::new();
        self.change(id, false, |view, state| {
            deleted = superseded(view, keep, expected)?;
            for version in &deleted {
                state.delete(version.get(), version.get());
            }
            let count = deleted.len();
            Ok((count > 0).then(|| format!("{count} versions deleted by retention")))
        })
        .await?;
        if !deleted.is_empty() {
            self.remove_deleted(id).await;
        }
        Ok(deleted)
    }

    /// Deletes a version that should not have been published, even if it is the
    /// only one; one that an alias names by now stays.
    pub(super) async fn take_back(
        &self,
        id: &CacheId,
        version: VersionNumber,
    ) -> Result<(), StoreError> {
        self.change(id, false, |view, state| {
            let there = view.has(version)? || view.is_swept(version);
            if !there || !state.aliases_of(version).is_empty() {
                return Ok(None);
            }
            state.delete(version.get(), version.get());
            Ok(Some(format!("version {version} taken back")))
        })
        .await?;
        self.remove_deleted(id).await;
        Ok(())
    }

    /// Removes the bytes of deleted versions. What fails here is swept later:
    /// the versions are already deleted.
    async fn remove_deleted(&self, id: &CacheId) {
        die_at!("store::delete::before_bytes");
        let removed = match self.views.fresh(id).await {
            Ok(view) => self.remove_objects_of_deleted(&view).await.map(drop),
            Err(e) => Err(e),
        };
        if let Err(error) = removed {
            tracing::warn!(cache = %id, %error, "bytes of deleted versions stay until swept");
        }
    }

    /// Removes what the state says is deleted; returns how many objects.
    pub(super) async fn remove_objects_of_deleted(&self, view: &View) -> Result<usize, StoreError> {
        let state = view.state()?;
        let paths = view.objects_of(|version| state.is_deleted(version));
        let count = paths.len();
        if count > 0 {
            // Once the manifests are gone, only the state would know the
            // numbers.
            self.raise_high_water(view, 0).await?;
        }
        for path in paths {
            self.backend.delete(vec![path]).await?;
            die_at!("store::delete::half");
        }
        self.damaged
            .retain(|(id, version), _| *id != view.id || !state.is_deleted(*version));
        Ok(count)
    }
}

fn check_exists(view: &View) -> Result<(), StoreError> {
    match view.latest()? {
        Some(_) => Ok(()),
        None => Err(StoreError::not_found(view.id.resource_name())),
    }
}

fn check_has(view: &View, version: VersionNumber) -> Result<(), StoreError> {
    if view.has(version)? {
        return Ok(());
    }
    let reference = Reference {
        cache: view.id.clone(),
        version: VersionSelector::Number(version),
    };
    Err(super::missing(view, &reference))
}

/// All versions but the newest `keep` and those with aliases, newest first.
fn superseded(
    view: &View,
    keep: usize,
    expected: Option<&str>,
) -> Result<Vec<VersionNumber>, StoreError> {
    check_exists(view)?;
    check_etag(view, expected)?;
    let state = view.state()?;
    Ok(view
        .versions()?
        .iter()
        .rev()
        .skip(keep.max(1))
        .map(|(version, _)| *version)
        .filter(|version| state.aliases_of(*version).is_empty())
        .collect())
}
