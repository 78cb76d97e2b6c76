//! Tip-Adapter-F against torch's autograd and optimiser in float64.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    finetune::{EpochReport, Options, Progress, Schedule, TrainError, Trainer, TrainingSet, Tuned},
    head::{Backend, HeadError},
};
use tip_spec::SelectionSource;

use crate::exchange::{Exchange, largest_difference, normalised, run, seed, unit};

mod ending;

/// A little cache: noisy pictures around a centre a class.
struct Little {
    views: Tensor,
    keys: Tensor,
    labels: Tensor,
    linear: Tensor,
    bias: Tensor,
    factor: Tensor,
    classes: i64,
}

impl Little {
    fn new(rng: &mut StdRng, classes: i64, keys: i64, views: i64, width: i64) -> Self {
        let labels: Vec<i64> = (0..keys).map(|_| rng.random_range(0..classes)).collect();
        let labels = Tensor::from_slice(&labels);
        let centres = unit(classes, width);
        let picture = centres.index_select(0, &labels) + unit(keys, width) * 1.2;
        let shape = [keys, views, width];
        let noise =
            Tensor::randn(shape, (Kind::Float, Device::Cpu)) * (0.3 / (width as f64).sqrt());
        let views = normalised(&(picture.unsqueeze(1) + noise));
        Self {
            keys: normalised(&views.mean_dim([1i64].as_slice(), false, Kind::Float)),
            views,
            labels,
            linear: normalised(&(centres + unit(classes, width) * 2.0)) * 30.0,
            bias: Tensor::randn([classes], (Kind::Float, Device::Cpu)),
            factor: Tensor::rand([classes], (Kind::Float, Device::Cpu)) + 0.5,
            classes,
        }
    }

    /// Logits before training.
    fn logits(&self, whole: bool, alpha: f64, beta: f64) -> Tensor {
        let features = self.views.select(1, 0);
        let mut one_hot = self.labels.one_hot(self.classes).to_kind(Kind::Float);
        let affinity = ((features.matmul(&self.keys.tr()) - 1.0) * beta).exp();
        if whole {
            one_hot *= &self.factor;
        }
        let mut logits = affinity.matmul(&one_hot) * alpha;
        if whole {
            logits += features.matmul(&self.linear.tr()) + &self.bias;
        }
        logits
    }

    /// How much the loss changes where every logit ℓ changes by a share of
    /// itself, at the most, to first order and before training: the mean over
    /// examples of Σ |p − y|·|ℓ|, as ∂loss/∂ℓ = p − y.
    fn sensitivity(&self, logits: &Tensor) -> f64 {
        let target = self.labels.one_hot(self.classes).to_kind(Kind::Float);
        let slope = logits.softmax(1, Kind::Double) - target;
        let each = (slope * logits).abs();
        each.sum(Kind::Double).double_value(&[]) / each.size()[0] as f64
    }

    /// How far apart losses may be, and keys as a share of the way that they
    /// went.
    ///
    /// Automatic may multiply in bfloat16. Its 8 bits round each factor by up
    /// to 2⁻⁹ of itself, a product of two by up to 2⁻⁸. An affinity is a sum of
    /// D such products whose roundings are independent, so that a logit ℓ is
    /// off by some 2⁻⁸/√D of itself, and the loss by Σ |∂loss/∂ℓ|·|δℓ| at the
    /// most: 2⁻⁸/√D of its sensitivity. (β multiplies an affinity's error;
    /// averaging over 97 examples and more takes that back: over 22 seeds at
    /// most half of the limit was seen.) What the other backends are held to,
    /// plain f32's error, comes on top.
    ///
    /// Where examples are told apart from the start, what is left of a gradient
    /// is small probabilities, each off by the share that its logit is off by.
    fn limits(&self, whole: bool, options: &Options, backend: Backend) -> (f64, f64) {
        if backend != Backend::Automatic {
            return (1e-4, 1e-3);
        }
        let logits = self.logits(whole, options.alpha, options.beta);
        let largest = logits.abs().max().double_value(&[]);
        let rounding = 1.0 / 256.0 / (self.keys.size()[1] as f64).sqrt();
        (
            1e-4 + rounding * self.sensitivity(&logits),
            2e-2 + 2.0 * rounding * largest,
        )
    }

    /// What the reference trains.
    fn given(&self, whole: bool, options: &Options) -> Exchange {
        let mut exchange = Exchange::new();
        exchange.give("features", &self.views.squeeze_dim(1));
        exchange.give("keys", &self.keys);
        exchange.give("labels", &self.labels);
        if whole {
            exchange.give("linear", &self.linear);
            exchange.give("bias", &self.bias);
            exchange.give("factor", &self.factor);
        }
        exchange.numbers(json!({
            "classes": self.classes, "alpha": options.alpha, "beta": options.beta,
            "batch": options.batch_size, "epochs": options.epochs,
            "learning_rate": options.learning_rate,
            "weight_decay": options.weight_decay,
        }));
        exchange
    }

