//! Which pictures to label first.

use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    error::TipError,
    material::Material,
    suggest::{Pool, Strategy, SuggestOptions, Suggestions, suggest},
};

use super::{
    random::{fresh_seed, unit},
    reference::ask,
};

const WIDTH: i64 = 32;

/// Of a group's pictures about its centre.
const NOISE: f64 = 0.004;

/// Tight groups of pictures far apart, in random order, and the group of each.
fn pool(sizes: &[i64]) -> (Tensor, Vec<i64>) {
    let options = (Kind::Float, Device::Cpu);
    // Orthogonal centres, which k-means++ starts in: a start in the same group twice
    // is a draw of a thousandth of the distance, several times.
    let centres = Tensor::linalg_qr(&Tensor::randn([WIDTH, WIDTH], options), "reduced").0;
    let groups: Vec<i64> = (sizes.iter().enumerate())
        .flat_map(|(group, &size)| std::iter::repeat_n(group as i64, size as usize))
        .collect();
    let order = Tensor::randperm(groups.len() as i64, (Kind::Int64, Device::Cpu));
    let groups = Tensor::from_slice(&groups).index_select(0, &order);
    let centre = centres.index_select(0, &groups);
    let noise = Tensor::randn(centre.size(), options) * NOISE;
    let groups = Vec::<i64>::try_from(groups).expect("groups");
    (unit(&(centre + noise)), groups)
}

fn options(count: usize, strategy: Strategy) -> SuggestOptions {
    SuggestOptions {
        count,
        strategy,
        duplicate_similarity: Some(1.0),
        seed: 5,
    }
}

fn suggested(pool: &Pool<'_>, options: &SuggestOptions) -> Suggestions {
    suggest(pool, options, &|| true).expect("suggestions")
}

fn features(features: &Tensor) -> Pool<'_> {
    Pool {
        features,
        labelled: None,
        margins: None,
    }
}

#[test]
fn the_order_is_typiclusts() {
    fresh_seed();
    // As many clusters as pictures asked for.
    let sizes = [40, 25, 3, 31, 12];
    let (rows, groups) = pool(&sizes);
    let found = suggested(&features(&rows), &options(5, Strategy::Typical));
    let material = Material {
        keys: rows.shallow_clone(),
        labels: Tensor::from_slice(&groups),
        classes: 5,
        views: None,
        text: None,
        validation: None,
        logit_scale: 100.0,
        statistics: None,
        unlabelled: None,
    };
    let more = json!({"what": "typical", "clusters": groups, "labelled": vec![0; 5], "count": 5});
    let theirs = ask(&material, None, &more);
    let typicality = |row: usize| theirs["typicality"][row].as_f64().expect("a number");
    let order = theirs["order"].as_array().expect("an order");
    assert_eq!(found.suggested.len(), order.len());
    for (ours, best) in found.suggested.iter().zip(order) {
        // Of a group's two most typical pictures, nearly equal ones, either will do:
        // distances are of f32 cosines.
        let best = best.as_u64().expect("a row") as usize;
        assert_eq!(groups[ours.row], groups[best]);
        assert!((typicality(ours.row) - typicality(best)).abs() < 1e-3);
        assert!((ours.score - typicality(best)).abs() < 1e-3);
    }
    let found_sizes: Vec<usize> = found.suggested.iter().map(|it| it.cluster_size).collect();
    assert_eq!(found_sizes, [40, 31, 25, 12, 3]);
}

#[test]
fn groups_that_hold_a_label_come_last() {
    fresh_seed();
    let (rows, groups) = pool(&[30, 20, 10]);
    // One labelled example in each of the two larger groups.
    let of = |group: i64| groups.iter().position(|&it| it == group).expect("it") as i64;
    let noise = Tensor::randn([2, WIDTH], (Kind::Float, Device::Cpu)) * NOISE;
    let labelled = unit(&(rows.index_select(0, &Tensor::from_slice(&[of(0), of(1)])) + noise));
    let pool = Pool {
        labelled: Some(&labelled),
        ..features(&rows)
    };
    let found = suggested(&pool, &options(1, Strategy::Typical));
    let first = found.suggested.first().expect("a suggestion");
    assert_eq!(groups.get(first.row), Some(&2));
    assert_eq!(found.distinct, 60);
}

