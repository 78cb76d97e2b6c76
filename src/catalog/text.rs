//! The text encoder, in short steps on the device.

use std::sync::Arc;

use tch::Tensor;

use super::CatalogError;
use tipserve_clip::{TextEncoder, Tokenizer, classifier_rows, fill_templates};
use tipserve_engine::Engine;

/// Texts that are encoded in one step.
const STEP: usize = 32;

/// The bundle's text encoder with its tokenizer.
#[derive(Clone)]
pub struct TextRoom {
    tokenizer: Arc<Tokenizer>,
    encoder: Arc<TextEncoder>,
    engine: Engine,
}

impl TextRoom {
    /// A text encoder that runs on this engine's device.
    pub fn new(tokenizer: Tokenizer, encoder: TextEncoder, engine: Engine) -> TextRoom {
        TextRoom {
            tokenizer: Arc::new(tokenizer),
            encoder: Arc::new(encoder),
            engine,
        }
    }

    /// Token ids of a text.
    ///
    /// # Errors
    /// A text that is too long, unless it may be cut.
    pub fn tokens(&self, text: &str, truncate: bool) -> Result<Vec<i64>, CatalogError> {
        Ok(self.tokenizer.encode(text, truncate)?)
    }

    /// Raw features f32 [n, D] of tokenised texts. Blocks: not for async
    /// threads. `stop` is asked between steps.
    ///
    /// # Errors
    /// Torch's, or [`CatalogError::Cancelled`].
    pub fn encode(
        &self,
        ids: Vec<Vec<i64>>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Tensor, CatalogError> {
        let mut parts = Vec::new();
        for chunk in ids.chunks(STEP) {
            if stop() {
                return Err(CatalogError::Cancelled);
            }
            let chunk = chunk.to_vec();
            let encoder = Arc::clone(&self.encoder);
            let features = self
                .engine
                .step(move || encoder.encode(&chunk))
                .ok_or(CatalogError::Cancelled)?
                .map_err(CatalogError::internal)?;
            parts.push(features);
        }
        Tensor::f_cat(&parts, 0).map_err(CatalogError::internal)
    }

    /// Features of tokenised texts, one vector each; unit ones unless `raw`.
    /// Blocks.
    ///
    /// # Errors
    /// As [`TextRoom::encode`].
    pub fn embed(
        &self,
        ids: Vec<Vec<i64>>,
        raw: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>, CatalogError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let features = self.encode(ids, stop)?;
        let rows = if raw {
            Ok(features)
        } else {
            features
                .f_norm_scalaropt_dim(2.0, [1], true)
                .and_then(|norms| features.f_div(&norms))
        };
        rows.map_err(CatalogError::internal)
            .and_then(|rows| Vec::<Vec<f32>>::try_from(rows).map_err(CatalogError::internal))
    }

    /// Text classifier W f32 [N, D]: each class's prompts, encoded,
    /// normalised, averaged, normalised again. Blocks.
    ///
    /// # Errors
    /// A prompt that is too long (unless it may be cut), torch's, or
    /// [`CatalogError::Cancelled`].
    pub fn classifier(
        &self,
        prompts: &[Vec<String>],
        truncate: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Tensor, CatalogError> {
        let mut ids = Vec::new();
        for (class, prompts) in prompts.iter().enumerate() {
            for prompt in prompts {
                let tokens = self.tokenizer.encode(prompt, truncate).map_err(|error| {
                    CatalogError::invalid(format!("classes[{class}].prompts"), error)
                })?;
                ids.push(tokens);
            }
        }
        let features = self.encode(ids, stop)?;
        let counts: Vec<usize> = prompts.iter().map(Vec::len).collect();
        classifier_rows(&features, &counts).map_err(CatalogError::internal)
    }

    /// The prompts of a class by templates.
    ///
    /// # Errors
    /// A template without "{}", or with several.
    pub fn prompts(templates: &[String], name: &str) -> Result<Vec<String>, CatalogError> {
        fill_templates(templates, name)
            .map_err(|error| CatalogError::invalid("prompt_templates", error))
    }
}
