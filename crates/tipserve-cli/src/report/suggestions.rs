//! Which pictures to label.

use super::rejected::rejected;
use crate::{
    documents::SuggestionsDocument,
    failure::Failure,
    screen::{Screen, percent, table},
};

/// Suggestions, the most useful first.
pub(crate) fn suggested(screen: &Screen, it: &SuggestionsDocument) -> Result<(), Failure> {
    screen.line(&it.reason)?;
    screen.line("")?;
    let classes = it.suggestions.iter().any(|one| !one.top.is_empty());
    let mut headers = vec!["picture", "score", "stands for", "near-duplicates"];
    if classes {
        headers.push("looks like");
    }
    let rows = (it.suggestions.iter())
        .map(|one| {
            let mut row = vec![
                one.id.clone(),
                format!("{:.3}", one.score),
                one.cluster_size.to_string(),
                one.duplicate_count.to_string(),
            ];
            if classes {
                let top: Vec<String> = (one.top.iter())
                    .map(|class| {
                        let probability = percent(f64::from(class.probability));
                        format!("{} {probability}", class.display_name)
                    })
                    .collect();
                row.push(top.join(", "));
            }
            row
        })
        .collect();
    screen.line(&table(&headers, &[1, 2, 3], rows))?;
    rejected(screen, &it.rejected, it.rejected_count);
    Ok(())
}
