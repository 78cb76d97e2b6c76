//! The best classes, chosen by torch's operators where the logits are, and
//! from whole logits: the same, of equals too.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    answer::{HeadQuery, Scores, ScoresRequest, TopKBackend, answers},
    best::{self, Scored, TopK, choose},
    head::{Backend, Head, HeadTensors, Values},
};
use tip_spec::{KeyDtype, Method};

use crate::exchange::{seed, spec, unit};

/// Every class and its softmax, best first: of equals the lower class.
fn reference(logits: &[f32], temperature: f64) -> Vec<Scored> {
    let scaled: Vec<f64> = logits.iter().map(|&x| f64::from(x) / temperature).collect();
    let most = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.iter().map(|x| (x - most).exp()).sum();
    let mut all: Vec<Scored> = (logits.iter().zip(&scaled).enumerate())
        .map(|(class, (&logit, x))| Scored {
            class,
            logit,
            probability: (x - most).exp() / sum,
        })
        .collect();
    // Stable: equals stay in the order of their classes.
    all.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    all
}

fn assert_same(got: &[Scored], want: &[Scored]) {
    let plain = |all: &[Scored]| -> Vec<(usize, u32)> {
        (all.iter())
            .map(|it| (it.class, it.logit.to_bits()))
            .collect()
    };
    assert_eq!(plain(got), plain(want), "{got:?}\n{want:?}");
    for (got, want) in got.iter().zip(want) {
        let apart = (got.probability - want.probability).abs();
        assert!(
            apart <= 1e-6 * want.probability + 1e-300,
            "{got:?} {want:?}"
        );
    }
}

#[test]
fn chosen_by_operators_they_are_those_of_a_plain_sort() {
    let mut rng = StdRng::seed_from_u64(seed());
    for (rows, columns) in [(1, 1), (3, 1), (7, 2), (20, 37), (33, 1000), (2, 5000)] {
        for aligned in [true, false] {
            let widths: Vec<usize> = (0..rows)
                .map(|_| match aligned {
                    true => columns,
                    false => rng.random_range(1..=columns),
                })
                .collect();
            // None, one, all, and more than there are.
            let requests: Vec<TopK> = (0..rows)
                .map(|_| TopK {
                    classes: match rng.random_range(0..6) {
                        0 => 0,
                        1 => 1,
                        2 => columns,
                        3 => columns + 3,
                        _ => rng.random_range(1..=columns.min(9)),
                    },
                    temperature: rng.random_range(0.05..20.0),
                })
                .collect();
            // Few different ones, so that most are equal to others, zeros of
            // both signs among them.
            let few = rng.random_range(1..=columns as i32);
            let logits: Vec<f32> = (0..rows * columns)
                .map(|_| rng.random_range(-few..=few) as f32 * rng.random_range(0..3) as f32)
                .collect();
            let matrix = Tensor::from_slice(&logits).view([rows as i64, columns as i64]);
            let chosen = choose(&matrix, &widths, &requests).expect("chosen");
            assert_eq!(chosen.len(), rows);
            for (row, (chosen, top_k)) in chosen.iter().zip(&requests).enumerate() {
                let own = &logits[row * columns..][..widths[row]];
                let mut want = reference(own, top_k.temperature);
                want.truncate(top_k.classes);
                assert_same(chosen, &want);
                assert_same(&best::best(own, *top_k), &want);
            }
        }
    }
    // Rows that ask for no class, and no rows.
    let nothing = TopK {
        classes: 0,
        temperature: 1.0,
    };
    let row = Tensor::from_slice(&[1f32, 2.0]).view([1, 2]);
    assert_eq!(choose(&row, &[2], &[nothing]).expect("none"), [vec![]]);
    let none = Tensor::zeros([0, 4], (Kind::Float, Device::Cpu));
    assert!(choose(&none, &[], &[]).expect("none").is_empty());
}

#[test]
fn a_device_that_chooses_as_the_host_does_is_found_to() {
    assert_eq!(best::verify(Device::Cpu), Ok(()));
}

fn head(rng: &mut StdRng, classes: usize, width: i64, backend: Backend) -> Head {
    let keys = rng.random_range(1..60);
    let labels: Vec<i64> = (0..keys)
        .map(|_| rng.random_range(0..classes as i64))
        .collect();
    let tensors = HeadTensors {
        classes,
        linear: Some(unit(classes as i64, width) * 10.0),
        bias: None,
        cache: Some((
            unit(keys, width),
            Values::OneHot {
                labels: Tensor::from_slice(&labels),
                weight: Tensor::ones([classes as i64], (Kind::Float, Device::Cpu)),
            },
        )),
        standardised: None,
    };
    let spec = spec(Method::TipAdapter, 1.0, 5.5, KeyDtype::F32);
    Head::on(&spec, &tensors, Device::Cpu, backend).expect("a head")
}

