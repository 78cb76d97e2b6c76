//! The text encoder: texts wait in a queue of their own, each flow in its turn,
//! are admitted to the engine as pictures are, and encoded in short steps on the
//! device.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use futures::executor::block_on;
use tch::{Device, Kind, Tensor};

use super::{
    CatalogError,
    text_queue::{EncodedText, TextBatch, TextQueue, TextResult},
};
use tipserve_clip::{TextEncoder, Tokenizer, classifier_rows, fill_templates};
use tipserve_engine::{Engine, FlowId, Permit};

/// Texts that are encoded in one step.
const STEP: usize = 32;
/// Threads that tokenise; the encoder runs on the engine's workers.
const THREADS: usize = 2;

/// Who the texts are from, and how they are to be encoded.
#[derive(Clone)]
pub struct TextRequest {
    /// Truncate texts that are too long instead of refusing them.
    pub truncate: bool,
    /// Who the texts are from: flows take turns in the queue.
    pub flow: FlowId,
    /// When the features are of no more use.
    pub deadline: Option<Instant>,
    /// Set when nobody wants them any more.
    pub cancelled: Arc<AtomicBool>,
}

/// The bundle's text encoder with its tokenizer.
#[derive(Clone)]
pub struct TextEmbedder {
    queue: Arc<TextQueue>,
}

