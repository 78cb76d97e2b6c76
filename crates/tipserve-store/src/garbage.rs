//! Sweeping: what dead writers left, what deletions left, and records that
//! newer ones replaced.
//!
//! Ages are measured by the storage's clock: it dates the objects, and a
//! server's own clock may be off by days. Age only decides what is worth a
//! look; that nothing in use is removed does not rest on it (see
//! [`Store::sweep_leftover`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path as FilePath, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use super::{
    Store, StoreError,
    backend::{Backend, blocking},
    fault::die_at,
    folder::Listing,
    layout,
    name::{CacheId, VersionNumber},
    view::View,
};

/// What one sweep removed, counted by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Manifests and tensors files of deleted versions.
    pub deleted: usize,
    /// Tensors that no manifest names.
    pub leftovers: usize,
    /// State records and high-water marks that newer ones replaced.
    pub records: usize,
    /// Temporary files of a local store.
    pub staged: usize,
    /// Deleted caches that only a tombstone is left of.
    pub buried: usize,
    /// Records of runs that ended long ago.
    pub runs: usize,
    /// Caches that could not be swept (damaged, or of a newer format).
    pub skipped: usize,
}

/// For how many leftover ages a notice is kept in case its writer wakes up.
const NOTICE_AGES: u32 = 30;

/// The storage's time, asked for when it is first needed.
struct Age<'a> {
    backend: &'a Backend,
    least: Duration,
    now: OnceCell<DateTime<Utc>>,
}

impl Age<'_> {
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let asked = self.now.get_or_try_init(|| self.backend.clock());
        asked.await.copied()
    }

    /// Whether an object of that date is old enough to be swept.
    async fn reached(&self, time: DateTime<Utc>) -> Result<bool, StoreError> {
        self.reached_times(1, time).await
    }

    async fn reached_times(&self, times: u32, time: DateTime<Utc>) -> Result<bool, StoreError> {
        let age = self.now().await?.signed_duration_since(time).to_std();
        Ok(age.is_ok_and(|age| age >= self.least.saturating_mul(times)))
    }
}

