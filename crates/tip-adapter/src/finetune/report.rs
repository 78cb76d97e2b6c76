//! What training reports, and its result.

use tch::Tensor;

use tip_spec::SelectionSource;

/// Accuracy and cross-entropy over some examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share classified rightly, 0 to 1.
    pub accuracy: f64,
    /// Mean cross-entropy over the examples, in nats.
    pub cross_entropy: f64,
    /// Examples that both figures are of.
    pub examples: usize,
}

impl Score {
    /// Accuracy decides, cross-entropy breaks ties.
    pub(super) fn beats(&self, other: &Self) -> bool {
        self.accuracy > other.accuracy
            || (self.accuracy == other.accuracy && self.cross_entropy < other.cross_entropy)
    }
}

/// Where training is after an optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The epoch under way, from 1.
    pub epoch: usize,
    /// Steps done, over all epochs.
    pub step: usize,
    /// Steps of the whole training.
    pub steps: usize,
    /// Mean loss of the epoch so far, nats.
    pub loss: f64,
    /// Accuracy in training of the epoch so far, 0 to 1.
    pub train_accuracy: f64,
    /// The step's own learning rate.
    pub learning_rate: f64,
}

/// One epoch; epoch 0 is the keys before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochReport {
    /// Its number: 0 before training, then from 1.
    pub epoch: usize,
    /// Mean loss in training, nats; none for epoch 0.
    pub loss: Option<f64>,
    /// Accuracy in training; none for epoch 0.
    pub train_accuracy: Option<f64>,
    /// The score on the examples that choose the epoch, if there are any.
    pub score: Option<Score>,
    /// Whether it is the best so far.
    pub best: bool,
}

/// What a call of [`Trainer::step`] has finished.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// A part of a step, or of a scoring.
    Working,
    /// An optimiser step is done.
    Step(StepReport),
    /// An epoch ended, its scoring with it.
    Epoch(EpochReport),
    /// Every epoch is done: call [`Trainer::finish`].
    Finished,
}

/// What α and β are to be searched on, after training: the examples that
/// chose the epoch.
#[derive(Debug)]
pub struct SearchSet {
    /// Unit features of the examples, f32 [E, D].
    pub features: Tensor,
    /// Their classes, int64 [E].
    pub labels: Tensor,
    /// int64 [E], the key of each that must be masked; none with validation.
    pub own_key: Option<Tensor>,
}

/// What a finished training leaves.
#[derive(Debug)]
pub struct Tuned {
    /// The keys after the best epoch, f32 [M, D], in the examples' order.
    pub keys: Tensor,
    /// α and β in training.
    pub alpha: f64,
    /// The other of the two: see `alpha`.
    pub beta: f64,
    /// The epoch chosen; 0: training did not help.
    pub best_epoch: usize,
    /// What it was chosen by.
    pub source: SelectionSource,
    /// One report an epoch, epoch 0 first.
    pub epochs: Vec<EpochReport>,
    /// The examples to search α and β on again; none if there are none.
    pub search_set: Option<SearchSet>,
}

impl Tuned {
    /// The chosen epoch's score and that of the keys before training.
    pub fn scores(&self) -> Option<(Score, Score)> {
        let of = |epoch: usize| self.epochs.get(epoch).and_then(|report| report.score);
        Some((of(self.best_epoch)?, of(0)?))
    }
}
