//! A version: what was made, its head, and how that was chosen.

use super::rejected::rejected;
use crate::{
    documents::{
        CandidateDocument, FineTuneDocument, HeadDocument, SourceDocument, VersionDocument,
        VersionMadeDocument,
    },
    failure::Failure,
    screen::{Screen, bytes, number, percent, table},
    terminal::escaped_line,
};

/// What `create` or `add` made, and how its head was chosen.
pub(crate) fn made(screen: &Screen, made: &VersionMadeDocument) -> Result<(), Failure> {
    let version = &made.version;
    screen.line(&format!("made {}", summary(version)))?;
    if let (Some(parent), Some(source)) = (&version.parent, &version.source) {
        screen.line(&format!("from {parent}: {}", taken_in(source)))?;
    }
    if let Some(head) = &version.head {
        chosen(screen, head)?;
    }
    let used = made
        .example_count
        .saturating_sub(made.rejected.len() as u64);
    let counts = if made.rejected.is_empty() {
        used.to_string()
    } else {
        format!("{used} of {}", made.example_count)
    };
    screen.line(&match made.example_count {
        0 => format!("\ndone in {:.2} s", made.seconds),
        _ => format!(
            "\n{counts} examples in {:.2} s ({:.1} a second)",
            made.seconds, made.examples_per_second
        ),
    })?;
    rejected(screen, &made.rejected, made.rejected.len() as i64);
    Ok(())
}

/// "pets@7: 3 classes, 48 keys of width 512, 100 KiB, features in int8".
pub(crate) fn summary(version: &VersionDocument) -> String {
    let mut text = format!(
        "{}@{}: {} classes, {} keys of width {}, {}",
        version.cache,
        version.version,
        version.classes.len(),
        version.key_count,
        version.width,
        bytes(version.size_bytes)
    );
    if !version.encoder_dtype.is_empty() {
        text += &format!(", features in {}", version.encoder_dtype);
    }
    text
}

/// "12 examples taken over, 3 received, 1 of them rejected, 2 removed".
fn taken_in(source: &SourceDocument) -> String {
    let mut parts = Vec::new();
    if source.inherited > 0 || source.removed > 0 {
        parts.push(format!("{} examples taken over", source.inherited));
    }
    if source.received > 0 || parts.is_empty() {
        parts.push(format!("{} received", source.received));
    }
    if source.rejected > 0 {
        parts.push(format!("{} of them rejected", source.rejected));
    }
    if source.without_end_mark > 0 {
        parts.push(format!(
            "{} of files without their end mark",
            source.without_end_mark
        ));
    }
    if source.removed > 0 {
        parts.push(format!("{} removed", source.removed));
    }
    parts.join(", ")
}

/// A head's method and numbers, and how they were chosen.
pub(crate) fn chosen(screen: &Screen, head: &HeadDocument) -> Result<(), Failure> {
    screen.line(&format!("method {}", numbers(head)))?;
    let Some(selection) = &head.selection else {
        return Ok(());
    };
    screen.line(&format!("why: {}", escaped_line(&selection.reason)))?;
    let mut basis = match selection.source.as_str() {
        "given" => "numbers given, not chosen".to_owned(),
        "default" => "defaults, not chosen".to_owned(),
        source => format!("chosen on {}", source.replace('_', " ")),
    };
    if selection.example_count > 0 {
        basis += &format!(", {} examples", selection.example_count);
    }
    for (name, text) in [("score", &selection.score), ("grid", &selection.grid)] {
        if !text.is_empty() {
            basis += &format!("; {name}: {}", escaped_line(text));
        }
    }
    screen.line(&basis)?;
    if let Some(pool) = &head.unlabelled {
        screen.line(&format!("unlabelled: {}", escaped_line(&pool.reason)))?;
    }
    if !selection.candidates.is_empty() {
        screen.line("")?;
        screen.line(&candidates(&selection.candidates))?;
    }
    Ok(())
}

/// "tip_adapter, α 1.17, β 5.5, temperature 1".
pub(crate) fn numbers(head: &HeadDocument) -> String {
    let mut text = head.method.clone();
    for (name, value) in [("α", head.alpha), ("β", head.beta), ("λ", head.lambda)] {
        if value != 0.0 {
            text += &format!(", {name} {}", number(value));
        }
    }
    if let Some(whose) = &head.standardised {
        text += &format!(", features standardised ({whose})");
    }
    text + &format!(", temperature {}", number(head.temperature))
}

