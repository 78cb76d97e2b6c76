//! How pictures are suggested: as the client asks, or by the version's shots.

use std::sync::Arc;

use super::super::{
    super::{Context, error::ApiError, reference, request::RequestError},
    analyze::{bounded, similarity},
};
use crate::{
    auth::Caller,
    catalog::{LabelledExamples, LoadedBundle, Served},
};
use tip_adapter::{
    best::TopK,
    suggest::{Strategy, SuggestOptions},
};
use tipserve_api::v1::{self as pb, suggest_examples_config::Strategy as AskedStrategy};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{ScoresRequest, Work};

/// Pictures suggested if the client does not say.
const DEFAULT_COUNT: usize = 20;
/// Most pictures that one call may ask for.
const MAX_COUNT: usize = 10_000;
/// Classes named with a suggestion.
const TOP: usize = 2;
/// Shots from which a class is known well enough to ask between classes: over
/// draws of DTD and Caltech101, asking by margin was better from two labels a
/// class on (`docs/accuracy.md`).
const SHOTS_FOR_MARGIN: u64 = 2;

/// What is to be done, checked.
pub(super) struct Plan {
    pub options: SuggestOptions,
    /// Why this strategy, for the answer.
    pub reason: String,
    /// The version whose examples are the labelled ones, and those examples.
    pub version: Option<(Served, Arc<LabelledExamples>)>,
    /// The bundle that encodes the pictures: the version's.
    pub bundle: Arc<LoadedBundle>,
}

impl Plan {
    pub async fn of(
        context: &Context,
        caller: &Caller,
        config: pb::SuggestExamplesConfig,
    ) -> Result<Plan, ApiError> {
        let count = bounded("config.count", config.count, DEFAULT_COUNT, MAX_COUNT)?;
        let duplicate_similarity =
            similarity("config.duplicate_similarity", config.duplicate_similarity)?;
        let asked = AskedStrategy::try_from(config.strategy).map_err(|_| {
            let problem = format!("{} is not a Strategy", config.strategy);
            RequestError::invalid("config.strategy", problem)
        })?;
        if config.cache.is_empty() && asked == AskedStrategy::Margin {
            let problem =
                "STRATEGY_MARGIN needs a version to be undecided: name it in config.cache";
            return Err(RequestError::invalid("config.strategy", problem).into());
        }
        let version = if config.cache.is_empty() {
            None
        } else {
            let reference = reference(caller, &config.cache)?;
            let classifier = context.catalog.classifier(&reference).await?;
            // The same version, whatever the name stands for by now.
            let (id, number) = (&classifier.manifest.cache, classifier.manifest.version);
            if asked == AskedStrategy::Margin {
                classifier.needs_one_label(
                    "its classes do not compete, so that no margin lies between two of them: ask \
                     for STRATEGY_TYPICAL",
                )?;
            }
            let identity = caller.quota();
            let labelled = context
                .catalog
                .labelled_examples(id, number, identity.as_deref())
                .await?;
            Some((classifier, Arc::new(labelled)))
        };
        let bundle = match &version {
            Some((served, _)) => Arc::clone(&served.bundle),
            None => {
                let named = context.catalog.bundles().named(&config.bundle);
                named.map_err(|error| ApiError::from(error).field("config.bundle"))?
            }
        };
        let (strategy, reason) = strategy(asked, version.as_ref().map(|(served, _)| served));
        Ok(Plan {
            options: SuggestOptions {
                count,
                strategy,
                duplicate_similarity,
                seed: config.seed,
            },
            reason,
            version,
            bundle,
        })
    }

    /// As the version treats it; without a version, as new versions do.
    pub fn exif_orientation(&self) -> ExifOrientation {
        self.version
            .as_ref()
            .map_or(ExifOrientation::Apply, |(version, _)| {
                version.exif_orientation()
            })
    }

    /// What the engine does with an item.
    pub fn work(&self) -> Work {
        match &self.version {
            None => Work::Embed,
            Some((classifier, _)) => Work::Classify {
                head: Arc::clone(&classifier.head),
                wanted: ScoresRequest::Best(top_k(classifier)),
                neighbours: 0,
                embedding: true,
            },
        }
    }
}

/// What each picture is classified for: the margin of its two best classes.
pub(super) fn top_k(classifier: &Served) -> TopK {
    TopK {
        classes: TOP,
        temperature: classifier.temperature(),
    }
}

/// What to go by, and why.
fn strategy(asked: AskedStrategy, version: Option<&Served>) -> (Strategy, String) {
    match (asked, version) {
        (AskedStrategy::Typical, _) => (
            Strategy::Typical,
            "typical pictures, as asked for".to_owned(),
        ),
        (AskedStrategy::Margin, _) => (
            Strategy::Margin,
            "undecided pictures, as asked for".to_owned(),
        ),
        (AskedStrategy::Unspecified, None) => (
            Strategy::Typical,
            "typical pictures, as nothing is labelled yet".to_owned(),
        ),
        (AskedStrategy::Unspecified, Some(version)) if version.label_thresholds().is_some() => (
            Strategy::Typical,
            "typical pictures, as examples carry any number of classes".to_owned(),
        ),
        (AskedStrategy::Unspecified, Some(version)) if version.classes() < 2 => (
            Strategy::Typical,
            "typical pictures, as there are not two classes to be undecided between".to_owned(),
        ),
        (AskedStrategy::Unspecified, Some(version)) => {
            let classes = &version.manifest.details.classes;
            let known = (classes.iter())
                .filter(|class| class.example_count >= SHOTS_FOR_MARGIN)
                .count();
            let words = format!(
                "{known} of {} classes have {SHOTS_FOR_MARGIN} examples or more",
                classes.len()
            );
            if 2 * known >= classes.len() {
                (Strategy::Margin, format!("undecided pictures, as {words}"))
            } else {
                (Strategy::Typical, format!("typical pictures, as {words}"))
            }
        }
    }
}
