//! Optimistic concurrency: what must hold of a cache for a change of it to
//! happen.

use super::{
    Store, StoreError,
    name::{CacheId, Reference, VersionNumber, VersionSelector},
    view::View,
};

/// The etag of a cache that does not exist.
pub const NEW: &str = "new";

/// What must hold of a cache at the moment when a version of it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The cache's etag, [`NEW`] if it must not exist.
    pub etag: Option<String>,
    /// What the cache must have: aliases, versions.
    pub needs: Needs,
}

/// What must exist for a version to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: a cache that does not exist is made.
    #[default]
    Nothing,
    /// The cache, since it was first read: one that is deleted meanwhile does
    /// not come back.
    Cache,
    /// The cache, as above, and this version of it.
    Version(VersionNumber),
}

/// The etag of a cache: the newest state record's sequence and the highest
/// number that was ever given out. Versions and state records only grow, so
/// it is never the same again.
pub(super) fn etag(view: &View) -> Result<String, StoreError> {
    let state = view.state()?;
    Ok(match view.latest()? {
        None => NEW.to_owned(),
        Some(_) => format!("{}.{}", state.sequence, view.highest()),
    })
}

/// Refuses a cache with another etag.
pub(super) fn check_etag(view: &View, expected: Option<&str>) -> Result<(), StoreError> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let found = etag(view)?;
    if expected == found {
        return Ok(());
    }
    Err(StoreError::EtagMismatch {
        what: view.id.resource_name(),
        expected: expected.to_owned(),
        found,
    })
}

impl Condition {
    /// Only while the cache has this etag.
    pub fn etag(etag: impl Into<String>) -> Self {
        Self {
            etag: Some(etag.into()),
            needs: Needs::Nothing,
        }
    }

    /// Whether it asks for nothing: every cache then satisfies it.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, view: &View) -> Result<(), StoreError> {
        let (exists, reference) = match self.needs {
            Needs::Nothing => (true, VersionSelector::Latest),
            Needs::Cache => (view.latest()?.is_some(), VersionSelector::Latest),
            Needs::Version(number) => (view.has(number)?, VersionSelector::Number(number)),
        };
        if !exists {
            let cache = view.id.clone();
            let version = reference;
            return Err(super::missing(view, &Reference { cache, version }));
        }
        check_etag(view, self.etag.as_deref())
    }

    /// Refuses if the cache was deleted since it was at `sequence`: a version
    /// that needs it must not bring it back.
    pub(super) fn check_not_cleared(&self, view: &View, sequence: u64) -> Result<(), StoreError> {
        if self.needs == Needs::Nothing || view.state()?.cleared <= sequence {
            return Ok(());
        }
        Err(StoreError::NotFound {
            what: view.id.resource_name(),
            hint: ": it was deleted meanwhile".to_owned(),
        })
    }
}

impl Store {
    /// Whether a condition holds now: to refuse early what would be refused in
    /// the end.
    ///
    /// # Errors
    /// [`StoreError::EtagMismatch`], [`StoreError::NotFound`].
    pub async fn check(&self, id: &CacheId, condition: &Condition) -> Result<(), StoreError> {
        if condition.is_none() {
            return Ok(());
        }
        condition.check(&*self.views.fresh(id).await?)
    }
}