fn candidates(candidates: &[CandidateDocument]) -> String {
    let or_none = |value: f64| {
        if value == 0.0 {
            "-".to_owned()
        } else {
            number(value)
        }
    };
    let rows = candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| {
            let mut row = vec![
                match &candidate.standardised {
                    Some(_) => format!("{} (standardised)", candidate.method),
                    None => candidate.method.clone(),
                },
                candidate.weight.map_or_else(|| "-".to_owned(), number),
                or_none(candidate.alpha),
                or_none(candidate.beta),
                or_none(candidate.lambda),
            ];
            match &candidate.skipped {
                // What is part of the head is not left out, though nothing scored it.
                Some(why) if at == 0 || candidate.weight.is_some() => {
                    row.extend(["-".into(), "-".into(), why.clone()]);
                }
                Some(why) => row.extend(["-".into(), "-".into(), format!("left out: {why}")]),
                None => row.extend([
                    percent(candidate.accuracy),
                    format!("{:.4}", candidate.cross_entropy),
                    String::new(),
                ]),
            }
            row
        })
        .collect();
    table(
        &[
            "candidate",
            "weight",
            "α",
            "β",
            "λ",
            "accuracy",
            "cross-entropy",
            "",
        ],
        &[1, 2, 3, 4, 5, 6],
        rows,
    )
}

/// Prints one version in full: its numbers, and how they were chosen.
pub(crate) fn version(screen: &Screen, version: &VersionDocument) -> Result<(), Failure> {
    let mut rows = vec![
        vec![
            "version".into(),
            format!("{}@{}", version.cache, version.version),
        ],
        vec![
            "made".into(),
            version.create_time.clone().unwrap_or_default(),
        ],
        vec!["classes".into(), version.classes.len().to_string()],
        vec![
            "keys".into(),
            format!("{} of width {}", version.key_count, version.width),
        ],
        vec!["views".into(), version.views.to_string()],
        vec![
            "EXIF orientation".into(),
            match version.exif_orientation {
                "apply" => "applied",
                _ => "ignored",
            }
            .into(),
        ],
        vec!["size".into(), bytes(version.size_bytes)],
        vec![
            "bundle".into(),
            format!("{} {}", version.bundle_name, version.bundle_fingerprint)
                .trim_start()
                .to_owned(),
        ],
    ];
    if version.multi_label {
        rows.push(vec!["labels".into(), "any number an example".into()]);
    }
    if version.unknown_count > 0 {
        rows.push(vec![
            "of no class".into(),
            format!("{} examples", version.unknown_count),
        ]);
    }
    if !version.encoder_dtype.is_empty() {
        rows.push(vec!["features".into(), version.encoder_dtype.clone()]);
    }
    if !version.part_weights.is_empty() {
        let weights = version.part_weights.iter();
        let weights: Vec<String> = weights.map(|weight| format!("{weight:.3}")).collect();
        rows.push(vec!["encoders' weights".into(), weights.join(", ")]);
    }
    if !version.created_by.is_empty() {
        rows.insert(2, vec!["by".into(), version.created_by.clone()]);
    }
    if let Some(source) = &version.source {
        rows.push(vec!["examples".into(), taken_in(source)]);
    }
    if let Some(parent) = &version.parent {
        rows.push(vec!["parent".into(), parent.clone()]);
    }
    if !version.description.is_empty() {
        rows.push(vec!["description".into(), version.description.clone()]);
    }
    for (key, value) in &version.labels {
        rows.push(vec![format!("label {key}"), value.clone()]);
    }
    screen.line(&table(&[], &[], rows))?;
    if let Some(record) = &version.fine_tune {
        screen.line(&format!("fine-tuned: {}", tuned(record)))?;
    }
    if let Some(head) = &version.head {
        chosen(screen, head)?;
    }
    classes(screen, version)
}

/// The classes, a row each.
fn classes(screen: &Screen, version: &VersionDocument) -> Result<(), Failure> {
    let rows = version
        .classes
        .iter()
        .map(|class| {
            vec![
                class.index.to_string(),
                class.display_name.clone(),
                class.example_count.to_string(),
                class.validation_count.to_string(),
            ]
        })
        .collect();
    screen.line("")?;
    screen.line(&table(
        &["index", "class", "examples", "validation"],
        &[0, 2, 3],
        rows,
    ))
}

/// What fine-tuning did and gained.
pub(crate) fn tuned(record: &FineTuneDocument) -> String {
    if record.recipe != "residual" {
        return format!(
            "{} epochs in {:.1} s, kept epoch {}: {}",
            record.epochs,
            record.seconds,
            record.best_epoch,
            gain(record)
        );
    }
    let entropy = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
    format!(
        "a residual of strength {} in {:.1} s: cross-entropy {} before, {} after; accuracy {} \
         before, {} after (on {} unseen examples)",
        number(record.strength),
        record.seconds,
        entropy(record.cross_entropy_before),
        entropy(record.cross_entropy_after),
        percent(record.accuracy_before),
        percent(record.accuracy_after),
        record.example_count,
    )
}

/// What training the keys gained, and on what that was seen.
fn gain(record: &FineTuneDocument) -> String {
    if record.source == "default" {
        return "neither validation examples nor several views to choose on, so the last epoch \
                was kept unseen; give --validation or --views when creating"
            .to_owned();
    }
    format!(
        "{} before, {} after (on {})",
        percent(record.accuracy_before),
        percent(record.accuracy_after),
        record.source.replace('_', " ")
    )
}
