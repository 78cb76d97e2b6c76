//! The best classes of a batch: chosen where the logits are, or from whole
//! logits; the same, and in what time.

use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::seconds;
use tip_adapter::{
    answer::{HeadQuery, Scores, ScoresRequest, TopKBackend, answers},
    best::{Scored, TopK},
    head::Head,
};

/// The head and the features that both ways of backend the top-k are measured
/// with.
pub struct Batch<'a> {
    /// The head under test, on the device.
    pub head: &'a Head,
    /// f32 [B, D] on the head's device.
    pub features: &'a Tensor,
    /// N, the number of the head's classes.
    pub classes: usize,
    /// Rounds, and the seconds of each.
    pub rounds: (usize, f64),
}

/// Seconds of backend the top-k on the device, and of copying whole logits
/// down and backend on one core; head included in both.
pub fn measure(batch: &Batch) -> anyhow::Result<Value> {
    let rows: Vec<i64> = (0..batch.features.size().first().copied().unwrap_or(0)).collect();
    let top_k = TopK {
        classes: batch.classes,
        temperature: 1.0,
    };
    let wanted = vec![ScoresRequest::Best(top_k); rows.len()];
    let asked = HeadQuery {
        head: batch.head,
        rows: &rows,
        wanted: &wanted,
    };
    let ask = |backend| -> anyhow::Result<Vec<Scores>> {
        Ok(answers(batch.features, &[asked], backend)?
            .pop()
            .unwrap_or_default())
    };
    let read = |scores: Vec<Scores>| -> Vec<Vec<Scored>> {
        scores.iter().map(|scores| scores.best(top_k)).collect()
    };
    let (whole, chosen) = (ask(TopKBackend::Host)?, ask(TopKBackend::Operators)?);
    // What falls back to whole logits is no proof.
    let fell_back = chosen
        .iter()
        .any(|scores| matches!(scores, Scores::Logits(_)));
    let (whole, chosen) = (read(whole), read(chosen));
    let differ = whole.iter().zip(&chosen).filter(|(a, b)| !alike(a, b));
    let differ = differ.count();

    let device: Device = batch.head.device();
    let (rounds, round) = batch.rounds;
    let time = |backend, read: &dyn Fn(Vec<Scores>)| {
        seconds(device, rounds, round, || {
            read(ask(backend)?);
            Ok(())
        })
    };
    let all = |scores| {
        std::hint::black_box(read(scores));
    };
    Ok(json!({
        "classes": batch.classes,
        "rows_that_differ": differ,
        "fell_back": fell_back,
        "seconds_chosen_there": time(TopKBackend::Operators, &all)?,
        "seconds_whole_logits": time(TopKBackend::Host, &drop)?,
        "seconds_whole_logits_and_chosen_by_one_core": time(TopKBackend::Host, &all)?,
    }))
}

fn alike(a: &[Scored], b: &[Scored]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            // The logits of two runs may differ in their last bits, and what
            // is as good as equal then changes places.
            let close = (a.logit - b.logit).abs() <= 1e-4 * a.logit.abs().max(1.0);
            close && (a.probability - b.probability).abs() <= 1e-3
        })
}
