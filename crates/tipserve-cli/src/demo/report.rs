//! What the demo prints at its end.

use serde::Serialize;

use super::speed::Speed;
use crate::{
    classify::described,
    classify_stream::Reply,
    documents::{HeadDocument, ServerDocument},
    failure::Failure,
    labelled::Labelled,
    report,
    screen::{Screen, percent, table},
};

/// What `demo --json` prints.
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
    pub(super) auto_head: Option<HeadDocument>,
    pub(super) tip_adapter_head: Option<HeadDocument>,
    pub(super) stream: Speed,
    pub(super) alone: Speed,
    pub(super) failed: usize,
}

/// Prints the report as text, with two of the answers.
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

/// Two answers, of different classes if possible.
fn shown<'a>(replies: &'a [Reply], test: &Labelled) -> Vec<&'a Reply> {
    let class = |reply: &Reply| {
        let index = usize::try_from(reply.index).ok()?;
        test.examples.get(index).map(|example| example.class)
    };
    let mut good = replies.iter().filter(|reply| reply.outcome.is_ok());
    let Some(first) = good.next() else {
        return Vec::new();
    };
    let rest: Vec<_> = good.collect();
    let other = rest
        .iter()
        .find(|reply| class(reply) != class(first))
        .or(rest.first());
    std::iter::once(first).chain(other.copied()).collect()
}
