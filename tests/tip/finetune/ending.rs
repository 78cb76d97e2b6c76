//! How a run ends that does not get better, goes wrong or must not begin.

use rand::{SeedableRng as _, rngs::StdRng};
use tch::{Device, Tensor};
use tip_adapter::{
    finetune::{Options, TrainError, Trainer, TrainingSet},
    head::Backend,
};

use super::{Little, train};
use crate::exchange::seed;

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let little = Little::new(&mut rng, 8, 64, 1, 32);
    // Validation on wrong labels: learning can only harm.
    let features = little.views.squeeze_dim(1);
    let logits = features.matmul(&little.linear.tr()) + &little.bias;
    let wrong = logits.argmax(1, false);
    let set = TrainingSet {
        validation: Some((&features, &wrong)),
        ..little.set()
    };
    let options = Options {
        epochs: 50,
        patience: 2,
        learning_rate: 0.1,
        alpha: 20.0,
        seed,
        ..Options::default()
    };
    let tuned = train(&set, &options, Backend::Automatic).expect("trained");
    assert!(tuned.epochs.len() < 51);
    assert_eq!(tuned.epochs.len(), tuned.best_epoch + 3);
}

#[test]
fn divergence_and_bad_options_are_errors() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    tch::manual_seed(seed as i64);
    let little = Little::new(&mut rng, 4, 30, 1, 16);
    let wild = Options {
        epochs: 50,
        learning_rate: 1e30,
        ..Options::default()
    };
    for backend in [Backend::Automatic, Backend::Operators] {
        let error = train(&little.set(), &wild, backend).expect_err("diverged");
        assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    }
    let refused = |change: fn(&mut Options), words: &str| {
        let mut options = Options::default();
        change(&mut options);
        let error = train(&little.set(), &options, Backend::Automatic).expect_err("refused");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(|o| o.epochs = 0, "epochs is 0, outside 1..=1000");
    refused(|o| o.batch_size = 0, "batch_size is 0");
    refused(|o| o.learning_rate = f64::NAN, "learning_rate is NaN");
    refused(|o| o.weight_decay = -1.0, "weight_decay is -1");
    refused(|o| o.alpha = 0.0, "alpha is 0");
    refused(|o| o.beta = f64::INFINITY, "beta is inf");
    let mut set = little.set();
    let labels = Tensor::from_slice(&[0i64; 29]);
    set.labels = &labels;
    let error = train(&set, &Options::default(), Backend::Automatic).expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("labels has shape [29], expected [30]"),
        "{error}"
    );

    let trainer = Trainer::new(
        &little.set(),
        &Options::default(),
        Device::Cpu,
        Backend::Automatic,
    );
    let error = trainer
        .expect("a trainer")
        .finish()
        .expect_err("unfinished");
    assert!(
        matches!(error, TrainError::Unfinished { step: 0, steps: 20 }),
        "{error}"
    );
}
