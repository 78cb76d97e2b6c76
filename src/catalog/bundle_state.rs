//! The source of bundles, and the state of each.

use std::sync::Arc;

use super::{CatalogError, LoadedBundle};

/// A bundle that could be loaded, as read from its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFolder {
    /// The folder's name.
    pub folder: String,
    /// The bundle's name.
    pub name: String,
    /// The fingerprint of the bundle in it.
    pub fingerprint: String,
}

/// The source of bundles: only the folders that the operator configured.
pub trait BundleSource: Send + Sync {
    /// The bundles that exist now. Reads the disk.
    fn list(&self) -> Vec<BundleFolder>;

    /// The one in the folder of this name. Reads the disk.
    ///
    /// # Errors
    /// [`CatalogError::UnknownBundle`], [`CatalogError::UnusableBundle`].
    fn find(&self, folder: &str) -> Result<BundleFolder, CatalogError>;

    /// Loads and warms it. Blocks until it is ready.
    ///
    /// # Errors
    /// As [`BundleSource::find`].
    fn load(&self, folder: &str) -> Result<Arc<LoadedBundle>, CatalogError>;
}

/// The state of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleState {
    /// In its folder, and not loaded.
    Available,
    /// Being loaded and warmed; it does not serve yet.
    Loading,
    /// It is loaded and serves.
    Ready,
    /// It finishes the work that it has, and takes no more.
    Unloading,
}

/// A bundle and its state.
#[derive(Clone, Debug)]
pub struct BundleStatus {
    /// Its folder's name, its own, and its fingerprint.
    pub folder: BundleFolder,
    /// Whether it is available, being loaded, serving or leaving.
    pub state: BundleState,
    /// Whether it serves requests that name no bundle.
    pub is_default: bool,
    /// The loaded bundle, if it is loaded.
    pub loaded: Option<Arc<LoadedBundle>>,
    /// Items that it has taken and not yet answered.
    pub items: usize,
}

/// The bundles that serve at one moment. There is always one: the default.
#[derive(Clone, Debug)]
pub struct OpenBundles {
    /// Serves requests that name no bundle.
    pub default: Arc<LoadedBundle>,
    /// The others, in the order of loading.
    pub(super) others: Vec<Arc<LoadedBundle>>,
}

impl OpenBundles {
    /// All of them, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LoadedBundle>> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// The number of open bundles, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// A copy with this bundle, which may be among them already.
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

    /// A copy without this bundle, which is not the default.
    pub(super) fn without(&self, bundle: &Arc<LoadedBundle>) -> OpenBundles {
        let mut next = self.clone();
        next.others.retain(|other| !Arc::ptr_eq(other, bundle));
        next
    }
}