impl Store {
    /// Sweeps the whole store once. Removes nothing that exists: objects of
    /// deleted versions at once, everything else when it is older than the
    /// store's `leftover_age`. Safe to run anywhere at any time, on several
    /// servers at once. Unfinished multipart uploads are the bucket's own
    /// matter (a lifecycle rule).
    ///
    /// # Errors
    /// Those of the storage; what is left is swept the next time.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let age = Age {
            backend: &self.backend,
            least: self.options.leftover_age,
            now: OnceCell::new(),
        };
        for name in self.backend.folders(&layout::caches()).await? {
            let Ok(id) = name.parse::<CacheId>() else {
                continue; // not ours
            };
            match self.sweep_cache(&id, &age, &mut swept).await {
                Err(StoreError::Damaged { .. } | StoreError::NewerFormat { .. }) => {
                    swept.skipped += 1;
                }
                other => other?,
            }
        }
        swept.runs = self.sweep_runs().await?;
        self.sweep_probes(&age).await?;
        if let Some(folder) = self.backend.folder() {
            swept.staged = sweep_folder(folder.to_owned(), &age).await?;
        }
        Ok(swept)
    }

    async fn sweep_cache(
        &self,
        id: &CacheId,
        age: &Age<'_>,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let view = self.views.fresh(id).await?;
        swept.deleted += self.remove_objects_of_deleted(&view).await?;
        // Stores of older servers have no marks.
        self.raise_high_water(&view, 0).await?;
        for (version, name) in self.leftovers(&view, age).await? {
            if self.sweep_leftover(id, version, &name).await? {
                swept.leftovers += 1;
            }
        }
        self.sweep_notices(id, age).await?;
        // The newest record and mark stay, so that sequences and numbers are
        // never reused.
        let newest = view.newest_state();
        for (sequence, time) in view.states() {
            if sequence < newest && age.reached(time).await? {
                let path = layout::state(id, sequence);
                self.backend.delete(vec![path]).await?;
                swept.records += 1;
            }
        }
        for (mark, time) in view.superseded_marks() {
            if age.reached(*time).await? {
                self.backend.delete(vec![layout::mark(id, mark)]).await?;
                swept.records += 1;
            }
        }
        swept.buried += usize::from(self.bury(id).await?);
        Ok(())
    }

    /// Tensors files that are old enough and that no manifest names.
    async fn leftovers(
        &self,
        view: &View,
        age: &Age<'_>,
    ) -> Result<Vec<(VersionNumber, String)>, StoreError> {
        let state = view.state()?;
        let mut found = Vec::new();
        for file in view.tensors() {
            let version = file.version;
            // A version whose manifest was lost may get it back from a backup.
            let lost = view.has(version)? && !view.has_manifest(version);
            if lost || state.is_deleted(version) {
                continue;
            }
            let several = || {
                view.tensors()
                    .iter()
                    .filter(|f| f.version == version)
                    .count()
                    > 1
            };
            if (!view.has_manifest(version) || several()) && age.reached(file.time).await? {
                found.push((version, file.name.clone()));
            }
        }
        Ok(found)
    }

    /// Removes a tensors file that no manifest names, unless one does by now.
    /// Its writer may be about to publish it, however long it has slept. So the
    /// sweep first gives notice and then looks for the manifest, while a writer
    /// first makes the manifest and then looks for notices: whatever the order,
    /// one of them sees the other. Returns whether the file was removed.
    async fn sweep_leftover(
        &self,
        id: &CacheId,
        version: VersionNumber,
        name: &str,
    ) -> Result<bool, StoreError> {
        let notice = layout::notice(id, version, name, &self.random_nonce());
        let body = format!("{name} is about to be swept\n");
        self.backend.create(&notice, body.into()).await?;
        die_at!("store::sweep::noticed");
        let view = self.views.fresh(id).await?;
        let named = match view.has_manifest(version) {
            false => false,
            true => match self.tensors_named(id, version).await {
                Ok(named) => named.is_none_or(|named| named == name),
                // It is unknown which file is the version's: all stay.
                Err(StoreError::Damaged { .. } | StoreError::NewerFormat { .. }) => true,
                Err(e) => return Err(e),
            },
        };
        if named && !view.state()?.is_deleted(version) {
            if view.is_swept(version) {
                // Published after a notice: absent to whoever looked since, so that it
                // must not appear once the notice is gone. Its writer refuses it, too.
                self.take_back(id, version).await?;
            } else {
                self.backend.delete(vec![notice]).await?;
            }
            return Ok(false);
        }
        let file = layout::tensors(id, version, name);
        self.backend.delete(vec![file]).await?;
        die_at!("store::sweep::half");
        // The notice stays until another manifest has the number: should the
        // writer make its own after all and die, it tells that the version was
        // never acknowledged.
        if view.has_manifest(version) {
            self.backend.delete(vec![notice]).await?;
        }
        Ok(true)
    }

    /// The tensors file that a version's manifest names; none if there is no
    /// such version any more.
    async fn tensors_named(
        &self,
        id: &CacheId,
        version: VersionNumber,
    ) -> Result<Option<String>, StoreError> {
        match self.manifest(id, version).await {
            Ok(manifest) => Ok(Some(manifest.tensors.name)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes back versions that were published after a sweep had given notice of
    /// their tensors, by writers that died before they saw it, and removes notices
    /// that are of no more use.
    async fn sweep_notices(&self, id: &CacheId, age: &Age<'_>) -> Result<(), StoreError> {
        let view = self.views.fresh(id).await?;
        for (version, name, notice) in view.notices() {
            if view.is_swept(*version) {
                // The notice goes with the version.
                self.take_back(id, *version).await?;
                continue;
            }
            if view.tensors_file(*version, name).is_some() {
                continue;
            }
            let given = notice.last_modified;
            let settled = match view.manifest_time(*version) {
                None => age.reached_times(NOTICE_AGES, given).await?,
                Some(published) => {
                    let named = match self.tensors_named(id, *version).await {
                        Ok(named) => named,
                        // Its manifest cannot tell.
                        Err(StoreError::Damaged { .. } | StoreError::NewerFormat { .. }) => {
                            continue;
                        }
                        Err(e) => return Err(e),
                    };
                    // A version that existed before the notice is damaged, not
                    // unacknowledged.
                    if named.as_ref() == Some(name) && given < published {
                        self.take_back(id, *version).await?;
                    }
                    true
                }
            };
            if settled {
                self.backend.delete(vec![notice.location.clone()]).await?;
            }
        }
        Ok(())
    }

    /// Removes what reading the storage's time has left.
    async fn sweep_probes(&self, age: &Age<'_>) -> Result<(), StoreError> {
        for probe in self.backend.list(&layout::clock_probes()).await? {
            if age.reached(probe.last_modified).await? {
                self.backend.delete(vec![probe.location]).await?;
            }
        }
        Ok(())
    }
}

impl Listing {
    /// Versions whose tensors a sweep had given notice of before their manifests
    /// were made. Which tensors those are only the manifest says: others under the
    /// same number, of writers that lost the race for it, come and go.
    pub(crate) async fn find_swept(
        &self,
        backend: &Backend,
        id: &CacheId,
    ) -> Result<BTreeSet<VersionNumber>, StoreError> {
        let mut noticed: BTreeMap<VersionNumber, BTreeSet<&str>> = BTreeMap::new();
        for (version, name, notice) in &self.notices {
            let made = self.manifests.get(version);
            if made.is_some_and(|(made, _)| notice.last_modified < *made) {
                noticed.entry(*version).or_default().insert(name);
            }
        }
        let mut swept = BTreeSet::new();
        for (version, names) in noticed {
            match backend.read_manifest(id, version).await {
                Ok(Some(manifest)) if names.contains(manifest.tensors.name.as_str()) => {
                    swept.insert(version);
                }
                Ok(_) => {}
                // It exists, and cannot be read.
                Err(StoreError::Damaged { .. } | StoreError::NewerFormat { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(swept)
    }
}

/// Removes old temporary files and empty folders of a local store.
async fn sweep_folder(root: PathBuf, age: &Age<'_>) -> Result<usize, StoreError> {
    let parts = ["caches", "tombstones", "runs", "clock"].map(|part| root.join(part));
    let found = blocking("sweeping", move || Remains::of(parts.into())).await?;
    if found.staged.is_empty() && found.folders.is_empty() {
        return Ok(0);
    }
    let now = SystemTime::from(age.now().await?);
    let least = age.least;
    blocking("sweeping", move || found.remove(now, least)).await
}

/// What object_store and older servers leave behind in a folder.
#[derive(Default)]
struct Remains {
    /// object_store writes `NAME#1`, links it to `NAME` and removes it; a crash
    /// may leave it.
    staged: Vec<(PathBuf, SystemTime)>,
    /// Empty folders. Those around them become empty for the next sweep.
    folders: Vec<(PathBuf, SystemTime)>,
}

impl Remains {
    fn of(mut folders: Vec<PathBuf>) -> Self {
        let is_staged = |path: &FilePath| {
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.rsplit_once('#'))
                .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        let is_ours = |folder: &FilePath| {
            let name = folder.file_name().and_then(|name| name.to_str());
            let sane = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            name.is_some_and(|name| name.bytes().all(sane))
        };
        let mut found = Self::default();
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue; // removed meanwhile, or unreadable: the next sweep's
            };
            let mut entries = entries.filter_map(io::Result::ok).peekable();
            if entries.peek().is_none()
                && is_ours(&folder)
                && let Ok(time) = folder.metadata().and_then(|meta| meta.modified())
            {
                found.folders.push((folder.clone(), time));
            }
            for entry in entries {
                let (path, Ok(meta)) = (entry.path(), entry.metadata()) else {
                    continue;
                };
                if meta.is_dir() {
                    folders.push(path);
                } else if let Ok(time) = meta.modified()
                    && is_staged(&path)
                {
                    found.staged.push((path, time));
                }
            }
        }
        found
    }

    /// Removes what is old enough; returns the number of files.
    fn remove(self, now: SystemTime, least: Duration) -> usize {
        let is_old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age >= least);
        for (folder, time) in self.folders {
            if is_old(time) {
                // Fails, as it should, if it is no longer empty.
                let _ = std::fs::remove_dir(folder);
            }
        }
        let staged = self.staged.iter();
        staged
            .filter(|(path, time)| is_old(*time) && std::fs::remove_file(path).is_ok())
            .count()
    }
}
