//! What heads know of themselves, over draws: pictures of unknown classes,
//! prediction sets, wrong labels, and which pictures to label first.

use anyhow::Result;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::{Kind, Tensor};
use tip_adapter::{
    analysis::{AnalysisOptions, analyse},
    formula::plain_logits,
    make::{HeadRequest, Made, make},
    material::Material,
    suggest::{Pool, Strategy, SuggestOptions, suggest},
    unknown::UnknownScores,
};

use super::{
    Row,
    draws::draw,
    features::{self, Task},
    sets::sets,
};

const DRAWS: u64 = 3;
const NAMES: [&str; 2] = ["Caltech101", "DTD"];

/// The tables, and what they must show.
pub fn rows() -> Result<Vec<Row>> {
    if features::folder().is_none() {
        println!("knowing: skipped, ../shared/data/clip-vitb32 is not there");
        return Ok(Vec::new());
    }
    let sets = sets()?;
    let sets = NAMES.map(|name| sets.iter().find(|set| set.name == name));
    let sets: Vec<_> = sets.into_iter().flatten().collect();
    let mut rows = Vec::new();
    println!("\na third of the classes unknown, mean of {DRAWS} draws, %");
    for &set in &sets {
        let name = &set.name;
        for shots in [2, 4, 16] {
            let mut sum = [0.0; 6];
            for seed in 0..DRAWS {
                let found = unknown(&draw(set, shots, seed)?, seed)?;
                for (sum, value) in sum.iter_mut().zip(found) {
                    *sum += 100.0 * value / DRAWS as f64;
                }
            }
            let [auroc, fpr, accepted, rejected, covered, size] = sum;
            println!(
                "{name:<12}{shots:>4}  AUROC {auroc:.1}  FPR95 {fpr:.1}  accepted {accepted:.1}  \
                 rejected {rejected:.1}  sets for 90 % hold {covered:.1}, of {:.2} classes",
                size / 100.0
            );
            for (what, value, goal) in [
                ("accepted at 95 %", accepted, 92.0),
                ("held at 90 %", covered, 86.0),
            ] {
                rows.push(Row {
                    row: format!("{name}, {shots} shots, {what}"),
                    value,
                    goal: format!("≥ {goal}"),
                    ok: value >= goal,
                });
            }
        }
    }
    println!("\none label in twenty wrong, mean of {DRAWS} draws, %");
    for &set in &sets {
        let name = &set.name;
        for shots in [4, 8, 16] {
            let (mut found, mut right, mut listed) = (0.0, 0.0, 0.0);
            for seed in 0..DRAWS {
                let (recall, precision, count) = wrong_labels(&draw(set, shots, seed)?, seed)?;
                found += 100.0 * recall / DRAWS as f64;
                right += 100.0 * precision / DRAWS as f64;
                listed += count as f64 / DRAWS as f64;
            }
            println!(
                "{name:<12}{shots:>4}  found {found:.1}  of {listed:.0} suspects wrong {right:.1}"
            );
        }
    }
    println!("\npictures labelled by chance or as suggested, accuracy, mean of {DRAWS} draws, %");
    for &set in &sets {
        let name = &set.name;
        for labels in [1, 2, 4] {
            let (mut chance, mut typical) = (0.0, 0.0);
            for seed in 0..DRAWS {
                let (a, b) = labelled(set.whole(), labels, seed)?;
                chance += 100.0 * a / DRAWS as f64;
                typical += 100.0 * b / DRAWS as f64;
            }
            println!(
                "{name:<12}{labels:>4} a class on average  chance {chance:.1}  suggested {typical:.1}"
            );
        }
    }
    Ok(rows)
}

fn auto(material: &Material) -> Result<Made> {
    Ok(make(material, &HeadRequest::default(), &|_| true)?)
}

fn share(mask: &Tensor) -> f64 {
    mask.to_kind(Kind::Double)
        .mean(Kind::Double)
        .double_value(&[])
}

