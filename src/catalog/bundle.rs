//! A loaded bundle: its description, and the encoders and engine that run it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{CatalogError, ServedEncoder, TextEmbedder};
use tipserve_clip::{Agreement, ImageSpec, Precision, Statistics};
use tipserve_engine::Engine;
use tipserve_store::PartWeight;

/// The description of a model that this server serves.
#[derive(Clone, Debug)]
pub struct Model {
    /// The bundle's name.
    pub name: String,
    /// SHA-256 of `bundle.toml`, up to its table `[int8]`.
    pub fingerprint: String,
    /// Width of the embedding space, D.
    pub width: usize,
    /// How pictures are prepared; `None` without an image encoder.
    pub image: Option<ImageSpec>,
    /// Whether texts can be embedded.
    pub has_text: bool,
    /// Logit scale s, with which the cosines of text are multiplied.
    pub logit_scale: f64,
    /// The bias of a sigmoid loss; `None` for a softmax's.
    pub logit_bias: Option<f64>,
    /// Mean and variance of its embeddings, if the bundle brings them.
    pub statistics: Option<Statistics>,
    /// The bundle's own prompt templates.
    pub templates: Vec<String>,
    /// The device it runs on, such as "cpu" or "cuda:0".
    pub device: String,
    /// Number format of the image encoder.
    pub precision: Precision,
    /// Number format of the text encoder; `None` without one.
    pub text_precision: Option<Precision>,
    /// How well the bundle's 8-bit encoder agrees with the float one; none
    /// if it has none.
    pub int8: Option<Agreement>,
}

impl Model {
    /// The weights of a joined bundle's encoders, which its own features have;
    /// empty if it has one encoder, or does not say where each one's lie.
    pub fn parts(&self) -> Vec<PartWeight> {
        let parts = self.image.iter().flat_map(|image| &image.parts);
        let weights = parts.map(|part| {
            let share = part.share.as_ref()?;
            Some(PartWeight {
                width: share.width,
                bundle: share.weight,
                used: share.weight,
            })
        });
        weights.collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// The encoder that embeds pictures on this server.
    pub fn encoder(&self) -> ServedEncoder {
        let int8 = self.int8.as_ref();
        ServedEncoder {
            precision: self.precision,
            noise: match self.precision {
                Precision::Int8 => Some(int8.map_or(f64::INFINITY, |agreement| agreement.noise)),
                _ => None,
            },
        }
    }
}

/// A loaded bundle. Each of its users holds a reference: it is unloaded once it
/// has left [`Bundles`](super::Bundles) and the last user is done.
pub struct LoadedBundle {
    /// The model's description.
    pub model: Model,
    /// The engine for its image encoder, heads and training.
    pub engine: Engine,
    /// The name of its folder, for loading it again.
    pub folder: String,
    /// When it became ready to serve.
    pub loaded: DateTime<Utc>,
    /// How long it took to load and warm up.
    pub took: Duration,
    text: Option<TextEmbedder>,
    unloading: AtomicBool,
    released: CancellationToken,
}

impl LoadedBundle {
    /// A bundle whose engine is warm.
    pub fn new(
        model: Model,
        engine: Engine,
        text: Option<TextEmbedder>,
        folder: String,
        took: Duration,
    ) -> Arc<LoadedBundle> {
        Arc::new(LoadedBundle {
            model,
            engine,
            folder,
            loaded: Utc::now(),
            took,
            text,
            unloading: AtomicBool::new(false),
            released: CancellationToken::new(),
        })
    }

    /// The text encoder.
    ///
    /// # Errors
    /// If the bundle has none.
    pub fn text(&self) -> Result<&TextEmbedder, CatalogError> {
        self.text.as_ref().ok_or(CatalogError::NoTextEncoder)
    }

    /// Bytes of a prepared picture.
    pub fn prepared_bytes(&self) -> usize {
        let image = self.model.image.as_ref();
        image.map_or(0, |image| image.size.rgb_bytes())
    }

    /// Whether it is being unloaded and takes no more work.
    pub fn is_unloading(&self) -> bool {
        self.unloading.load(Ordering::Acquire)
    }

    /// Stops it from taking more work. The returned token is cancelled when the
    /// last reference is dropped.
    pub(super) fn retire(&self) -> CancellationToken {
        self.unloading.store(true, Ordering::Release);
        self.released.clone()
    }
}

impl fmt::Debug for LoadedBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedBundle")
            .field("name", &self.model.name)
            .field("fingerprint", &self.model.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Drop for LoadedBundle {
    /// The engine is not stopped here: the last reference may be dropped by one
    /// of its own threads.
    fn drop(&mut self) {
        self.released.cancel();
    }
}
