//! What the demo prints at its end.

use serde::Serialize;

use super::{
    lessons::{AddedClass, Draw},
    speed::Speed,
};
use crate::{
    classify::described,
    classify_stream::Reply,
    documents::{HeadDocument, ServerDocument},
    failure::Failure,
    labelled::Labelled,
    report,
    screen::{Screen, percent, table},
};

/// The document of `demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct DemoDocument {
    pub(super) server: ServerDocument,
    pub(super) shots: u32,
    pub(super) classes: Vec<String>,
    pub(super) train_count: usize,
    pub(super) test_count: u64,
    pub(super) create_seconds: f64,
    pub(super) zero_shot_top1: Option<f64>,
    pub(super) tip_adapter_top1: f64,
    pub(super) auto_top1: f64,
    pub(super) draws: Vec<Draw>,
    pub(super) added_class: Option<AddedClass>,
    pub(super) auto_head: Option<HeadDocument>,
    pub(super) tip_adapter_head: Option<HeadDocument>,
    pub(super) stream: Speed,
    pub(super) alone: Speed,
    pub(super) failed: usize,
}

/// Prints the report as text, with some of the answers.
pub(super) fn print(
    screen: &Screen,
    outcome: &DemoDocument,
    replies: &[Reply],
    test: &Labelled,
) -> Result<(), Failure> {
    let method =
        |head: &Option<HeadDocument>| head.as_ref().map(report::numbers).unwrap_or_default();
    let rows = vec![
        vec![
            "zero-shot".into(),
            outcome
                .zero_shot_top1
                .map_or_else(|| "no text".into(), percent),
            "the class names alone".into(),
        ],
        vec![
            "Tip-Adapter".into(),
            percent(outcome.tip_adapter_top1),
            method(&outcome.tip_adapter_head),
        ],
        vec![
            "auto".into(),
            percent(outcome.auto_top1),
            method(&outcome.auto_head),
        ],
    ];
    let title = format!("{} shots", outcome.shots);
    screen.line("")?;
    screen.line(&table(&[&title, "accuracy", "head"], &[1], rows))?;
    for line in learned(outcome) {
        screen.line(&line)?;
    }
    let rows = vec![
        outcome.stream.row(&format!(
            "ClassifyStream, {} in flight",
            outcome.stream.in_flight
        )),
        outcome.alone.row("one at a time"),
    ];
    screen.line("")?;
    let headers = ["speed", "pictures", "pictures/s", "p50", "p99"];
    screen.line(&table(&headers, &[1, 2, 3, 4], rows))?;
    for reply in shown(replies, test) {
        if let Ok(answer) = &reply.outcome {
            screen.line("")?;
            let truth = usize::try_from(reply.index)
                .ok()
                .and_then(|index| test.examples.get(index))
                .and_then(|example| test.classes.get(example.class))
                .map_or_else(String::new, |class| format!(" (is {})", class.display_name));
            screen.line(&described(&format!("{}{truth}", reply.id), answer))?;
        }
    }
    if outcome.failed > 0 {
        screen.error(&format!("{} pictures failed", outcome.failed));
    }
    Ok(())
}

/// What several draws and an added class show, in sentences.
fn learned(outcome: &DemoDocument) -> Vec<String> {
    let mut lines = Vec::new();
    let mut shots: Vec<u32> = outcome.draws.iter().map(|draw| draw.shots).collect();
    shots.dedup();
    for shots in shots {
        let of: Vec<f64> = outcome
            .draws
            .iter()
            .filter(|draw| draw.shots == shots)
            .map(|draw| draw.top1)
            .collect();
        let mean = of.iter().sum::<f64>() / of.len().max(1) as f64;
        let least = of.iter().copied().fold(f64::INFINITY, f64::min);
        let most = of.iter().copied().fold(0.0, f64::max);
        let pictures = match shots {
            1 => "one picture of each class".to_owned(),
            count => format!("{count} pictures of each class"),
        };
        let draws = match of.len() {
            1 => percent(mean),
            count => format!(
                "{} on the mean of {count} draws ({} to {})",
                percent(mean),
                percent(least),
                percent(most)
            ),
        };
        lines.push(format!("{pictures}: {draws}"));
    }
    if let Some(added) = &outcome.added_class {
        let none = added.none_of_these.map_or_else(String::new, |share| {
            format!(
                "\nAsked whether they are of its classes at all (--reject 0.9), it said of {} that they \
                 are none of these.",
                percent(share)
            )
        });
        lines.push(format!(
            "\na class is added: a classifier that had never seen {:?} took its {} pictures mostly \
             for {:?}, at a mean confidence of {}.{}\n{} examples later ({:.1} s, nothing else \
             encoded again) {} of them are right.",
            added.display_name,
            added.pictures,
            added.taken_for,
            percent(added.confidence),
            none,
            outcome.shots,
            added.seconds,
            percent(added.right)
        ));
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// Two right answers, of different classes if possible, and a wrong one.
fn shown<'a>(replies: &'a [Reply], test: &Labelled) -> Vec<&'a Reply> {
    let class = |reply: &Reply| {
        let index = usize::try_from(reply.index).ok()?;
        test.examples.get(index).map(|example| example.class)
    };
    let best = |reply: &Reply| {
        let best = reply.outcome.as_ref().ok()?.top.first()?.index;
        usize::try_from(best).ok()
    };
    let good = || replies.iter().filter(|reply| reply.outcome.is_ok());
    let right: Vec<_> = good().filter(|it| best(it) == class(it)).collect();
    let wrong = good().find(|it| best(it) != class(it));
    let first = right.first().copied();
    let second = right
        .iter()
        .find(|reply| first.is_some_and(|first| class(reply) != class(first)))
        .or(right.get(1))
        .copied();
    [first, second, wrong].into_iter().flatten().collect()
}
