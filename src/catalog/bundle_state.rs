//! Where bundles come from, and where each of them stands.

use std::sync::Arc;

use super::{CatalogError, LoadedBundle};

/// A bundle that could be loaded, as its folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFolder {
    /// The folder's name.
    pub folder: String,
    /// The bundle's name.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// Where bundles are loaded from: the folders that the operator named, and
/// nothing else.
pub trait BundleSource: Send + Sync {
    /// The bundles there now. Reads the disk.
    fn list(&self) -> Vec<BundleFolder>;

    /// The one in the folder of this name. Reads the disk.
    ///
    /// # Errors
    /// [`CatalogError::UnknownBundle`], [`CatalogError::UnusableBundle`].
    fn find(&self, folder: &str) -> Result<BundleFolder, CatalogError>;

    /// Loads and warms it. Blocks, for as long as that takes.
    ///
    /// # Errors
    /// As [`BundleSource::find`].
    fn load(&self, folder: &str) -> Result<Arc<LoadedBundle>, CatalogError>;
}

/// Where a bundle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleState {
    /// In its folder, and not loaded.
    Available,
    /// Being loaded and warmed; nothing is served by it yet.
    Loading,
    /// It serves.
    Ready,
    /// What it was given is answered; it takes no more.
    Unloading,
}

/// A bundle and where it stands.
#[derive(Clone, Debug)]
pub struct BundleStatus {
    /// Its folder's name, its own, and its fingerprint.
    pub folder: BundleFolder,
    /// Where it stands.
    pub state: BundleState,
    /// Whether it serves requests that name none.
    pub is_default: bool,
    /// What runs it, unless it is not loaded.
    pub loaded: Option<Arc<LoadedBundle>>,
    /// Items that it has taken and not yet answered.
    pub items: usize,
}

/// The bundles that serve at one moment. There is always one: the default.
#[derive(Clone, Debug)]
pub struct OpenBundles {
    /// Serves requests that name none.
    pub default: Arc<LoadedBundle>,
    /// As they were loaded.
    pub(super) others: Vec<Arc<LoadedBundle>>,
}

impl OpenBundles {
    /// All, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LoadedBundle>> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// How many.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// The same with a bundle that may be among them already.
    pub(super) fn with(&self, bundle: &Arc<LoadedBundle>, make_default: bool) -> OpenBundles {
        let mut next = self.clone();
        let known = next.iter().any(|other| Arc::ptr_eq(other, bundle));
        if !known {
            next.others.push(Arc::clone(bundle));
        }
        if make_default && !Arc::ptr_eq(&next.default, bundle) {
            next.others.retain(|other| !Arc::ptr_eq(other, bundle));
            let before = std::mem::replace(&mut next.default, Arc::clone(bundle));
            next.others.insert(0, before);
        }
        next
    }

    /// The same without one that is not the default.
    pub(super) fn without(&self, bundle: &Arc<LoadedBundle>) -> OpenBundles {
        let mut next = self.clone();
        next.others.retain(|other| !Arc::ptr_eq(other, bundle));
        next
    }
}
