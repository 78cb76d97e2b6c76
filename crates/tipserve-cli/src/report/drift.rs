//! How a version's traffic differs from its examples.

use crate::{
    documents::DriftDocument,
    failure::Failure,
    screen::{Screen, percent, table},
};

/// Classes that are shown; --json has them all.
const SHOWN: usize = 10;

/// The summary first.
pub(crate) fn drifted(screen: &Screen, it: &DriftDocument) -> Result<(), Failure> {
    screen.line(&it.version)?;
    screen.line(&it.summary)?;
    screen.line(&format!(
        "\n{} items since {}, {} compared with their nearest example",
        it.item_count,
        it.since.as_deref().unwrap_or("-"),
        it.compared_count
    ))?;
    if it.recognised_count > 0 {
        screen.line(&format!(
            "{} of {} not accepted",
            percent(it.rejected_share),
            it.recognised_count
        ))?;
    }
    if it.compared_count > 0 {
        let lower = [None]
            .into_iter()
            .chain(it.similarity_deciles.iter().map(Some));
        let rows = (lower.zip(&it.similarity_shares))
            .map(|(edge, share)| {
                let edge = edge.map_or_else(|| "below".to_owned(), |edge| format!("{edge:.3}"));
                vec![edge, percent(*share)]
            })
            .collect();
        screen.line("\nsimilarity of the nearest example (a tenth each is as the examples):")?;
        screen.line(&table(&["from", "share"], &[0, 1], rows))?;
    }
    let rows = (it.classes.iter().take(SHOWN))
        .map(|class| {
            vec![
                class.display_name.clone(),
                percent(class.expected_share),
                percent(class.share),
            ]
        })
        .collect();
    screen.line("")?;
    screen.line(&table(
        &["class", "of the examples", "of the items"],
        &[1, 2],
        rows,
    ))
}
