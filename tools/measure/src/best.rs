//! The best classes of a batch: chosen where the logits are, or from whole
//! logits; the same, and in what time.

use serde_json::{Value, json};
use tch::{Device, Tensor};

use super::seconds;
use tip_adapter::{
    answer::{Asked, Choosing, Scores, Wanted, answers},
    best::{Scored, Wish},
    head::Head,
};

/// The head and the features that both ways of choosing the top-k are measured
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

/// Seconds of choosing the top-k on the device, and of copying whole logits
/// down and choosing on one core; head included in both.
pub fn measure(batch: &Batch) -> anyhow::Result<Value> {
    let rows: Vec<i64> = (0..batch.features.size().first().copied().unwrap_or(0)).collect();
    let wish = Wish {
        classes: batch.classes,
        temperature: 1.0,
    };
    let wanted = vec![Wanted::Best(wish); rows.len()];
    let asked = Asked {
        head: batch.head,
        rows: &rows,
        wanted: &wanted,
    };
    let ask = |choosing| -> anyhow::Result<Vec<Scores>> {
        Ok(answers(batch.features, &[asked], choosing)?
            .pop()
            .unwrap_or_default())
    };
    let read = |scores: Vec<Scores>| -> Vec<Vec<Scored>> {
        scores.iter().map(|scores| scores.best(wish)).collect()
    };
    let (whole, chosen) = (ask(Choosing::Host)?, ask(Choosing::Operators)?);
    // What falls back to whole logits is no proof.
    let fell_back = chosen
        .iter()
        .any(|scores| matches!(scores, Scores::Logits(_)));
    let (whole, chosen) = (read(whole), read(chosen));
    let differ = whole.iter().zip(&chosen).filter(|(a, b)| !alike(a, b));
    let differ = differ.count();

    let device: Device = batch.head.device();
    let (rounds, round) = batch.rounds;
    let time = |choosing, read: &dyn Fn(Vec<Scores>)| {
        seconds(device, rounds, round, || {
            read(ask(choosing)?);
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
        "seconds_chosen_there": time(Choosing::Operators, &all)?,
        "seconds_whole_logits": time(Choosing::Host, &drop)?,
        "seconds_whole_logits_and_chosen_by_one_core": time(Choosing::Host, &all)?,
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
