//! `GetDrift`: how what a version is asked differs from its examples.

use std::sync::Arc;

use tonic::Response;

use super::{Context, convert::timestamp, error::ApiError, reference};
use crate::{
    auth::Caller,
    catalog::{Classifier, Counts, Seen},
    telemetry,
};
use tip_adapter::drift::{EDGES, stability_index};
use tipserve_api::v1 as pb;

/// Most classes that are named.
const MAX_CLASSES: usize = 50;
/// From here on traffic differs clearly: the usual reading of the index.
const CLEAR: f64 = 0.25;
/// From here on it differs a little.
const SLIGHT: f64 = 0.1;
/// Fewest items that are judged.
const LEAST: u64 = 100;

/// Serves one `GetDrift` call.
pub async fn serve(
    context: &Arc<Context>,
    caller: Caller,
    request: pb::GetDriftRequest,
) -> Result<Response<pb::Drift>, ApiError> {
    let reference = reference(&caller, &request.cache)?;
    let classifier = context.catalog.classifier(&reference).await?;
    Ok(Response::new(drift(&classifier)))
}

/// Counts an item among what a version has been asked, and brings the version's
/// metrics up to date once in a while.
pub fn count(classifier: &Classifier, seen: Seen) {
    telemetry::version_asked(&classifier.name);
    if !classifier.traffic.count(seen) {
        return;
    }
    let counts = classifier.traffic.counts();
    let (similarity, classes) = indices(classifier, &counts);
    telemetry::drift(&classifier.name, similarity, classes);
}

/// The stability index of the nearest examples' similarity, if there is one,
/// and that of the classes.
fn indices(classifier: &Classifier, counts: &Counts) -> (Option<f64>, f64) {
    let shares = [1.0 / (EDGES + 1) as f64; EDGES + 1];
    let examples = classifier.traffic.examples();
    let similarity = !examples.deciles.is_empty() && counts.compared() > 0;
    (
        similarity.then(|| stability_index(&counts.similarity, &shares, examples.sample)),
        stability_index(&counts.classes, &balance(classifier), chosen(classifier)),
    )
}

/// How many examples the classes' shares are a sample of: all, unless every class has
/// as many, which is no sample but a choice.
fn chosen(classifier: &Classifier) -> f64 {
    let classes = &classifier.manifest.details.classes;
    let mut counts = classes.iter().map(|class| class.example_count);
    let first = counts.next();
    match counts.all(|count| Some(count) == first) {
        true => f64::INFINITY,
        false => classes.iter().map(|class| class.example_count).sum::<u64>() as f64,
    }
}

/// The classes' shares of the examples.
fn balance(classifier: &Classifier) -> Vec<f64> {
    let classes = &classifier.manifest.details.classes;
    let total: u64 = classes.iter().map(|class| class.example_count).sum();
    let share = |count: u64| count as f64 / total.max(1) as f64;
    classes
        .iter()
        .map(|class| share(class.example_count))
        .collect()
}

fn drift(classifier: &Classifier) -> pb::Drift {
    let counts = classifier.traffic.counts();
    let (similarity_index, class_index) = indices(classifier, &counts);
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let compared = counts.compared();
    let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
    let balance = balance(classifier);
    let mut classes: Vec<pb::ClassTraffic> = (counts.classes.iter().zip(&balance).enumerate())
        .map(|(index, (count, expected))| pb::ClassTraffic {
            index: i32::try_from(index).unwrap_or(i32::MAX),
            display_name: classifier.class_name(index).to_owned(),
            expected_share: *expected,
            share: share(*count, counts.items),
        })
        .collect();
    let change = |class: &pb::ClassTraffic| (class.share - class.expected_share).abs();
    classes.sort_by(|a, b| change(b).total_cmp(&change(a)));
    classes.truncate(MAX_CLASSES);
    let deciles = &classifier.traffic.examples().deciles;
    pb::Drift {
        version: classifier.name.clone(),
        since: Some(timestamp(classifier.traffic.since().into())),
        item_count: signed(counts.items),
        compared_count: signed(compared),
        similarity_deciles: deciles.clone(),
        similarity_shares: match deciles.is_empty() {
            true => Vec::new(),
            false => (counts.similarity.iter())
                .map(|count| share(*count, compared))
                .collect(),
        },
        similarity_index,
        class_index,
        classes,
        recognised_count: signed(counts.recognised),
        rejected_share: share(counts.rejected, counts.recognised),
        summary: summary(&counts, similarity_index, class_index),
    }
}

/// The report in one sentence, for people.
fn summary(counts: &Counts, similarity: Option<f64>, classes: f64) -> String {
    if counts.items < LEAST {
        return match counts.items {
            0 => "Nothing has been asked of late.".to_owned(),
            1 => "Only 1 item of late: too few to say anything.".to_owned(),
            items => format!("Only {items} items of late: too few to say anything."),
        };
    }
    let low = counts.similarity.first().copied().unwrap_or(0);
    let far = 100.0 * low as f64 / counts.compared().max(1) as f64;
    let pictures = match similarity {
        Some(index) if index >= CLEAR => format!(
            "The pictures are not like the examples (stability index {index:.2}; {far:.0} % lie \
             farther from any example than nine in ten of the examples do)"
        ),
        Some(index) if index >= SLIGHT => {
            format!("The pictures differ a little from the examples (stability index {index:.2})")
        }
        Some(_) if counts.compared() < LEAST => format!(
            "No difference between the pictures and the examples shows, but only {} have been \
             compared",
            counts.compared()
        ),
        Some(_) => "The pictures are like the examples".to_owned(),
        None => "How like the examples the pictures are is not known".to_owned(),
    };
    let mix = match classes {
        index if index >= CLEAR => format!("the classes come in another mix ({index:.2})"),
        index if index >= SLIGHT => format!("the mix of classes differs a little ({index:.2})"),
        _ => "the classes come as the examples do".to_owned(),
    };
    format!("{pictures}; {mix}.")
}