    fn set(&self) -> TrainingSet<'_> {
        TrainingSet {
            classes: self.classes as usize,
            views: &self.views,
            keys: &self.keys,
            labels: &self.labels,
            linear: Some(&self.linear),
            bias: Some(&self.bias),
            class_factor: Some(&self.factor),
            validation: None,
        }
    }
}

fn train(set: &TrainingSet, options: &Options, backend: Backend) -> Result<Tuned, TrainError> {
    let mut trainer = Trainer::new(set, options, Device::Cpu, backend)?;
    while trainer.step()? != Progress::Finished {}
    trainer.finish()
}

fn backends() -> impl Iterator<Item = Backend> {
    [Backend::Operators, Backend::Avx2, Backend::Avx512].into_iter()
}

#[test]
fn steps_are_autograds_and_adamws() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    // Full panels and not, an odd width, classes that many tiles share, none
    // of the optional parts.
    let cases = [
        (10, 160, 64, true),
        (3, 500, 33, true),
        (40, 97, 20, false),
        (1, 50, 7, false),
    ]
    .map(|(classes, keys, width, whole)| (Little::new(&mut rng, classes, keys, 1, width), whole));
    let options = Options {
        epochs: 12,
        batch_size: 1000,
        learning_rate: 3e-3,
        alpha: 1.7,
        beta: 2.5,
        seed,
        ..Options::default()
    };
    let exchanges: Vec<Exchange> = cases
        .iter()
        .map(|(little, whole)| little.given(*whole, &options))
        .collect();
    run("finetune_steps.py", &exchanges);
    for ((little, whole), exchange) in cases.iter().zip(&exchanges) {
        let mut set = little.set();
        if !whole {
            (set.linear, set.bias, set.class_factor) = (None, None, None);
        }
        let (classes, size) = (little.classes, little.keys.size());
        let want = exchange.take("keys.f64", &size);
        let want_losses = exchange.take("losses.f64", &[options.epochs as i64]);
        for backend in backends().chain([Backend::Automatic]) {
            let (loss_limit, key_limit) = little.limits(*whole, &options, backend);
            let tuned = match train(&set, &options, backend) {
                Err(TrainError::Head(HeadError::Backend(_))) => continue,
                tuned => tuned.expect("trained"),
            };
            let case = format!("{backend:?} N={classes} [M, D] = {size:?}");
            let losses: Vec<f64> = tuned.epochs.iter().filter_map(|epoch| epoch.loss).collect();
            let apart = largest_difference(&Tensor::from_slice(&losses), &want_losses);
            println!("{case}: losses {apart:e} apart, limit {loss_limit:e}");
            assert!(apart < loss_limit, "{case}: losses {apart:e} apart");
            // Against how far training moved them. Keys are kept in f32: a step
            // rounds its weight decay's factor and what that gives by up to
            // 2⁻²⁴ of a key each, which shows where examples are told apart
            // from the start and decay is all that moves the keys.
            let length = |t: Tensor| t.square().sum(Kind::Double).sqrt().double_value(&[]);
            let kept = options.epochs as f64 / f64::from(1 << 23) * length(want.shallow_clone());
            let apart = length(&tuned.keys - &want);
            let way = length(&want - &little.keys);
            let limit = key_limit * way + kept;
            println!("{case}: keys {apart:e} apart after a way of {way:e}, limit {limit:e}");
            assert!(
                apart < limit,
                "{case}: keys {apart:e} apart after a way of {way:e}, limit {limit:e}"
            );
            // One view and no validation: nothing to choose by, so the last.
            assert_eq!(tuned.source, SelectionSource::Default);
            assert_eq!(tuned.best_epoch, options.epochs);
            assert!(tuned.search_set.is_none());
        }
    }
}

#[test]
fn mini_batches_are_the_same_on_every_backend_and_by_seed() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let little = Little::new(&mut rng, 12, 230, 3, 48);
    let options = Options {
        epochs: 4,
        batch_size: 64,
        seed,
        ..Options::default()
    };
    let plain = train(&little.set(), &options, Backend::Operators).expect("trained");
    for backend in backends().chain([Backend::Automatic]) {
        let tuned = match train(&little.set(), &options, backend) {
            Err(TrainError::Head(HeadError::Backend(_))) => continue,
            tuned => tuned.expect("trained"),
        };
        for (got, want) in tuned.epochs.iter().zip(&plain.epochs) {
            let (Some(got), Some(want)) = (got.score, want.score) else {
                panic!("views are held back");
            };
            // Automatic may multiply in bfloat16.
            let limit = if backend == Backend::Automatic {
                2e-3
            } else {
                1e-4
            };
            assert!(
                (got.cross_entropy - want.cross_entropy).abs() < limit,
                "{backend:?}"
            );
        }
        let again = train(&little.set(), &options, backend).expect("trained");
        assert_eq!(tuned.keys, again.keys, "{backend:?}");
        assert_eq!(tuned.epochs, again.epochs, "{backend:?}");
    }
    let other = Options {
        seed: seed + 1,
        ..options
    };
    let other = train(&little.set(), &other, Backend::Automatic).expect("trained");
    assert!(largest_difference(&other.keys, &plain.keys) > 0.0);
}