/// Pictures of one batch, and the heads that some of them ask.
struct MixedBatch {
    features: Tensor,
    heads: Vec<Head>,
    /// For each head, which rows ask it, and for what.
    rows: Vec<Vec<i64>>,
    wanted: Vec<Vec<ScoresRequest>>,
}

impl MixedBatch {
    fn random(rng: &mut StdRng, count: usize, backend: Backend) -> Self {
        let (batch, width) = (50, 16);
        let features = unit(batch, width);
        let heads: Vec<Head> = (0..count)
            .map(|_| {
                let classes = rng.random_range(1..40);
                head(rng, classes, width, backend)
            })
            .collect();
        let rows: Vec<Vec<i64>> = (heads.iter())
            .map(|_| (0..batch).filter(|_| rng.random_ratio(1, 5)).collect())
            .collect();
        let mut top_k = || {
            ScoresRequest::Best(TopK {
                classes: rng.random_range(1..50),
                temperature: rng.random_range(0.5..2.0),
            })
        };
        let wanted = (rows.iter())
            .map(|rows| rows.iter().map(|_| top_k()).collect())
            .collect();
        Self {
            features,
            heads,
            rows,
            wanted,
        }
    }

    fn ask(&self, backend: TopKBackend) -> Vec<Vec<Scores>> {
        let asked: Vec<HeadQuery> = (self.heads.iter().zip(&self.rows).zip(&self.wanted))
            .map(|((head, rows), wanted)| HeadQuery { head, rows, wanted })
            .collect();
        let scores = answers(&self.features, &asked, backend).expect("answers");
        assert_eq!(scores.len(), asked.len());
        scores
    }
}

/// Heads in torch's operators are computed together, as on a card: small ones
/// side by side, with their own classes, temperatures and numbers of best.
#[test]
fn heads_answer_alike_wherever_the_best_are_chosen() {
    let seed = seed();
    tch::manual_seed(seed as i64);
    let mut rng = StdRng::seed_from_u64(seed);
    for (count, backend) in [
        (1, Backend::Operators),
        (90, Backend::Operators),
        (1, Backend::Automatic),
        (90, Backend::Automatic),
    ] {
        let mut batch = MixedBatch::random(&mut rng, count, backend);
        let host = batch.ask(TopKBackend::Host);
        let there = batch.ask(TopKBackend::Operators);
        for (group, head) in batch.heads.iter().enumerate() {
            let both = host[group].iter().zip(&there[group]);
            assert_eq!(host[group].len(), batch.rows[group].len());
            assert_eq!(there[group].len(), batch.rows[group].len());
            for ((host, there), wanted) in both.zip(&batch.wanted[group]) {
                let ScoresRequest::Best(top_k) = *wanted else {
                    unreachable!("all want the best");
                };
                assert_eq!(host.logits().len(), head.classes());
                assert!(matches!(there, Scores::Best(_)), "{there:?}");
                assert_eq!(there.best(top_k).len(), top_k.classes.min(head.classes()));
                assert_same(&there.best(top_k), &host.best(top_k));
                // Fewer than were wanted are the first of them.
                let fewer = TopK {
                    classes: 1,
                    ..top_k
                };
                assert_same(&there.best(fewer), &host.best(fewer));
            }
        }
        // On the CPU whole logits are as near as the best.
        for scores in batch.ask(TopKBackend::Automatic).iter().flatten() {
            assert!(matches!(scores, Scores::Logits(_)), "{scores:?}");
        }
        // A row that asks for logits gets them, and so do the rows that are
        // computed with it.
        let Some(group) = batch.rows.iter().position(|rows| !rows.is_empty()) else {
            continue;
        };
        batch.wanted[group][0] = ScoresRequest::Logits;
        let scores = batch.ask(TopKBackend::Operators);
        assert_eq!(
            scores[group][0].logits(),
            host[group][0].logits(),
            "the logits of the one that wants them"
        );
        for ((scores, host), wanted) in scores.iter().zip(&host).zip(&batch.wanted) {
            for ((scores, host), wanted) in scores.iter().zip(host).zip(wanted) {
                if let ScoresRequest::Best(top_k) = *wanted {
                    assert_same(&scores.best(top_k), &host.best(top_k));
                }
            }
        }
    }
}
