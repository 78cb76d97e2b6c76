//! How traffic differs from examples.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    drift::{Nearest, Rounds, bin, nearest_deciles, stability_index},
    material::Material,
};

use super::random::{Shape, fresh_seed, material, unit};

const TENTHS: [f64; 10] = [0.1; 10];

fn drawn(shots: Vec<i64>, width: i64) -> Material {
    let shape = Shape {
        shots,
        width,
        text: false,
        views: None,
        validation: 0,
    };
    material(&shape).0
}

fn labels(material: &Material) -> Vec<i64> {
    Vec::try_from(&material.labels).expect("labels")
}

fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    (0..tensor.size()[0])
        .map(|at| Vec::try_from(tensor.get(at).to_kind(Kind::Double)).expect("a row"))
        .collect()
}

fn deciles(keys: &Tensor, classes: &[i64]) -> Option<Nearest> {
    nearest_deciles(keys, &Rounds::of(classes)).expect("it")
}

/// The cosine of each example of a class with several and its nearest one of
/// another round, and which that is; plainly, sorted.
fn plainly(keys: &Tensor, classes: &[i64]) -> Vec<(f64, [usize; 2])> {
    let keys = rows(keys);
    let rank = |at: usize| (0..at).filter(|j| classes[*j] == classes[at]).count();
    let shots = |at: usize| {
        classes
            .iter()
            .filter(|class| **class == classes[at])
            .count()
    };
    let mut found = Vec::new();
    for i in (0..keys.len()).filter(|i| shots(*i) > 1) {
        let others = (0..keys.len()).filter(|j| shots(*j) == 1 || rank(i) % shots(*j) != rank(*j));
        let cosines = others.map(|j| {
            let cosine: f64 = keys[i].iter().zip(&keys[j]).map(|(a, b)| a * b).sum();
            (cosine, [i.min(j), i.max(j)], j)
        });
        let best = cosines.max_by(|a, b| a.0.total_cmp(&b.0)).expect("one");
        if shots(best.2) > 1 {
            found.push((best.0, best.1));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found
}

#[test]
fn deciles_are_of_each_example_and_its_nearest_one_of_other_rounds() {
    fresh_seed();
    let m = drawn(vec![15, 9, 2, 14, 1], 12);
    let classes = labels(&m);
    let found = deciles(&m.keys, &classes).expect("deciles");
    let nearest = plainly(&m.keys, &classes);
    let count = nearest.len();
    for (at, decile) in found.deciles.iter().enumerate() {
        // Between order statistics, so that a tenth of new values lies below.
        let place = 0.1 * (at + 1) as f64 * (count + 1) as f64 - 1.0;
        let below = place.floor();
        let (low, high) = (nearest[below as usize].0, nearest[below as usize + 1].0);
        let expected = low + (place - below) * (high - low);
        assert!((decile - expected).abs() < 1e-5, "{decile} {expected}");
    }
    // Two that are each other's nearest count as one.
    let twice = (0..count).filter(|i| (0..count).any(|j| j != *i && nearest[j].1 == nearest[*i].1));
    let pairs = twice.count() as f64 / 2.0;
    let expected = (count as f64).powi(2) / (count as f64 + 2.0 * pairs);
    assert!((found.sample - expected).abs() < 1e-9);
    // Copies are no neighbours; nine examples, or one of each class, are too few.
    let copies = Tensor::cat(&[&m.keys, &m.keys], 0);
    let alone: Vec<i64> = (0..82).collect();
    assert!(deciles(&copies, &alone).is_none());
    let pairs: Vec<i64> = (0..82).map(|at| at % 41).collect();
    let again = deciles(&copies, &pairs).expect("deciles");
    assert!(again.deciles.iter().all(|cosine| *cosine < 1.0 - 1e-5));
    assert!(deciles(&m.keys.narrow(0, 0, 9), &[0; 9]).is_none());
}

/// Of traffic, the nearest examples' cosines, each compared as the server does.
fn compared(keys: &Tensor, classes: &[i64], queries: &Tensor) -> Vec<f64> {
    let rounds = Rounds::of(classes);
    let most = keys.size()[0].min(16);
    let (cosines, found) = queries.matmul(&keys.tr()).topk(most, 1, true, true);
    (0..queries.size()[0])
        .filter_map(|row| {
            let cosines: Vec<f32> = Vec::try_from(cosines.get(row)).expect("it");
            let found: Vec<i64> = Vec::try_from(found.get(row)).expect("it");
            let found: Vec<(usize, f32)> =
                found.iter().map(|at| *at as usize).zip(cosines).collect();
            rounds.nearest(&found, row as u64)
        })
        .collect()
}

fn index(nearest: &Nearest, cosines: &[f64]) -> f64 {
    let mut counts = [0_u64; 10];
    for cosine in cosines {
        counts[bin(&nearest.deciles, *cosine)] += 1;
    }
    stability_index(&counts, &TENTHS, nearest.sample)
}

/// Draws in which traffic of the very same population is over the alarm, and those in
/// which another population's is not.
fn alarms(classes: i64, shots: i64, draws: u32) -> (u32, u32) {
    let (mut wrong, mut missed) = (0, 0);
    for _ in 0..draws {
        let pool = drawn(vec![shots + 400 / classes; classes as usize], 64);
        let all = labels(&pool);
        let mut taken = vec![0; classes as usize];
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for (at, class) in all.iter().enumerate() {
            taken[*class as usize] += 1;
            let list = if taken[*class as usize] <= shots {
                &mut keys
            } else {
                &mut others
            };
            list.push(at as i64);
        }
        let of = |rows: &[i64]| pool.keys.index_select(0, &Tensor::from_slice(rows));
        let own: Vec<i64> = keys.iter().map(|at| all[*at as usize]).collect();
        let (keys, traffic) = (of(&keys), of(&others));
        let nearest = deciles(&keys, &own).expect("deciles");
        let strange = unit(&Tensor::randn([400, 64], (Kind::Float, Device::Cpu)));
        wrong += u32::from(index(&nearest, &compared(&keys, &own, &traffic)) > 0.25);
        missed += u32::from(index(&nearest, &compared(&keys, &own, &strange)) <= 0.25);
    }
    (wrong, missed)
}

#[test]
fn the_same_population_is_no_drift_however_few_examples() {
    fresh_seed();
    // Classes, shots and draws: 16 examples first.
    for (classes, shots, draws) in [
        (4, 4, 100),
        (8, 2, 100),
        (5, 3, 50),
        (10, 10, 50),
        (4, 60, 20),
    ] {
        let (wrong, missed) = alarms(classes, shots, draws);
        println!("{classes} classes of {shots}: {wrong} false alarms, {missed} missed of {draws}");
        // One in a hundred is over 0 by chance; six standard deviations more.
        let bound = 0.01 * f64::from(draws) + 6.0 * (0.01 * f64::from(draws)).sqrt();
        assert!(f64::from(wrong) < bound, "{wrong} of {draws}");
        assert!(missed <= draws / 10, "{missed} of {draws}");
    }
}

#[test]
fn chance_alone_is_taken_away() {
    let mut rng = StdRng::seed_from_u64(fresh_seed() as u64);
    let mut over = 0;
    for _ in 0..300 {
        let mut counts = [0_u64; 10];
        for _ in 0..400 {
            counts[rng.random_range(0..10)] += 1;
        }
        over += u32::from(stability_index(&counts, &TENTHS, f64::INFINITY) > 0.0);
    }
    // 3 are expected, with a standard deviation of 1.7.
    assert!(over < 14, "{over}");
    assert_eq!(stability_index(&[0; 10], &TENTHS, f64::INFINITY), 0.0);
    // By hand: half and half where a fifth and four fifths were expected, less the
    // 99 % quantile of chi-square with one degree of freedom, 6.635.
    let by_hand = 0.3 * (0.5_f64 / 0.2).ln() + (-0.3) * (0.5_f64 / 0.8).ln();
    let shares = [0.2, 0.8];
    let exact = stability_index(&[500_000, 500_000], &shares, f64::INFINITY);
    assert!((exact - by_hand).abs() < 1e-4, "{exact} {by_hand}");
    let known = stability_index(&[500_000, 500_000], &shares, 99.0);
    assert!((known - (by_hand - 0.06635)).abs() < 1e-3, "{known}");
}

#[test]
fn a_round_leaves_out_one_shot_of_each_class_with_several() {
    let rounds = Rounds::of(&[0, 1, 0, 0, 1, 2]);
    let found = [(0, 0.9), (4, 0.8), (1, 0.7), (2, 0.6), (5, 0.5)];
    let cosines: Vec<_> = (0..6).map(|round| rounds.nearest(&found, round)).collect();
    let near = |cosine: f32| Some(f64::from(cosine));
    assert_eq!(cosines[0], near(0.8), "without examples 0 and 1");
    assert_eq!(cosines[1], near(0.9), "without examples 2 and 4");
    assert_eq!(cosines[3], near(0.7), "without examples 0 and 4");
    assert_eq!(rounds.nearest(&found[4..], 0), None, "a class's only shot");
    assert_eq!(rounds.nearest(&found[..1], 0), None);
    assert_eq!(rounds.nearest(&[], 0), None);
}
