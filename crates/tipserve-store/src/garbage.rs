//! Sweeping: what dead writers left, what deletions left, and state records
//! that newer ones replaced.

use std::{
    io,
    path::{Path as FilePath, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};

use super::{
    Store, StoreError, backend::blocking, fault::die_at, layout, name::CacheId, view::View,
};

/// What one sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects of deleted versions.
    pub deleted: usize,
    /// Tensors that no manifest names.
    pub leftovers: usize,
    /// State records that newer ones replaced.
    pub records: usize,
    /// Temporary files of a local store.
    pub staged: usize,
    /// Caches that could not be swept (damaged, or of a newer format).
    pub skipped: usize,
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
        for name in self.backend.folders(&layout::caches()).await? {
            let Ok(id) = name.parse::<CacheId>() else {
                continue; // not ours
            };
            match self.sweep_cache(&id, &mut swept).await {
                Err(StoreError::Damaged { .. } | StoreError::NewerFormat { .. }) => {
                    swept.skipped += 1;
                }
                other => other?,
            }
        }
        if let Some(folder) = self.backend.folder() {
            let (folder, age) = (folder.join("caches"), self.options.leftover_age);
            swept.staged = blocking("sweeping", move || sweep_staged(&folder, age)).await?;
        }
        Ok(swept)
    }

    async fn sweep_cache(&self, id: &CacheId, swept: &mut Swept) -> Result<(), StoreError> {
        let view = self.views.fresh(id).await?;
        swept.deleted += self.remove_objects_of_deleted(&view).await?;

        let now = Utc::now();
        let old = |time: DateTime<Utc>| {
            let age = now.signed_duration_since(time).to_std();
            age.is_ok_and(|age| age >= self.options.leftover_age)
        };
        for name in self.leftovers(id, &view, old).await? {
            self.backend.delete(vec![name]).await?;
            die_at!("store::sweep::half");
            swept.leftovers += 1;
        }

        // The newest record stays for ever, so sequences are never reused.
        let newest = view.newest_state();
        for (&sequence, &time) in view.states.range(..newest) {
            if old(time) {
                let path = layout::state(id, sequence);
                self.backend.delete(vec![path]).await?;
                swept.records += 1;
            }
        }
        Ok(())
    }

    /// Tensors files that are old enough and that no manifest names.
    async fn leftovers(
        &self,
        id: &CacheId,
        view: &View,
        old: impl Fn(DateTime<Utc>) -> bool,
    ) -> Result<Vec<object_store::path::Path>, StoreError> {
        let state = view.state()?;
        let mut found = Vec::new();
        for (version, name, time) in &view.tensors {
            if !old(*time) || state.is_deleted(*version) {
                continue;
            }
            let several = || {
                let of_version = view.tensors.iter().filter(|(v, ..)| v == version);
                of_version.count() > 1
            };
            let leftover = if !view.has_manifest(*version) {
                true
            } else if several() {
                match self.manifest(id, *version).await {
                    Ok(manifest) => manifest.tensors.name != *name,
                    // Which file is the version's cannot be told: all stay.
                    Err(StoreError::Damaged { .. } | StoreError::NewerFormat { .. }) => false,
                    Err(e) => return Err(e),
                }
            } else {
                false
            };
            if leftover {
                found.push(layout::tensors(id, *version, name));
            }
        }
        Ok(found)
    }
}

/// Removes old temporary files of the local storage: object_store writes
/// `NAME#1`, links it to `NAME` and removes it; a crash may leave it.
fn sweep_staged(folder: &FilePath, age: Duration) -> usize {
    let is_staged = |path: &FilePath| {
        path.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.rsplit_once('#'))
            .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_old = |meta: &std::fs::Metadata| {
        let now = SystemTime::now();
        meta.modified()
            .ok()
            .and_then(|time| now.duration_since(time).ok())
            .is_some_and(|since| since >= age)
    };
    let mut removed = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue; // removed meanwhile, or unreadable: the next sweep's
        };
        for entry in entries.filter_map(io::Result::ok) {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else {
                continue;
            };
            if meta.is_dir() {
                folders.push(path);
            } else if is_staged(&path) && is_old(&meta) && std::fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
    }
    removed
}