#[test]
fn near_duplicates_count_once_and_those_of_labelled_examples_not_at_all() {
    fresh_seed();
    let near =
        |row: &Tensor| unit(&(row + Tensor::randn([1, WIDTH], (Kind::Float, Device::Cpu)) * 1e-4));
    let rows = unit(&Tensor::randn([40, WIDTH], (Kind::Float, Device::Cpu)));
    let row = |at: i64| rows.narrow(0, at, 1);
    let all = Tensor::cat(
        &[
            rows.shallow_clone(),
            near(&row(0)),
            near(&row(0)),
            row(1),
            near(&row(2)),
        ],
        0,
    );
    let labelled = near(&row(2));
    let pool = Pool {
        labelled: Some(&labelled),
        ..features(&all)
    };
    let by_pool = SuggestOptions {
        duplicate_similarity: None,
        ..options(100, Strategy::Typical)
    };
    let found = suggested(&pool, &by_pool);
    assert_eq!(found.distinct, 39);
    assert_eq!(found.suggested.len(), 39, "each distinct picture, once");
    let of = |row: usize| {
        let found = found.suggested.iter().find(|it| it.row == row);
        found.map(|it| it.duplicates.clone())
    };
    assert_eq!(of(0), Some(vec![40, 41]));
    assert_eq!(of(1), Some(vec![42]));
    let known: Vec<_> = found.labelled.iter().map(|it| (it.row, it.key)).collect();
    assert_eq!(known, [(2, 0), (43, 0)]);
}

#[test]
fn the_least_decided_come_first_one_of_each_group_at_a_time() {
    fresh_seed();
    let (rows, groups) = pool(&[20, 20]);
    // Group 0 is less decided throughout.
    let margins: Vec<f64> = (groups.iter().enumerate())
        .map(|(row, &group)| 0.2 * group as f64 + 0.001 * row as f64)
        .collect();
    let pool = Pool {
        margins: Some(&margins),
        ..features(&rows)
    };
    let found = suggested(&pool, &options(2, Strategy::Margin));
    let of_group = |group: i64| {
        let rows = (0..groups.len()).filter(|&row| groups[row] == group);
        rows.min_by(|&a, &b| margins[a].total_cmp(&margins[b]))
            .expect("a row")
    };
    let order: Vec<usize> = found.suggested.iter().map(|it| it.row).collect();
    assert_eq!(order, [of_group(0), of_group(1)]);
    let scores: Vec<f64> = found.suggested.iter().map(|it| it.score).collect();
    assert_eq!(
        scores,
        order
            .iter()
            .map(|&row| 1.0 - margins[row])
            .collect::<Vec<_>>()
    );
}

#[test]
fn the_same_seed_gives_the_same_order() {
    fresh_seed();
    let rows = unit(&Tensor::randn([300, WIDTH], (Kind::Float, Device::Cpu)));
    let order = |seed: u64| -> Vec<usize> {
        let options = SuggestOptions {
            seed,
            ..options(30, Strategy::Typical)
        };
        let found = suggested(&features(&rows), &options);
        found.suggested.iter().map(|it| it.row).collect()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let rows = unit(&Tensor::randn([4, WIDTH], (Kind::Float, Device::Cpu)));
    let other = unit(&Tensor::randn([4, WIDTH + 1], (Kind::Float, Device::Cpu)));
    let wide = Pool {
        labelled: Some(&other),
        ..features(&rows)
    };
    let typical = options(2, Strategy::Typical);
    assert!(matches!(
        suggest(&wide, &typical, &|| true),
        Err(TipError::Shape { .. })
    ));
    let without = suggest(&features(&rows), &options(2, Strategy::Margin), &|| true);
    assert!(matches!(without, Err(TipError::Shape { .. })));
    let stopped = suggest(
        &features(&rows),
        &SuggestOptions {
            duplicate_similarity: None,
            ..typical
        },
        &|| false,
    );
    assert!(matches!(stopped, Err(TipError::Cancelled)));
    let none = rows.narrow(0, 0, 0);
    assert!(suggested(&features(&none), &typical).suggested.is_empty());
}