impl TextEmbedder {
    /// A text encoder that runs on this engine's device.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn new(
        tokenizer: Tokenizer,
        encoder: TextEncoder,
        engine: Engine,
    ) -> io::Result<TextEmbedder> {
        let encoder = Arc::new(encoder);
        let queue = TextQueue::start(THREADS, move |batch| {
            encode(&tokenizer, &encoder, &engine, batch)
        })?;
        Ok(TextEmbedder {
            queue: Arc::new(queue),
        })
    }

    /// Features of texts, in their order; unit ones unless `raw`. A few at a
    /// time are in the queue.
    ///
    /// # Errors
    /// Torch's, [`CatalogError::DeadlineExceeded`] or
    /// [`CatalogError::Cancelled`]. A text that is too long has an error of its
    /// own.
    pub async fn embed(
        &self,
        texts: Vec<String>,
        raw: bool,
        request: &TextRequest,
    ) -> Result<Vec<TextResult>, CatalogError> {
        let mut results = Vec::with_capacity(texts.len());
        let mut texts = texts.into_iter();
        loop {
            let batch: Vec<String> = texts.by_ref().take(STEP).collect();
            if batch.is_empty() {
                return Ok(results);
            }
            results.extend(self.step(batch, raw, request).await?);
        }
    }

    async fn step(
        &self,
        texts: Vec<String>,
        raw: bool,
        request: &TextRequest,
    ) -> Result<Vec<TextResult>, CatalogError> {
        let batch = TextBatch {
            texts,
            truncate: request.truncate,
            raw,
            flow: request.flow,
            deadline: request.deadline,
            cancelled: Arc::clone(&request.cancelled),
        };
        let answer = self.queue.push(batch).await;
        answer.map_err(|_| CatalogError::Cancelled)?
    }

    /// Text classifier W f32 [N, D]: each class's prompts, encoded, normalised,
    /// averaged, normalised again. Only the features of a few classes are in
    /// memory at once.
    ///
    /// # Errors
    /// A prompt that is too long (unless it may be cut), torch's, or
    /// [`CatalogError::Cancelled`].
    pub async fn classifier(
        &self,
        prompts: &[Vec<String>],
        request: &TextRequest,
    ) -> Result<Tensor, CatalogError> {
        let mut all = prompts.iter().flatten().cloned();
        let mut classes = prompts.iter().map(Vec::len).enumerate().peekable();
        let (mut features, mut rows) = (Vec::new(), Vec::new());
        // How many prompts of the first class that lacks some are there.
        let mut begun = 0;
        loop {
            let batch: Vec<String> = all.by_ref().take(STEP).collect();
            if batch.is_empty() {
                break;
            }
            let mut counts = Vec::new();
            for result in self.step(batch, true, request).await? {
                while classes.next_if(|(_, count)| *count == 0).is_some() {
                    counts.push(0);
                }
                let class = classes.peek().map_or(0, |(class, _)| *class);
                let encoded = result.map_err(|error| {
                    CatalogError::invalid(format!("classes[{class}].prompts"), error)
                })?;
                features.push(encoded.feature);
                begun += 1;
                if let Some((_, count)) = classes.next_if(|(_, count)| *count == begun) {
                    counts.push(count);
                    begun = 0;
                }
            }
            if !counts.is_empty() {
                let complete = features.len() - begun;
                let whole: Vec<_> = features.drain(..complete).collect();
                rows.push(classifier_of(&whole, &counts)?);
            }
        }
        Tensor::f_cat(&rows, 0).map_err(CatalogError::internal)
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

/// The prompts of every class: its own, or by templates.
///
/// # Errors
/// A template without "{}".
pub fn class_prompts(
    own: Vec<String>,
    name: &str,
    templates: &[String],
) -> Result<Vec<String>, CatalogError> {
    if own.is_empty() {
        TextEmbedder::prompts(templates, name)
    } else {
        Ok(own)
    }
}

fn classifier_of(features: &[Vec<f32>], counts: &[usize]) -> Result<Tensor, CatalogError> {
    let width = features.first().map_or(0, Vec::len);
    let features = Tensor::f_from_slice(&features.concat())
        .and_then(|flat| flat.f_view([-1, width as i64]))
        .map_err(CatalogError::internal)?;
    classifier_rows(&features, counts).map_err(CatalogError::internal)
}

/// Tokenises and encodes a batch, as much of it at a time as the engine admits.
/// Blocks.
fn encode(
    tokenizer: &Tokenizer,
    encoder: &Arc<TextEncoder>,
    engine: &Engine,
    batch: &TextBatch,
) -> Result<Vec<TextResult>, CatalogError> {
    let mut results = Vec::with_capacity(batch.texts.len());
    while let Some(left) = batch
        .texts
        .get(results.len()..)
        .filter(|left| !left.is_empty())
    {
        let permits = admit(engine, left);
        batch.check_wanted()?;
        let admitted = left.get(..permits.len()).unwrap_or(left);
        results.extend(encode_admitted(
            tokenizer, encoder, engine, batch, admitted,
        )?);
    }
    Ok(results)
}

/// Admits the first of these texts, waiting if it must, and those after it that
/// fit right now: waiting for more while holding permits could deadlock.
fn admit(engine: &Engine, texts: &[String]) -> Vec<Permit> {
    let admission = engine.admission();
    let mut permits = Vec::with_capacity(texts.len());
    for text in texts {
        if permits.is_empty() {
            permits.push(block_on(admission.enter(text.len())));
            continue;
        }
        match admission.try_enter(text.len()) {
            Ok(permit) => permits.push(permit),
            Err(_) => break,
        }
    }
    permits
}

fn encode_admitted(
    tokenizer: &Tokenizer,
    encoder: &Arc<TextEncoder>,
    engine: &Engine,
    batch: &TextBatch,
    texts: &[String],
) -> Result<Vec<TextResult>, CatalogError> {
    let mut ids = Vec::new();
    let tokens: Vec<Result<usize, CatalogError>> = texts
        .iter()
        .map(|text| {
            let (row, count) = tokenizer.encode_counted(text, batch.truncate)?;
            ids.push(row);
            Ok(count)
        })
        .collect();
    let mut rows = Vec::new();
    if !ids.is_empty() {
        let encoder = Arc::clone(encoder);
        let features = engine
            .step(move || encoder.encode(&ids))
            .ok_or(CatalogError::Cancelled)?
            .map_err(CatalogError::internal)?;
        rows = to_rows(&features, batch.raw).map_err(CatalogError::internal)?;
    }
    let mut rows = rows.into_iter();
    tokens
        .into_iter()
        .map(|tokens| match tokens {
            Err(error) => Ok(Err(error)),
            Ok(tokens) => {
                let feature = rows.next().ok_or(CatalogError::Cancelled)?;
                Ok(Ok(EncodedText { feature, tokens }))
            }
        })
        .collect()
}

fn to_rows(features: &Tensor, raw: bool) -> Result<Vec<Vec<f32>>, tch::TchError> {
    let features = features.f_to_kind(Kind::Float)?;
    let rows = if raw {
        features
    } else {
        let norms = features.f_norm_scalaropt_dim(2.0, [1], true)?;
        features.f_div(&norms)?
    };
    Vec::try_from(rows.f_to_device(Device::Cpu)?)
}
