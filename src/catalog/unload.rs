//! Unloading a bundle: it finishes its work, and its versions leave memory.

use std::{sync::Arc, time::Duration};

use super::{Catalog, CatalogError, LoadedBundle, bundles::Retired};

/// How often memory is searched again for versions of a bundle that is being
/// unloaded.
const AGAIN: Duration = Duration::from_secs(1);

impl Catalog {
    /// Unloads a bundle, and returns when it is gone. It takes no more work
    /// from now on; its earlier work, streams of examples and fine-tuning runs
    /// included, ends normally. Continues if the caller goes away.
    ///
    /// # Errors
    /// Those of [`Bundles::named`](super::Bundles::named);
    /// [`CatalogError::BundleBusy`] for the default one.
    pub async fn unload_bundle(self: &Arc<Self>, given: &str) -> Result<(), CatalogError> {
        let Retired { bundle, released } = self.bundles.retire(given).await?;
        let (name, fingerprint) = (bundle.model.name.clone(), bundle.model.fingerprint.clone());
        tracing::info!(bundle = name, fingerprint, "a bundle is being unloaded");
        let catalog = Arc::clone(self);
        let draining = tokio::spawn(async move {
            catalog.forget_versions(&bundle);
            let held = Arc::downgrade(&bundle);
            drop(bundle);
            while tokio::time::timeout(AGAIN, released.cancelled())
                .await
                .is_err()
            {
                // A version whose load began earlier and was abandoned.
                if let Some(bundle) = held.upgrade() {
                    catalog.forget_versions(&bundle);
                }
            }
            let ended = catalog.bundles.end(&fingerprint).await;
            tracing::info!(bundle = name, fingerprint, "a bundle is unloaded");
            ended
        });
        draining.await.map_err(CatalogError::internal)?
    }

    fn forget_versions(&self, bundle: &Arc<LoadedBundle>) {
        for key in self.resident.keys() {
            let held = self.resident.peek(&key);
            if held.is_some_and(|served| Arc::ptr_eq(&served.bundle, bundle)) {
                self.resident.remove(&key);
            }
        }
    }
}