/// AUROC, FPR at 95 %, accepted and rejected at the version's threshold, held by
/// sets for 90 %, their mean size.
fn unknown(task: &Task, seed: u64) -> Result<[f64; 6]> {
    let mut order: Vec<i64> = (0..task.classes as i64).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    let known = order.len() * 2 / 3;
    let mut place = vec![-1i64; task.classes];
    for (at, &class) in order.iter().take(known).enumerate() {
        place[class as usize] = at as i64;
    }
    let place = Tensor::from_slice(&place);
    let (keys, labels) = (&task.keys.0, place.index_select(0, &task.keys.1));
    let rows = labels.ge(0).nonzero().squeeze_dim(1);
    let material = Material {
        keys: keys.index_select(0, &rows),
        labels: labels.index_select(0, &rows),
        classes: known,
        text: None,
        ..task.material(false)
    };
    let made = auto(&material)?;
    let truth = place.index_select(0, &task.test.1);
    let logits = plain_logits(&made.spec, &made.tensors, &task.test.0)? / made.spec.temperature;
    let scores = Vec::<f64>::try_from(logits.logsumexp([1i64].as_slice(), false))?;
    let best = Vec::<i64>::try_from(logits.argmax(1, false))?;
    let labels = Vec::<i64>::try_from(&truth)?;
    let mut tally = UnknownScores::default();
    for ((&score, &best), &label) in scores.iter().zip(&best).zip(&labels) {
        if label < 0 {
            tally.unknown(score);
        } else {
            tally.known(score, best == label);
        }
    }
    let figures = tally.figures().expect("both kinds");
    let unseen = made.spec.unseen.as_ref().expect("scores");
    let at = tally.at(unseen.threshold(0.95).expect("a threshold"));
    let least = unseen.least_probability(0.9).expect("a probability");
    let rows = truth.ge(0).nonzero().squeeze_dim(1);
    let p = logits.softmax(1, Kind::Double).index_select(0, &rows);
    // The best class is always in the set.
    let inside = p
        .ge(least)
        .logical_or(&p.eq_tensor(&p.amax([1i64].as_slice(), true)));
    let own = truth.index_select(0, &rows).unsqueeze(1);
    Ok([
        figures.auroc,
        figures.false_positive_rate,
        at.accepted,
        at.rejected,
        share(&inside.gather(1, &own, false)),
        share(&inside) * known as f64,
    ])
}

/// Share of the wrong labels that are suspects, share of the suspects that are
/// wrong, and how many suspects there are.
fn wrong_labels(task: &Task, seed: u64) -> Result<(f64, f64, usize)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let truth = Vec::<i64>::try_from(&task.keys.1)?;
    let told: Vec<i64> = truth
        .iter()
        .map(|&label| {
            if rng.random::<f64>() < 0.05 {
                (label + rng.random_range(1..task.classes as i64)) % task.classes as i64
            } else {
                label
            }
        })
        .collect();
    let material = Material {
        labels: Tensor::from_slice(&told),
        text: None,
        ..task.material(false)
    };
    let made = auto(&material)?;
    let options = AnalysisOptions {
        draws: 0,
        list_limit: told.len(),
        ..AnalysisOptions::default()
    };
    let found = analyse(&material, &made.spec, &options, &|| true)?;
    let wrong = |key: usize| truth[key] != told[key];
    let hits = found.suspects.iter().filter(|it| wrong(it.key)).count() as f64;
    let all = (0..told.len()).filter(|&key| wrong(key)).count() as f64;
    Ok((
        hits / all.max(1.0),
        hits / found.suspect_count.max(1) as f64,
        found.suspect_count,
    ))
}

/// Accuracy with `each` labels a class on average, chosen by chance and as
/// suggested.
fn labelled(task: &Task, each: usize, seed: u64) -> Result<(f64, f64)> {
    let (features, labels) = &task.keys;
    let count = each * task.classes;
    let mut by_chance: Vec<i64> = (0..labels.numel() as i64).collect();
    by_chance.shuffle(&mut StdRng::seed_from_u64(seed));
    by_chance.truncate(count);
    let pool = Pool {
        features,
        labelled: None,
        margins: None,
    };
    let options = SuggestOptions {
        count,
        strategy: Strategy::Typical,
        duplicate_similarity: None,
        seed,
    };
    let found = suggest(&pool, &options, &|| true)?;
    let suggested: Vec<i64> = found.suggested.iter().map(|it| it.row as i64).collect();
    let accuracy = |rows: &[i64]| -> Result<f64> {
        let rows = Tensor::from_slice(rows);
        let material = Material {
            keys: features.index_select(0, &rows),
            labels: labels.index_select(0, &rows),
            text: None,
            ..task.material(false)
        };
        let made = auto(&material)?;
        let logits = plain_logits(&made.spec, &made.tensors, &task.test.0)?;
        Ok(share(&logits.argmax(1, false).eq_tensor(&task.test.1)))
    };
    Ok((accuracy(&by_chance)?, accuracy(&suggested)?))
}
