//! What a version's own examples say of it.

use crate::{
    documents::{AnalysisDocument, ClassAnalysisDocument, ExampleTrafficDocument},
    failure::Failure,
    screen::{Screen, percent, table},
};

/// Entries of a list that are shown; --json has them all.
const SHOWN: usize = 10;

/// Classes that are shown, those that would gain most first.
const CLASSES: usize = 20;

/// An analysis, the advice first.
pub(crate) fn analyzed(screen: &Screen, it: &AnalysisDocument) -> Result<(), Failure> {
    screen.line(&format!("{} ({})", it.version, it.method))?;
    screen.line(&it.advice)?;
    screen.line("")?;
    if it.scored_count > 0 {
        screen.line(&format!(
            "left out and classified: {} ± {} of {} examples ({} in all), cross-entropy {:.4}, \
             ECE {}",
            percent(it.accuracy),
            percent(it.accuracy_error),
            it.scored_count,
            it.example_count,
            it.cross_entropy,
            percent(it.expected_calibration_error),
        ))?;
        curve(screen, it)?;
        classes(screen, it)?;
        confused(screen, it)?;
        suspects(screen, it)?;
    }
    duplicates(screen, it)?;
    if let Some(of) = &it.traffic {
        traffic(screen, of)?;
    }
    for reason in &it.skipped {
        screen.line(&format!("\nnot examined: {reason}"))?;
    }
    Ok(())
}

fn curve(screen: &Screen, it: &AnalysisDocument) -> Result<(), Failure> {
    let row = |shots: i32, accuracy: f64, low: f64, high: f64, draws: String| {
        vec![
            shots.to_string(),
            percent(accuracy),
            format!("{} to {}", percent(low), percent(high)),
            draws,
        ]
    };
    let mut rows: Vec<_> = (it.curve.iter())
        .map(|at| row(at.shots, at.accuracy, at.low, at.high, at.draws.to_string()))
        .collect();
    rows.extend((it.forecast.iter()).map(|at| {
        row(
            at.shots,
            at.accuracy,
            at.low,
            at.high,
            "expected".to_owned(),
        )
    }));
    if rows.is_empty() {
        return Ok(());
    }
    screen.line("")?;
    let headers = ["examples a class", "accuracy", "nine in ten", "draws"];
    screen.line(&table(&headers, &[0, 1, 2, 3], rows))
}

fn classes(screen: &Screen, it: &AnalysisDocument) -> Result<(), Failure> {
    let mut order: Vec<_> = it.classes.iter().collect();
    order.sort_by(|a, b| b.expected_gain.total_cmp(&a.expected_gain));
    let rows = (order.iter().take(CLASSES))
        .map(|class| {
            vec![
                class.display_name.clone(),
                class.example_count.to_string(),
                percent(class.accuracy),
                percent(class.precision),
                percent(class.expected_gain),
                threshold(class),
            ]
        })
        .collect();
    screen.line("")?;
    let headers = [
        "class",
        "examples",
        "accuracy",
        "precision",
        "gain by as many again",
        "threshold",
    ];
    screen.line(&table(&headers, &[1, 2, 3, 4], rows))?;
    more(screen, it.classes.len(), CLASSES, "classes")
}

/// "0.713, recall 82.00 %", with a mark if the examples do not confirm it.
fn threshold(class: &ClassAnalysisDocument) -> String {
    match &class.precision_threshold {
        None => "-".to_owned(),
        Some(found) if found.threshold > 1.0 => "none".to_owned(),
        Some(found) => format!(
            "{:.3}, recall {}{}",
            found.threshold,
            percent(found.recall),
            if found.borne_out {
                ""
            } else {
                " (not borne out)"
            }
        ),
    }
}

fn confused(screen: &Screen, it: &AnalysisDocument) -> Result<(), Failure> {
    if it.confused.is_empty() {
        return Ok(());
    }
    screen.line("\nconfused most:")?;
    for pair in it.confused.iter().take(SHOWN) {
        screen.line(&format!(
            "  {} taken for {}: {}; the other way: {}",
            pair.display_name, pair.other_display_name, pair.count, pair.reverse_count
        ))?;
    }
    Ok(())
}

fn suspects(screen: &Screen, it: &AnalysisDocument) -> Result<(), Failure> {
    if it.suspects.is_empty() {
        return Ok(());
    }
    screen.line("\nprobably mislabelled:")?;
    let rows = (it.suspects.iter().take(SHOWN))
        .map(|suspect| {
            vec![
                suspect.example_id.clone(),
                suspect.display_name.clone(),
                percent(suspect.probability),
                suspect.suggested_display_name.clone(),
                percent(f64::from(suspect.suggested_probability)),
            ]
        })
        .collect();
    let headers = [
        "example",
        "labelled",
        "probability",
        "looks like",
        "probability",
    ];
    screen.line(&table(&headers, &[2, 4], rows))?;
    let count = usize::try_from(it.suspect_count).unwrap_or(0);
    more(screen, count, SHOWN, "examples")
}

fn duplicates(screen: &Screen, it: &AnalysisDocument) -> Result<(), Failure> {
    if it.duplicates.is_empty() {
        return Ok(());
    }
    screen.line(&format!(
        "\nthe same or nearly (cosine {:.4} and over):",
        it.duplicate_similarity
    ))?;
    for pair in it.duplicates.iter().take(SHOWN) {
        let kind = if pair.exact {
            "copies".to_owned()
        } else {
            format!("{:.4}", pair.similarity)
        };
        screen.line(&format!(
            "  {} ({}) and {} ({}): {kind}",
            pair.example_id, pair.display_name, pair.other_example_id, pair.other_display_name
        ))?;
    }
    let count = usize::try_from(it.duplicate_count).unwrap_or(0);
    more(screen, count, SHOWN, "pairs")
}

fn traffic(screen: &Screen, it: &ExampleTrafficDocument) -> Result<(), Failure> {
    let since = it.since.as_deref().unwrap_or("-");
    let items = it.item_count;
    let count = match it.unmatched_count {
        None if items == 0 => return Ok(()),
        None => {
            return screen.line(&format!(
                "\nexamples that nothing asked is nearest to: {items} of the {} items that it takes \
                 to say (since {since})",
                it.enough_count
            ));
        }
        Some(0) => {
            return screen.line(&format!(
                "\nevery example was the nearest one of some of {items} items since {since}"
            ));
        }
        Some(count) => usize::try_from(count).unwrap_or(0),
    };
    screen.line(&format!(
        "\nnearest to none of {items} items since {since} (nothing like them is asked, or another \
         example is always nearer):"
    ))?;
    for example in it.unmatched.iter().take(SHOWN) {
        screen.line(&format!(
            "  {} ({})",
            example.example_id, example.display_name
        ))?;
    }
    more(screen, count, SHOWN, "examples")
}

fn more(screen: &Screen, count: usize, shown: usize, what: &str) -> Result<(), Failure> {
    match count.saturating_sub(shown) {
        0 => Ok(()),
        rest => screen.line(&format!("  and {rest} more {what} (--json lists them)")),
    }
}