#[test]
fn the_best_epoch_is_chosen_on_validation() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let little = Little::new(&mut rng, 8, 64, 1, 32);
    let others = Little::new(&mut rng, 8, 200, 1, 32);
    let features = others.views.squeeze_dim(1);
    let set = TrainingSet {
        validation: Some((&features, &others.labels)),
        ..little.set()
    };
    // Steps so long that training harms: nothing beats a good start.
    let options = Options {
        epochs: 6,
        learning_rate: 0.5,
        alpha: 30.0,
        seed,
        ..Options::default()
    };
    let tuned = train(&set, &options, Backend::Automatic).expect("trained");
    assert_eq!(tuned.source, SelectionSource::Validation);
    let better = |a: &EpochReport, b: &EpochReport| {
        let (a, b) = (a.score.expect("a score"), b.score.expect("a score"));
        a.accuracy > b.accuracy || (a.accuracy == b.accuracy && a.cross_entropy < b.cross_entropy)
    };
    let best = &tuned.epochs[tuned.best_epoch];
    assert!(tuned.epochs.iter().all(|epoch| !better(epoch, best)));
    assert_eq!(tuned.epochs.len(), 7);
    let search = tuned.search_set.expect("validation examples");
    assert!(search.own_key.is_none());
    assert_eq!(search.labels, others.labels);

    // The keys are that epoch's: training up to it, at a constant rate, gives
    // them again.
    let constant = Options {
        schedule: Schedule::Constant,
        learning_rate: 1e-2,
        ..options
    };
    let long = train(&set, &constant, Backend::Automatic).expect("trained");
    if long.best_epoch == 0 {
        assert_eq!(long.keys, little.keys);
    } else {
        let short = Options {
            epochs: long.best_epoch,
            ..constant
        };
        let short = train(&set, &short, Backend::Automatic).expect("trained");
        assert_eq!(short.best_epoch, long.best_epoch);
        assert_eq!(short.keys, long.keys);
    }
}

#[test]
fn held_back_views_are_scored_without_their_own_key() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    // Labels at random: with its own key an example is always right, without
    // it only by luck.
    let mut little = Little::new(&mut rng, 10, 400, 2, 64);
    let labels: Vec<i64> = (0..400).map(|_| rng.random_range(0..10)).collect();
    little.labels = Tensor::from_slice(&labels);
    let set = TrainingSet {
        linear: None,
        bias: None,
        class_factor: None,
        ..little.set()
    };
    let options = Options {
        epochs: 1,
        beta: 20.0,
        seed,
        ..Options::default()
    };
    for backend in [Backend::Automatic, Backend::Operators] {
        let tuned = train(&set, &options, backend).expect("trained");
        assert_eq!(tuned.source, SelectionSource::HeldBackViews);
        let (_, before) = tuned.scores().expect("scores");
        assert_eq!(before.examples, 400);
        assert!(before.accuracy < 0.3, "{backend:?}: {}", before.accuracy);
        let search = tuned.search_set.expect("held-back views");
        let own = search.own_key.expect("own keys");
        assert_eq!(
            Vec::<i64>::try_from(own).expect("rows"),
            (0..400).collect::<Vec<i64>>()
        );
        // Each is one of its example's two views.
        let first = search.features.unsqueeze(1) - &little.views;
        let nearest = first
            .abs()
            .amax([2i64].as_slice(), false)
            .amin([1i64].as_slice(), false);
        assert!(nearest.max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn training_learns_and_reports() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let little = Little::new(&mut rng, 6, 130, 1, 32);
    let options = Options {
        epochs: 30,
        batch_size: 50,
        learning_rate: 1e-2,
        alpha: 3.0,
        seed,
        ..Options::default()
    };
    let mut trainer =
        Trainer::new(&little.set(), &options, Device::Cpu, Backend::Automatic).expect("a trainer");
    assert_eq!(trainer.steps(), 90);
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    loop {
        match trainer.step().expect("a step") {
            Progress::Working => {}
            Progress::Step(report) => steps.push(report),
            Progress::Epoch(report) => epochs.push(report),
            Progress::Finished => break,
        }
    }
    let numbers: Vec<usize> = steps.iter().map(|step| step.step).collect();
    assert_eq!(numbers, (1..=90).collect::<Vec<_>>());
    let numbers: Vec<usize> = epochs.iter().map(|epoch| epoch.epoch).collect();
    assert_eq!(numbers, (0..=30).collect::<Vec<_>>());
    // Half a cosine, per step.
    assert_eq!(steps[0].learning_rate, 1e-2);
    assert!((steps[45].learning_rate - 5e-3).abs() < 1e-9);
    assert!(steps[89].learning_rate < 1e-5);
    let (first, last) = (epochs[1], epochs[30]);
    assert!(last.loss < first.loss, "{first:?} {last:?}");
    assert!(last.train_accuracy >= first.train_accuracy);
}
