//! Evaluations, side by side.

use super::rejected::rejected;
use crate::{
    documents::{EvaluateDocument, EvaluationDocument, UnknownDocument},
    failure::Failure,
    screen::{Screen, percent, table},
};

/// Most classes for which the confusion matrix is shown whole, and most
/// confusions that are shown beyond that.
const WHOLE_MATRIX: usize = 20;

/// Prints evaluations as a table, a version a row.
pub(crate) fn evaluated(screen: &Screen, outcome: &EvaluateDocument) -> Result<(), Failure> {
    if outcome
        .evaluations
        .iter()
        .any(|it| it.multi_label.is_some())
    {
        return labels_evaluated(screen, outcome);
    }
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
    let rows = outcome
        .evaluations
        .iter()
        .map(|it| {
            vec![
                it.version.clone(),
                it.count.to_string(),
                percent(it.top1),
                percent(it.top5),
                share(it.zero_shot_top1),
                percent(it.expected_calibration_error),
                format!("{:.4}", it.cross_entropy),
            ]
        })
        .collect();
    let headers = [
        "version",
        "count",
        "top-1",
        "top-5",
        "zero-shot",
        "ECE",
        "cross-entropy",
    ];
    screen.line(&table(&headers, &[1, 2, 3, 4, 5, 6], rows))?;
    screen.line("")?;
    screen.line(&per_class(&outcome.evaluations))?;
    for evaluation in &outcome.evaluations {
        screen.line("")?;
        confusion(screen, evaluation)?;
    }
    for evaluation in &outcome.evaluations {
        if let Some(it) = &evaluation.unknown {
            screen.line(&unknown(&evaluation.version, it))?;
        }
    }
    screen.line(&format!(
        "\n{} examples in {:.2} s; classes matched by {}",
        outcome.count, outcome.seconds, outcome.matched_by
    ))?;
    rejected(screen, &outcome.rejected, outcome.rejected_count);
    Ok(())
}

/// Evaluations of independent labels, one after the other.
fn labels_evaluated(screen: &Screen, outcome: &EvaluateDocument) -> Result<(), Failure> {
    for it in &outcome.evaluations {
        let Some(found) = &it.multi_label else {
            continue;
        };
        screen.line(&format!(
            "{}: {} examples, mAP {}, micro F1 {:.4}, macro F1 {:.4}, precision {}, recall {}, \
             cross-entropy {:.4}\n",
            it.version,
            it.count,
            percent(found.mean_average_precision),
            found.micro_f1,
            found.macro_f1,
            percent(found.precision),
            percent(found.recall),
            it.cross_entropy
        ))?;
        let rows = (found.classes.iter())
            .map(|class| {
                vec![
                    class.display_name.clone(),
                    class.count.to_string(),
                    percent(class.average_precision),
                    percent(class.precision),
                    percent(class.recall),
                    format!("{:.4}", class.f1),
                ]
            })
            .collect();
        let headers = ["class", "count", "AP", "precision", "recall", "F1"];
        screen.line(&table(&headers, &[1, 2, 3, 4, 5], rows))?;
    }
    screen.line(&format!(
        "\n{} examples in {:.2} s; classes matched by {}",
        outcome.count, outcome.seconds, outcome.matched_by
    ))?;
    rejected(screen, &outcome.rejected, outcome.rejected_count);
    Ok(())
}

/// How well pictures of unknown classes are told, and what a threshold does.
fn unknown(version: &str, it: &UnknownDocument) -> String {
    let known = format!(
        "accepts {} of the known; {} of the accepted are right",
        percent(it.accepted),
        percent(it.accepted_top1)
    );
    if it.count == 0 {
        return format!("\n{version} {known}");
    }
    let mut text = format!(
        "\n{} pictures of unknown classes by {version}: AUROC {}, FPR at 95 % {}",
        it.count,
        percent(it.auroc),
        percent(it.false_positive_rate)
    );
    // With a precision each class has its own threshold.
    if it.threshold.is_some() || it.accepted > 0.0 {
        text += &format!(
            "; its threshold rejects {} of the unknown, {known}",
            percent(it.rejected)
        );
    }
    text
}

/// Accuracy of each class that has examples, a column for each version.
fn per_class(evaluations: &[EvaluationDocument]) -> String {
    let mut headers = vec!["class", "count"];
    headers.extend(evaluations.iter().map(|it| it.version.as_str()));
    let Some(first) = evaluations.first() else {
        return String::new();
    };
    let rows = first
        .classes
        .iter()
        .enumerate()
        .filter(|(_, class)| class.count > 0)
        .map(|(index, class)| {
            let mut row = vec![class.display_name.clone(), class.count.to_string()];
            row.extend(evaluations.iter().map(|it| {
                it.classes
                    .get(index)
                    .map_or_else(String::new, |class| percent(class.accuracy))
            }));
            row
        })
        .collect();
    let right: Vec<_> = (1..headers.len()).collect();
    table(&headers, &right, rows)
}

fn confusion(screen: &Screen, evaluation: &EvaluationDocument) -> Result<(), Failure> {
    let classes = &evaluation.classes;
    if evaluation.confusion.is_empty() {
        return screen.line(&format!(
            "no confusion matrix of {}: the server gives none for {} classes",
            evaluation.version,
            classes.len()
        ));
    }
    if classes.len() > WHOLE_MATRIX {
        return worst_confusions(screen, evaluation);
    }
    screen.line(&format!(
        "confusion of {} (rows: true class)",
        evaluation.version
    ))?;
    let letters: Vec<String> = classes
        .iter()
        .map(|class| format!("[{}]", class.index))
        .collect();
    let mut headers = vec!["class"];
    headers.extend(letters.iter().map(String::as_str));
    let rows = classes
        .iter()
        .zip(&evaluation.confusion)
        .map(|(class, counts)| {
            let mut row = vec![format!("[{}] {}", class.index, class.display_name)];
            row.extend(counts.iter().map(|count| match count {
                0 => ".".to_owned(),
                count => count.to_string(),
            }));
            row
        })
        .collect();
    let right: Vec<_> = (1..headers.len()).collect();
    screen.line(&table(&headers, &right, rows))
}

fn worst_confusions(screen: &Screen, evaluation: &EvaluationDocument) -> Result<(), Failure> {
    let name = |index: usize| {
        evaluation
            .classes
            .get(index)
            .map_or_else(String::new, |class| class.display_name.clone())
    };
    let mut wrong: Vec<(i64, usize, usize)> = Vec::new();
    for (i, row) in evaluation.confusion.iter().enumerate() {
        let others = row
            .iter()
            .enumerate()
            .filter(|(j, count)| *j != i && **count > 0);
        wrong.extend(others.map(|(j, count)| (*count, i, j)));
    }
    wrong.sort_by_key(|(count, i, j)| (std::cmp::Reverse(*count), *i, *j));
    screen.line(&format!(
        "most frequent confusions of {}",
        evaluation.version
    ))?;
    let rows = wrong
        .iter()
        .take(WHOLE_MATRIX)
        .map(|(count, i, j)| vec![count.to_string(), name(*i), name(*j)])
        .collect();
    screen.line(&table(&["count", "class", "taken for"], &[0], rows))
}
