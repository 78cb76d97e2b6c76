//! Caches, their versions and aliases, as lists show them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};

use super::{
    Store, StoreError, condition, layout,
    name::{AliasName, CacheId, VersionNumber},
    view::View,
};

/// A cache: its versions and aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The cache's id.
    pub id: CacheId,
    /// When the oldest of its versions was published.
    pub create_time: DateTime<Utc>,
    /// Its versions, newest first; at least one. The first is `latest`.
    pub versions: Vec<VersionInfo>,
    /// Its aliases, each with its target.
    pub aliases: BTreeMap<AliasName, AliasInfo>,
    /// Changes with every change of the cache: a version made or deleted, an
    /// alias moved.
    pub etag: String,
}

/// A version in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// The version's number.
    pub number: VersionNumber,
    /// When it was published, by the storage's clock.
    pub create_time: DateTime<Utc>,
}

/// What an alias points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasInfo {
    /// The version that it points at.
    pub version: VersionNumber,
}

/// One page of a listing of caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CachePage {
    /// The caches of the page, ordered by id.
    pub caches: Vec<CacheInfo>,
    /// Caches of this page that cannot be shown, each with its reason.
    pub damaged: Vec<(CacheId, StoreError)>,
    /// Pass this as `after` for the next page; none on the last one.
    pub next: Option<CacheId>,
}

impl CacheInfo {
    /// The newest version; none if there is no version.
    pub fn latest(&self) -> Option<VersionNumber> {
        self.versions.first().map(|v| v.number)
    }

    fn from_view(view: &View) -> Result<Option<Self>, StoreError> {
        let state = view.state()?;
        let versions = view.versions()?;
        let Some(&(_, create_time)) = versions.first() else {
            return Ok(None);
        };
        let aliases = state.aliases.iter().map(|(alias, record)| {
            let version = record.version;
            (alias.clone(), AliasInfo { version })
        });
        Ok(Some(Self {
            id: view.id.clone(),
            create_time,
            aliases: aliases.collect(),
            etag: condition::etag(view)?,
            versions: versions
                .into_iter()
                .rev()
                .map(|(number, create_time)| VersionInfo {
                    number,
                    create_time,
                })
                .collect(),
        }))
    }
}

impl Store {
    /// One cache with its versions and aliases, as it is now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Damaged`].
    pub async fn cache(&self, id: &CacheId) -> Result<CacheInfo, StoreError> {
        let view = self.views.fresh(id).await?;
        CacheInfo::from_view(&view)?.ok_or_else(|| StoreError::not_found(id.resource_name()))
    }

    /// Versions of a cache, newest first.
    ///
    /// # Errors
    /// As [`Self::cache`].
    pub async fn versions(&self, id: &CacheId) -> Result<Vec<VersionInfo>, StoreError> {
        self.cache(id).await.map(|cache| cache.versions)
    }

    /// Up to `size` caches by id, after the one given. Costs one listing of all
    /// ids and one of each cache on the page that was not looked at within
    /// the store's `freshness`.
    ///
    /// # Errors
    /// Those of the storage. A damaged cache is listed apart and hides no other.
    pub async fn list_caches(
        &self,
        size: usize,
        after: Option<&CacheId>,
    ) -> Result<CachePage, StoreError> {
        self.list_caches_of("", size, after).await
    }

    /// [`Self::list_caches`] of those alone whose ids begin with `prefix`; no
    /// other is read or named in the page.
    ///
    /// # Errors
    /// As [`Self::list_caches`].
    pub async fn list_caches_of(
        &self,
        prefix: &str,
        size: usize,
        after: Option<&CacheId>,
    ) -> Result<CachePage, StoreError> {
        let names = self.backend.folders(&layout::caches()).await?;
        let names = names.iter().filter(|name| name.starts_with(prefix));
        let mut ids: Vec<CacheId> = names.filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        if let Some(after) = after {
            ids.retain(|id| id > after);
        }
        let mut page = CachePage::default();
        let mut views = stream::iter(ids)
            .map(|id| async move { (self.views.recent(&id).await, id) })
            .buffered(16);
        let mut last = None;
        while let Some((view, id)) = views.next().await {
            let shown = match view.and_then(|view| CacheInfo::from_view(&view)) {
                Ok(None) => continue, // deleted
                Ok(Some(info)) => Ok(info),
                Err(e @ (StoreError::Damaged { .. } | StoreError::NewerFormat { .. })) => Err(e),
                Err(e) => return Err(e),
            };
            if page.caches.len() + page.damaged.len() >= size.max(1) {
                page.next = last;
                break;
            }
            last = Some(id.clone());
            match shown {
                Ok(info) => page.caches.push(info),
                Err(e) => page.damaged.push((id, e)),
            }
        }
        Ok(page)
    }
}
