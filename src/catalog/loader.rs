//! Loading versions into memory.

use std::sync::Arc;

use tch::Device;

use super::{BoundClassifier, Bundles, CatalogError, Classifier, compute};
use crate::telemetry;
use tip_spec::{HeadForm, KeyDtype};
use tipserve_store::{
    Manifest, Store, VersionKey,
    resident::{Event, Footprint, Load},
};

/// Makes versions resident on a device.
pub struct Loader {
    store: Store,
    bundles: Arc<Bundles>,
    device: Device,
}

impl Loader {
    /// A loader of versions, each bound to the bundle that made its features.
    pub fn new(store: Store, bundles: Arc<Bundles>, device: Device) -> Loader {
        Loader {
            store,
            bundles,
            device,
        }
    }

    /// The budget as the resident set counts it: where the heads are.
    pub fn budget(&self, bytes: usize) -> Footprint {
        self.place(bytes as u64, u64::MAX)
    }

    fn place(&self, bytes: u64, elsewhere: u64) -> Footprint {
        match self.device {
            Device::Cpu => Footprint {
                host: bytes,
                device: elsewhere,
            },
            _ => Footprint {
                host: elsewhere,
                device: bytes,
            },
        }
    }
}

/// Bytes that a version's heads take on a device, from its manifest.
fn head_bytes(manifest: &Manifest, device: Device) -> u64 {
    let details = &manifest.details;
    let (classes, width, keys) = (
        details.classes.len() as u64,
        details.width as u64,
        details.key_count,
    );
    let element = match details.head.key_dtype {
        KeyDtype::F32 => 4,
        KeyDtype::Bf16 | KeyDtype::F16 => 2,
    };
    let linear = classes * width * 4;
    // Labels, places and factors: torch operators need wider ones.
    let beside = if device.is_cuda() { 28 } else { 16 };
    let examples = keys * (width * element + beside);
    let own = match details.head.method.form() {
        HeadForm::Linear | HeadForm::OneHot => 0,
        HeadForm::TrainedOneHot => keys * width * element,
        HeadForm::Dense => keys * classes * 4,
        // Standardised keys are not the examples', which neighbours are sought
        // among.
        HeadForm::Combined => {
            let standardised = details.head.standardised.map_or(0, |_| {
                keys * width * element + classes * width * 4 + 8 * width
            });
            keys * classes * 4 + standardised
        }
    };
    // The head's linear part, and the text classifier alone beside it.
    2 * linear + examples + own
}

impl Load for Loader {
    type Key = VersionKey;
    type Value = BoundClassifier;
    type Error = CatalogError;

    async fn footprint(&self, key: &VersionKey) -> Result<Footprint, CatalogError> {
        let manifest = self.store.manifest(&key.cache, key.version).await?;
        self.bundles.serving(&manifest)?;
        Ok(self.place(head_bytes(&manifest, self.device), 0))
    }

    async fn load(&self, key: &VersionKey) -> Result<BoundClassifier, CatalogError> {
        let (manifest, tensors) = self.store.load(&key.cache, key.version).await?;
        let bundle = self.bundles.serving(&manifest)?;
        let device = self.device;
        let classifier =
            compute::load(move || Classifier::load(manifest, &tensors, device)).await??;
        Ok(BoundClassifier::new(classifier, bundle))
    }
}

/// Passes the resident set's events on to the metrics.
pub fn observe(event: Event) {
    if let Event::Loaded { seconds, .. } = event {
        telemetry::cache_loaded(seconds);
    }
}
