//! The catalogue of classifiers: makes versions of caches from labelled
//! features, loads them into memory, fine-tunes them. It joins `clip`, `tip`,
//! `engine` and `store`; of RPCs it knows nothing.

mod classifier;
mod create;
mod error;
mod finetune;
mod tensors;
mod text;

use std::sync::Arc;

pub use classifier::Classifier;
pub use create::{ExampleFeature, Gathered, Recipe, Stage, TextRows, TextSource, class_prompts};
pub use error::CatalogError;
pub use finetune::{FineTunes, Run, RunProgress, RunState, TuneRequest};
pub use text::TextRoom;

use crate::{
    engine::Engine,
    store::{CacheId, Reference, Resident, Store, VersionNumber},
    telemetry::{self, ResidentFigures},
};

/// The model that this server serves, in figures.
#[derive(Clone, Debug)]
pub struct Model {
    /// The bundle's name.
    pub name: String,
    /// sha256 over the bundle.
    pub fingerprint: String,
    /// Width of the embedding space, D.
    pub width: usize,
    /// Side of the prepared picture; 0 without image encoder.
    pub image_size: usize,
    /// Whether texts can be embedded.
    pub has_text: bool,
    /// Logit scale s.
    pub logit_scale: f64,
    /// The bundle's own prompt templates.
    pub templates: Vec<String>,
    /// "cpu", "cuda:0".
    pub device: String,
    /// "float32", "bfloat16", "float16".
    pub dtype: String,
}

/// Which version of which cache.
type Key = (CacheId, VersionNumber);

/// Every classifier that this server can serve.
pub struct Catalog {
    store: Store,
    resident: Resident<Key, Classifier>,
    model: Model,
    device: tch::Device,
    text: Option<TextRoom>,
    engine: Engine,
}

impl Catalog {
    /// A catalogue over a store, with so many bytes for resident versions.
    pub fn new(
        store: Store,
        resident_bytes: usize,
        model: Model,
        device: tch::Device,
        text: Option<TextRoom>,
        engine: Engine,
    ) -> Catalog {
        Catalog {
            store,
            resident: Resident::new(resident_bytes),
            model,
            device,
            text,
            engine,
        }
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The text encoder.
    ///
    /// # Errors
    /// Where the bundle has none.
    pub fn text(&self) -> Result<&TextRoom, CatalogError> {
        self.text.as_ref().ok_or(CatalogError::NoTextEncoder)
    }

    /// Bytes of a prepared picture.
    pub fn prepared_bytes(&self) -> usize {
        self.model.image_size * self.model.image_size * 3
    }

    /// The classifier that a name stands for now, loaded if need be.
    ///
    /// # Errors
    /// The store's, and [`CatalogError::WrongBundle`].
    pub async fn classifier(&self, reference: &Reference) -> Result<Arc<Classifier>, CatalogError> {
        let (id, version) = self.store.resolve(reference).await?;
        self.classifier_at(id, version).await
    }

    async fn classifier_at(
        &self,
        id: CacheId,
        version: VersionNumber,
    ) -> Result<Arc<Classifier>, CatalogError> {
        let key = (id, version);
        self.resident
            .get(&key, || async {
                let started = std::time::Instant::now();
                let (id, version) = key.clone();
                let (manifest, tensors) = self.store.load(&id, version).await?;
                if manifest.details.bundle_fingerprint != self.model.fingerprint {
                    return Err(CatalogError::WrongBundle {
                        version: manifest.resource_name(),
                        made_with: manifest.details.bundle_fingerprint,
                        served: self.model.fingerprint.clone(),
                    });
                }
                let device = self.device;
                let classifier = tokio::task::spawn_blocking(move || {
                    Classifier::load(manifest, &tensors, device)
                })
                .await
                .map_err(CatalogError::internal)??;
                telemetry::cache_loaded(started.elapsed());
                let bytes = classifier.size_bytes();
                Ok((classifier, bytes))
            })
            .await
    }

    /// What the resident set has done.
    pub fn resident_figures(&self) -> ResidentFigures {
        let stats = self.resident.stats();
        ResidentFigures {
            count: stats.count,
            bytes: stats.bytes,
            hits: stats.hits,
            loads: stats.loads,
            evictions: stats.evictions,
        }
    }
}
