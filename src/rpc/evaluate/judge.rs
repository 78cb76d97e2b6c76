//! Judges one item with the heads of every version; encodes it once for all
//! versions that decode it alike.

use std::sync::{Arc, atomic::AtomicBool};

use super::super::{Context, error::ApiError, submit::Item};
use crate::catalog::{CatalogError, LoadedBundle};
use tip_adapter::head::Head;
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Content, FlowId, JobOutput, Priority, ScoresRequest, Work};

/// What a version makes of an item.
pub(super) struct Logits {
    /// Logits of the version's own head, one for each class.
    pub own: Vec<f32>,
    /// Logits of its text alone; `None` without text.
    pub zero_shot: Option<Vec<f32>>,
    /// The item's feature, where the version scores by it.
    pub feature: Option<Vec<f32>>,
}

/// One version's heads, and how its pictures are decoded.
pub(super) struct JudgedHead {
    /// The bundle that encodes for it.
    pub bundle: Arc<LoadedBundle>,
    /// How its pictures are decoded.
    pub exif_orientation: ExifOrientation,
    /// The head that serves the version.
    pub own: Arc<Head>,
    /// Its text alone, if it has text.
    pub zero_shot: Option<Arc<Head>>,
    /// Whether it scores by an item's feature.
    pub scores_by_feature: bool,
}

impl JudgedHead {
    /// Whether a picture has the same feature for both.
    fn sees_as(&self, other: &JudgedHead) -> bool {
        Arc::ptr_eq(&self.bundle, &other.bundle) && self.exif_orientation == other.exif_orientation
    }
}

/// Judges one item by every head.
pub(super) struct Judge {
    /// The server's catalog, limits and running calls.
    pub context: Arc<Context>,
    /// The flow of the queue that it belongs to.
    pub flow: FlowId,
    /// Set when nobody waits for it any more.
    pub cancelled: Arc<AtomicBool>,
    /// The versions' heads, in their order.
    pub heads: Vec<JudgedHead>,
}

impl Judge {
    /// The item's logits by each version.
    ///
    /// # Errors
    /// The engine's.
    pub async fn run(&self, content: Content) -> Result<Vec<Logits>, ApiError> {
        // Encoded once for all versions of a bundle that decode it alike.
        let mut units: Vec<(&JudgedHead, Vec<f32>)> = Vec::new();
        let mut logits = Vec::with_capacity(self.heads.len());
        for head in &self.heads {
            let turn = head.exif_orientation;
            let known = units.iter().find(|(of, _)| of.sees_as(head));
            let unit = match known {
                Some((_, unit)) => unit.clone(),
                None => {
                    let content = content.clone().oriented(turn);
                    let unit = self.unit(&head.bundle, content).await?;
                    units.push((head, unit.clone()));
                    unit
                }
            };
            let own = self.logits(&head.bundle, &unit, &head.own).await?;
            let zero_shot = match &head.zero_shot {
                Some(zero_shot) => Some(self.logits(&head.bundle, &unit, zero_shot).await?),
                None => None,
            };
            logits.push(Logits {
                own,
                zero_shot,
                feature: head.scores_by_feature.then_some(unit),
            });
        }
        Ok(logits)
    }

    async fn unit(
        &self,
        bundle: &Arc<LoadedBundle>,
        content: Content,
    ) -> Result<Vec<f32>, ApiError> {
        match content {
            Content::Embedding(unit) => Ok(unit),
            picture @ Content::Picture { .. } => {
                let outcome = self.job(bundle, picture, Work::Embed).await?;
                let feature = outcome
                    .feature
                    .ok_or_else(|| ApiError::from(CatalogError::internal("no feature")))?;
                Ok(feature.unit.to_vec())
            }
        }
    }

    async fn logits(
        &self,
        bundle: &Arc<LoadedBundle>,
        unit: &[f32],
        head: &Arc<Head>,
    ) -> Result<Vec<f32>, ApiError> {
        let work = Work::Classify {
            head: Arc::clone(head),
            wanted: ScoresRequest::Logits,
            neighbours: 0,
            embedding: false,
        };
        let content = Content::Embedding(unit.to_vec());
        let outcome = self.job(bundle, content, work).await?;
        Ok(outcome.scores.logits().to_vec())
    }

    async fn job(
        &self,
        bundle: &Arc<LoadedBundle>,
        content: Content,
        work: Work,
    ) -> Result<JobOutput, ApiError> {
        let item = Item {
            bundle: Arc::clone(bundle),
            content,
            work,
            flow: self.flow,
            priority: Priority::Bulk,
            deadline: None,
            cancelled: Arc::clone(&self.cancelled),
            may_wait: true,
        };
        self.context.send(item).await?.outcome().await
    }
}
