//! `evaluate --html`: one self-contained page about how well a version did.
//!
//! The server's figures say how often it was right. Which pictures it got wrong,
//! and whether its probabilities can be believed, is seen item by item, so the
//! same examples are classified once more.

mod charts;
mod page;
mod picture;

use std::{collections::HashMap, path::Path};

use crate::{
    classify_stream::{self, StreamOptions},
    connect::Connection,
    documents::EvaluationDocument,
    failure::Failure,
    files::readable,
    labelled::{Labelled, Place},
};
use tipserve_api::v1::{
    ClassifyOptions, ClassifyStreamConfig, ExifOrientation, GetVersionRequest, Priority,
};

/// Items in flight on the stream.
const WINDOW: usize = 32;

/// What a version said of one example.
#[derive(Debug)]
struct Judged {
    id: String,
    /// Index of the class that it is of.
    class: usize,
    /// Index of the class that it was taken for.
    best: usize,
    /// Probability of the class that it was taken for.
    confidence: f64,
    /// Probability of its own class.
    own: f64,
}

impl Judged {
    fn right(&self) -> bool {
        self.class == self.best
    }
}

/// Classifies the examples, whose classes are numbered as the version's, and
/// writes the page.
///
/// # Errors
/// The call's, and those of writing `path`.
pub(crate) async fn write(
    connection: &Connection,
    labelled: Labelled,
    evaluation: &EvaluationDocument,
    path: &Path,
) -> Result<(), Failure> {
    let files: HashMap<String, std::path::PathBuf> = labelled
        .examples
        .iter()
        .filter_map(|example| match &example.place {
            Place::File(path) => Some((example.id.clone(), path.clone())),
            Place::Address(_)
            | Place::Inline(_)
            | Place::Row(_)
            | Place::Values(_)
            | Place::Unusable { .. } => None,
        })
        .collect();
    let mut client = connection.caches();
    let request = GetVersionRequest {
        name: evaluation.version.clone(),
        read_mask: None,
    };
    let version = connection
        .unary("looking up the version", client.get_version(request))
        .await?;
    let turned = version.exif_orientation() == ExifOrientation::Apply;
    let judged = judge(connection, labelled, &evaluation.version).await?;
    let text = page::page(evaluation, &judged, |id| {
        files
            .get(id)
            .and_then(|path| picture::embedded(path, turned))
    });
    std::fs::write(path, text)
        .map_err(|error| Failure::Input(format!("{}: {error}", readable(path))))
}

/// What the version says of each; those that it cannot read are left out, as
/// the evaluation leaves them out.
async fn judge(
    connection: &Connection,
    labelled: Labelled,
    version: &str,
) -> Result<Vec<Judged>, Failure> {
    let classes: Vec<usize> = labelled.examples.iter().map(|one| one.class).collect();
    let limit = connection.message_limit().await?;
    let items = classify_stream::items(labelled, limit);
    let config = ClassifyStreamConfig {
        cache: version.to_owned(),
        options: Some(ClassifyOptions {
            top_k: 1,
            probabilities: true,
            ..ClassifyOptions::default()
        }),
        ordered: true,
        priority: Priority::Bulk.into(),
    };
    let options = StreamOptions {
        window: WINDOW,
        limit,
        time_limit: None,
    };
    let mut judged = Vec::new();
    classify_stream::classify(connection, config, &options, items, |reply| {
        let class = usize::try_from(reply.index)
            .ok()
            .and_then(|index| classes.get(index));
        if let (Ok(answer), Some(&class)) = (reply.outcome, class)
            && let Some(best) = answer.top.first()
        {
            judged.push(Judged {
                id: reply.id,
                class,
                best: usize::try_from(best.index).unwrap_or(usize::MAX),
                confidence: f64::from(best.probability),
                own: f64::from(answer.probabilities.get(class).copied().unwrap_or(0.0)),
            });
        }
        Ok(())
    })
    .await?;
    Ok(judged)
}

/// Text as HTML has it, in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => made += "&amp;",
            '<' => made += "&lt;",
            '>' => made += "&gt;",
            '"' => made += "&quot;",
            '\'' => made += "&#39;",
            c => made.push(c),
        }
    }
    made
}
