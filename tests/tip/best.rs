//! The best classes, chosen by torch's operators where the logits are, and
//! from whole logits: the same, of equals too.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    answer::{Asked, Choosing, Scores, Wanted, answers},
    best::{self, Scored, Wish, choose},
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
            let wishes: Vec<Wish> = (0..rows)
                .map(|_| Wish {
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
            let chosen = choose(&matrix, &widths, &wishes).expect("chosen");
            assert_eq!(chosen.len(), rows);
            for (row, (chosen, wish)) in chosen.iter().zip(&wishes).enumerate() {
                let own = &logits[row * columns..][..widths[row]];
                let mut want = reference(own, wish.temperature);
                want.truncate(wish.classes);
                assert_same(chosen, &want);
                assert_same(&best::best(own, *wish), &want);
            }
        }
    }
    // Rows that ask for no class, and no rows.
    let nothing = Wish {
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
        let (batch, width) = (50, 16);
        let features = unit(batch, width);
        let heads: Vec<Head> = (0..count)
            .map(|_| {
                let classes = rng.random_range(1..40);
                head(&mut rng, classes, width, backend)
            })
            .collect();
        let wish = |rng: &mut StdRng| {
            Wanted::Best(Wish {
                classes: rng.random_range(1..50),
                temperature: rng.random_range(0.5..2.0),
            })
        };
        let rows: Vec<Vec<i64>> = (heads.iter())
            .map(|_| (0..batch).filter(|_| rng.random_ratio(1, 5)).collect())
            .collect();
        let mut wanted: Vec<Vec<Wanted>> = (rows.iter())
            .map(|rows| rows.iter().map(|_| wish(&mut rng)).collect())
            .collect();
        let ask = |wanted: &[Vec<Wanted>], choosing| {
            let asked: Vec<Asked> = (heads.iter().zip(&rows).zip(wanted))
                .map(|((head, rows), wanted)| Asked { head, rows, wanted })
                .collect();
            let scores = answers(&features, &asked, choosing).expect("answers");
            assert_eq!(scores.len(), asked.len());
            scores
        };
        let host = ask(&wanted, Choosing::Host);
        let there = ask(&wanted, Choosing::Operators);
        for (group, head) in heads.iter().enumerate() {
            let both = host[group].iter().zip(&there[group]);
            assert_eq!(host[group].len(), rows[group].len());
            assert_eq!(there[group].len(), rows[group].len());
            for ((host, there), wanted) in both.zip(&wanted[group]) {
                let Wanted::Best(wish) = *wanted else {
                    unreachable!("all want the best");
                };
                assert_eq!(host.logits().len(), head.classes());
                assert!(matches!(there, Scores::Best(_)), "{there:?}");
                assert_eq!(there.best(wish).len(), wish.classes.min(head.classes()));
                assert_same(&there.best(wish), &host.best(wish));
                // Fewer than were wanted are the first of them.
                let fewer = Wish { classes: 1, ..wish };
                assert_same(&there.best(fewer), &host.best(fewer));
            }
        }
        // On the CPU whole logits are as near as the best.
        for scores in ask(&wanted, Choosing::Automatic).iter().flatten() {
            assert!(matches!(scores, Scores::Logits(_)), "{scores:?}");
        }
        // A row that asks for logits gets them, and so do the rows that are
        // computed with it.
        let Some(group) = rows.iter().position(|rows| !rows.is_empty()) else {
            continue;
        };
        wanted[group][0] = Wanted::Logits;
        let scores = ask(&wanted, Choosing::Operators);
        assert_eq!(
            scores[group][0].logits(),
            host[group][0].logits(),
            "the logits of the one that wants them"
        );
        for ((scores, host), wanted) in scores.iter().zip(&host).zip(&wanted) {
            for ((scores, host), wanted) in scores.iter().zip(host).zip(wanted) {
                if let Wanted::Best(wish) = *wanted {
                    assert_same(&scores.best(wish), &host.best(wish));
                }
            }
        }
    }
}
