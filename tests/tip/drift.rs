//! How traffic differs from examples.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::drift::{bin, nearest_deciles, stability_index};

use super::random::{Shape, fresh_seed, material, unit};

#[test]
fn deciles_are_of_each_example_and_its_nearest_other_one() {
    fresh_seed();
    let (m, _) = material(&Shape {
        shots: vec![15; 4],
        width: 12,
        text: false,
        views: None,
        validation: 0,
    });
    let edges = nearest_deciles(&m.keys).expect("it").expect("deciles");
    let rows: Vec<Vec<f64>> = (0..60)
        .map(|i| Vec::try_from(m.keys.get(i).to_kind(Kind::Double)).expect("a row"))
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut nearest: Vec<f64> = (0..60)
        .map(|i| {
            let others = (0..60).filter(|j| *j != i).map(|j| dot(&rows[i], &rows[j]));
            others.fold(-1.0, f64::max)
        })
        .collect();
    nearest.sort_by(f64::total_cmp);
    for (at, edge) in edges.iter().enumerate() {
        assert!((edge - nearest[(at + 1) * 6]).abs() < 1e-5);
    }
    // Copies are no neighbours, and nine examples are too few.
    let twice = Tensor::cat(&[&m.keys, &m.keys], 0);
    let again = nearest_deciles(&twice).expect("it").expect("deciles");
    assert!(edges.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(
        nearest_deciles(&m.keys.narrow(0, 0, 9))
            .expect("it")
            .is_none()
    );
}

#[test]
fn the_index_is_small_for_the_same_and_large_for_another_population() {
    let (mut same, mut other) = (0.0, 0.0);
    for _ in 0..6 {
        let seed = fresh_seed();
        let mut rng = StdRng::seed_from_u64(seed as u64);
        let (pool, _) = material(&Shape {
            shots: vec![120; 4],
            width: 12,
            text: false,
            views: None,
            validation: 0,
        });
        let keys = pool.keys.narrow(0, 0, 160);
        let edges = nearest_deciles(&keys).expect("it").expect("deciles");
        let bins = |rows: &Tensor| {
            let nearest = rows.matmul(&keys.tr()).amax([1i64].as_slice(), false);
            let mut counts = [0_u64; 10];
            for cosine in Vec::<f64>::try_from(nearest.to_kind(Kind::Double)).expect("it") {
                counts[bin(&edges, cosine)] += 1;
            }
            counts
        };
        let shares = [0.1; 10];
        same += stability_index(&bins(&pool.keys.narrow(0, 160, 320)), &shares) / 6.0;
        let strange = unit(&Tensor::randn([320, 12], (Kind::Float, Device::Cpu)));
        other += stability_index(&bins(&strange), &shares) / 6.0;
        // Chance alone is taken away.
        let mut counts = [0_u64; 10];
        for _ in 0..400 {
            counts[rng.random_range(0..10)] += 1;
        }
        assert!(stability_index(&counts, &shares) < 0.05, "{counts:?}");
    }
    assert!(same < 0.1, "{same}");
    assert!(other > 0.25, "{other}");
    assert_eq!(stability_index(&[0; 10], &[0.1; 10]), 0.0);
    // By hand: half and half where a fifth and four fifths were expected.
    let by_hand = 0.3 * (0.5_f64 / 0.2).ln() + (-0.3) * (0.5_f64 / 0.8).ln();
    let found = stability_index(&[500_000, 500_000], &[0.2, 0.8]);
    assert!((found - by_hand).abs() < 1e-4, "{found} {by_hand}");
}
