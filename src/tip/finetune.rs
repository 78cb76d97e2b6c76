//! Tip-Adapter-F: training a cache's keys (Zhang et al., ECCV 2022, section
//! 3.2, and the authors' recipe).
//!
//! Only K trains; the encoders, V and the linear part stay. The loss is the
//! cross-entropy of the head's whole logits. The training input of an example
//! is one of its cached views, drawn anew each epoch: the encoder is frozen,
//! so this is the authors' training without the encoder.
//!
//! A [`Trainer`] goes in short steps, between which the caller may give the
//! device away, or stop for good. What comes out are the keys after the best
//! epoch, "after none" among them. An epoch is chosen by, in this order:
//!
//! 1. the validation examples, where there are some;
//! 2. views held back from training, one of each example, each scored without
//!    the example's own key, where examples have two views or more. Training
//!    has seen the same pictures under other crops, so this score is on the
//!    bright side: it tells epochs apart, it is no estimate of accuracy;
//! 3. nothing: the last epoch it is. Training accuracy would always choose it
//!    too, and anything else would be a guess dressed as a choice.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tch::{Device, Kind, Reduction, Tensor};
use thiserror::Error;

use super::{
    head::{Backend, HeadError, Sorted, packed::Isa, sort},
    spec::SelectionSource,
};

mod operators;
#[cfg_attr(not(target_arch = "x86_64"), path = "finetune/packed_absent.rs")]
mod packed;

/// Multiplications in one call of [`Trainer::step`]: some 10 to 20 ms on two
/// processor cores.
const SLICE: usize = 1 << 30;
/// Rows scored at once, at most.
const SCORE_ROWS: usize = 256;

/// How the learning rate goes over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Half a cosine, from the learning rate to 0, over all steps.
    #[default]
    Cosine,
    /// Constant.
    Constant,
}

/// How to train. The defaults are the authors' recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Passes over the examples, 1 to 1000.
    pub epochs: usize,
    /// Of AdamW, above 0.
    pub learning_rate: f64,
    /// Examples in a step, 1 to 65536.
    pub batch_size: usize,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// Of AdamW, 0 to 1.
    pub weight_decay: f64,
    /// Of every random choice: the order of the examples, the views drawn and
    /// the views held back.
    pub seed: u64,
    /// Stop after so many epochs without a better one; 0: never.
    pub patience: usize,
    /// α while training.
    pub alpha: f64,
    /// β while training.
    pub beta: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epochs: 20,
            learning_rate: 1e-3,
            batch_size: 256,
            schedule: Schedule::Cosine,
            weight_decay: 0.01,
            seed: 1,
            patience: 0,
            alpha: 1.0,
            beta: 1.0,
        }
    }
}

/// What to train on: a cache, and the rest of its head.
#[derive(Clone, Copy, Debug)]
pub struct TrainingSet<'a> {
    /// N.
    pub classes: usize,
    /// The examples' views, [M, R, D], f16 or f32; normalised when drawn.
    pub views: &'a Tensor,
    /// The keys to start from, f32 [M, D].
    pub keys: &'a Tensor,
    /// int64 [M], each in 0..N, in any order.
    pub labels: &'a Tensor,
    /// L [N, D], the logit scale in it.
    pub linear: Option<&'a Tensor>,
    /// b [N].
    pub bias: Option<&'a Tensor>,
    /// f32 [N], the factor of each class under `ClassBalance::Mean`, without
    /// α; none: 1.
    pub class_factor: Option<&'a Tensor>,
    /// Validation examples: features [E, D] and labels int64 [E].
    pub validation: Option<(&'a Tensor, &'a Tensor)>,
}

/// A share and a mean over some examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share classified rightly, 0 to 1.
    pub accuracy: f64,
    /// Mean cross-entropy, nats.
    pub cross_entropy: f64,
    /// Over how many examples.
    pub examples: usize,
}

impl Score {
    /// Accuracy decides, cross-entropy breaks ties.
    fn beats(&self, other: &Self) -> bool {
        self.accuracy > other.accuracy
            || (self.accuracy == other.accuracy && self.cross_entropy < other.cross_entropy)
    }
}

/// One optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The epoch under way, from 1.
    pub epoch: usize,
    /// Steps done, over all epochs.
    pub step: usize,
    /// Of so many.
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
    /// Which.
    pub epoch: usize,
    /// Mean loss in training, nats; none for epoch 0.
    pub loss: Option<f64>,
    /// Accuracy in training; none for epoch 0.
    pub train_accuracy: Option<f64>,
    /// On what epochs are chosen by, where there is something.
    pub score: Option<Score>,
    /// Whether it is the best so far.
    pub best: bool,
}

/// What a call of [`Trainer::step`] came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// A part of a step, or of a scoring.
    Working,
    /// A step ended.
    Step(StepReport),
    /// An epoch ended, its scoring with it.
    Epoch(EpochReport),
    /// All is done: [`Trainer::finish`].
    Finished,
}

/// Why training cannot start, or stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// An option outside its limits.
    #[error("{name} is {value}, outside {limits}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be, in words.
        limits: &'static str,
    },
    /// There are no examples to train on.
    #[error("there are no examples to train on")]
    NoExamples,
    /// The loss is no longer a number.
    #[error(
        "training diverged: the loss is {loss} in epoch {epoch}, step {step}; \
         a lower learning rate or a smaller β or α may help"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The step, over all epochs, from 1.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// [`Trainer::finish`] before [`Progress::Finished`].
    #[error("training is not finished: {step} of {steps} steps are done")]
    Unfinished {
        /// Steps done.
        step: usize,
        /// Of so many.
        steps: usize,
    },
    /// Tensors that do not fit together, or torch's own.
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl From<tch::TchError> for TrainError {
    fn from(e: tch::TchError) -> Self {
        Self::Head(e.into())
    }
}

/// What α and β are to be searched on, after training: the examples that
/// chose the epoch.
#[derive(Debug)]
pub struct SearchSet {
    /// [E, D], unit rows.
    pub features: Tensor,
    /// int64 [E].
    pub labels: Tensor,
    /// int64 [E], the key of each that must be masked; none with validation.
    pub own_key: Option<Tensor>,
}

/// A finished training.
#[derive(Debug)]
pub struct Tuned {
    /// The keys after the best epoch, f32 [M, D], in the examples' order.
    pub keys: Tensor,
    /// α and β in training.
    pub alpha: f64,
    /// See `alpha`.
    pub beta: f64,
    /// The epoch chosen; 0: training did not help.
    pub best_epoch: usize,
    /// What it was chosen by.
    pub source: SelectionSource,
    /// Every epoch, 0 first.
    pub epochs: Vec<EpochReport>,
    /// Where to search α and β again; none where there is nothing to.
    pub search_set: Option<SearchSet>,
}

impl Tuned {
    /// The chosen epoch's score and that of the keys before training.
    pub fn scores(&self) -> Option<(Score, Score)> {
        let of = |epoch: usize| self.epochs.get(epoch).and_then(|report| report.score);
        Some((of(self.best_epoch)?, of(0)?))
    }
}

/// AdamW's numbers for one step.
#[derive(Clone, Copy)]
struct AdamW {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// 1 − learning rate × weight decay.
    decay: f32,
    /// −learning rate / (1 − β₁ᵗ).
    size: f32,
    /// 1 / √(1 − β₂ᵗ).
    root: f32,
}

impl AdamW {
    /// For step t, from 1.
    fn new(learning_rate: f64, weight_decay: f64, step: usize) -> Self {
        let (beta1, beta2) = (0.9f64, 0.999f64);
        let t = step as f64;
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: 1e-4,
            decay: (1.0 - learning_rate * weight_decay) as f32,
            size: (-learning_rate / (1.0 - beta1.powf(t))) as f32,
            root: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
        }
    }
}

/// What training starts from, checked.
struct Start<'a> {
    classes: usize,
    keys: &'a Tensor,
    sorted: &'a Sorted,
    linear: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    /// α times the class's factor, [N].
    weight: Tensor,
    beta: f64,
}

/// The keys, and the arithmetic of a step, on some device. `work` is a number
/// of multiplications after which to pause.
trait Weights: Send {
    /// Takes a batch, [B, D].
    fn begin(&mut self, features: &Tensor) -> Result<(), HeadError>;
    /// A slice of the forward pass; true when it was the last.
    fn forward(&mut self, work: usize) -> Result<bool, HeadError>;
    /// The batch's logits, [B, N].
    fn logits(&mut self) -> Result<Tensor, HeadError>;
    /// A slice of the backward pass and of the optimiser's step, from
    /// ∂loss/∂logits; true when it was the last.
    fn backward(
        &mut self,
        gradient: &Tensor,
        adamw: &AdamW,
        work: usize,
    ) -> Result<bool, HeadError>;
    /// Logits of any features, [B, N].
    fn score(&self, features: &Tensor) -> Result<Tensor, HeadError>;
    /// What each row's own key adds to the logit of its class, [B].
    fn own(&self, features: &Tensor, keys: &[usize]) -> Result<Tensor, HeadError>;
    /// The keys in the examples' order, f32 [M, D] on the CPU.
    fn keys(&self) -> Result<Tensor, HeadError>;
    fn device(&self) -> Device;
}

/// What epochs are scored on.
struct Scored {
    /// [E, D] on the CPU, unit rows.
    features: Tensor,
    labels: Vec<i64>,
    /// Whose own key is masked: the key of row e is e.
    own: bool,
}

/// What a trainer is at.
enum Phase {
    /// Scoring epoch `epoch`, from `row` on.
    Score {
        epoch: usize,
        row: usize,
        right: usize,
        loss: f64,
    },
    /// Between two steps.
    Ready,
    Forward,
    Backward {
        gradient: Tensor,
    },
    Finished,
}

/// Training in short steps.
pub struct Trainer {
    options: Options,
    weights: Box<dyn Weights>,
    /// [M·R, D].
    views: Tensor,
    views_each: usize,
    labels: Vec<i64>,
    /// The view of each example that training never draws.
    held_back: Option<Vec<usize>>,
    scored: Option<Scored>,
    source: SelectionSource,
    rng: StdRng,
    phase: Phase,
    /// The epoch under way, from 1; 0 before training.
    epoch: usize,
    step: usize,
    order: Vec<usize>,
    next: usize,
    /// Examples of the batch.
    batch: Vec<usize>,
    seen: usize,
    right: usize,
    loss: f64,
    epochs: Vec<EpochReport>,
    best: Option<(usize, Score)>,
    best_keys: Tensor,
}

impl Trainer {
    /// A trainer on `device`.
    ///
    /// It holds K and AdamW's two moments in f32, the best keys so far (f32),
    /// a copy of the keys in bfloat16 where products are computed in it, one
    /// batch's affinities, and the E rows that epochs are scored on: about
    /// 18·M·D + 4·B·M + 4·E·D bytes beside the views.
    ///
    /// [`Backend::Automatic`] multiplies in bfloat16, summing in f32, where
    /// that is faster (AMX, AMD's AVX512-BF16); the keys that are trained are
    /// f32 always. The other backends multiply in f32.
    ///
    /// # Errors
    /// Options outside their limits, tensors that do not fit together, no
    /// examples, or torch's own.
    pub fn new(
        set: &TrainingSet,
        options: &Options,
        device: Device,
        backend: Backend,
    ) -> Result<Self, TrainError> {
        check_options(options)?;
        let (views_each, width) = check_set(set)?;
        let examples = set.keys.size()[0] as usize;
        let sorted = sort(set.labels, set.classes)?;
        let ones;
        let factor = match set.class_factor {
            Some(factor) => factor,
            None => {
                ones = Tensor::f_ones([set.classes as i64], (Kind::Float, Device::Cpu))?;
                &ones
            }
        };
        let start = Start {
            classes: set.classes,
            keys: set.keys,
            sorted: &sorted,
            linear: set.linear,
            bias: set.bias,
            weight: factor.f_to_kind(Kind::Float)?.f_mul_scalar(options.alpha)?,
            beta: options.beta,
        };
        let isa = Isa::detect().filter(|_| device == Device::Cpu);
        let weights: Box<dyn Weights> = match (backend, isa) {
            (Backend::Operators, _) | (Backend::Automatic, None) => {
                Box::new(operators::Operators::new(device, &start)?)
            }
            (Backend::Automatic, Some(isa)) => Box::new(packed::Packed::new(isa, true, &start)?),
            #[cfg(target_arch = "x86_64")]
            (Backend::Avx2, Some(_)) => Box::new(packed::Packed::new(Isa::Avx2, false, &start)?),
            #[cfg(target_arch = "x86_64")]
            (Backend::Avx512, Some(Isa::Avx512)) => {
                Box::new(packed::Packed::new(Isa::Avx512, false, &start)?)
            }
            _ => return Err(HeadError::Backend(backend).into()),
        };

        let labels = whole_numbers(set.labels)?;
        let mut rng = StdRng::seed_from_u64(options.seed);
        let views = set
            .views
            .f_to_device(Device::Cpu)?
            .f_contiguous()?
            .f_view([(examples * views_each) as i64, width])?;
        let mut held_back = None;
        let (scored, source) = if let Some((features, labels)) = set.validation {
            let scored = Scored {
                features: unit(features)?,
                labels: whole_numbers(labels)?,
                own: false,
            };
            (Some(scored), SelectionSource::Validation)
        } else if views_each > 1 {
            let held: Vec<usize> = (0..examples)
                .map(|_| rng.random_range(0..views_each))
                .collect();
            let at: Vec<i64> = held
                .iter()
                .enumerate()
                .map(|(example, view)| (example * views_each + view) as i64)
                .collect();
            held_back = Some(held);
            let scored = Scored {
                features: unit(&views.f_index_select(0, &Tensor::f_from_slice(&at)?)?)?,
                labels: labels.clone(),
                own: true,
            };
            (Some(scored), SelectionSource::HeldBackViews)
        } else {
            (None, SelectionSource::Default)
        };
        let phase = Phase::Score {
            epoch: 0,
            row: 0,
            right: 0,
            loss: 0.0,
        };
        Ok(Self {
            options: options.clone(),
            weights,
            views,
            views_each,
            labels,
            held_back,
            scored,
            source,
            rng,
            phase,
            epoch: 0,
            step: 0,
            order: (0..examples).collect(),
            next: examples,
            batch: Vec::new(),
            seen: 0,
            right: 0,
            loss: 0.0,
            epochs: Vec::new(),
            best: None,
            best_keys: set.keys.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?,
        })
    }

    /// Optimiser steps in all.
    pub fn steps(&self) -> usize {
        self.options.epochs * self.steps_each()
    }

    fn steps_each(&self) -> usize {
        self.labels.len().div_ceil(self.options.batch_size)
    }

    /// Works for some 10 to 20 ms, on as many threads as torch has.
    ///
    /// # Errors
    /// [`TrainError::Diverged`], or torch's own. The trainer is of no use
    /// afterwards.
    pub fn step(&mut self) -> Result<Progress, TrainError> {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Score {
                epoch,
                row,
                right,
                loss,
            } => self.score(epoch, row, right, loss),
            Phase::Ready => self.begin(),
            Phase::Forward => self.forward(),
            Phase::Backward { gradient } => self.backward(gradient),
            Phase::Finished => Ok(Progress::Finished),
        }
    }

    fn begin(&mut self) -> Result<Progress, TrainError> {
        if self.next >= self.order.len() {
            self.order.shuffle(&mut self.rng);
            (self.next, self.seen, self.right, self.loss) = (0, 0, 0, 0.0);
            self.epoch += 1;
        }
        let end = (self.next + self.options.batch_size).min(self.order.len());
        self.batch = self.order[self.next..end].to_vec();
        self.next = end;
        let mut rows = Vec::with_capacity(self.batch.len());
        for &example in &self.batch {
            let view = match &self.held_back {
                Some(held) => {
                    let view = self.rng.random_range(0..self.views_each - 1);
                    view + usize::from(view >= held[example])
                }
                None => self.rng.random_range(0..self.views_each),
            };
            rows.push((example * self.views_each + view) as i64);
        }
        let features = unit(
            &self
                .views
                .f_index_select(0, &Tensor::f_from_slice(&rows)?)?,
        )?;
        self.weights.begin(&features)?;
        self.forward()
    }

    fn forward(&mut self) -> Result<Progress, TrainError> {
        if !self.weights.forward(SLICE)? {
            self.phase = Phase::Forward;
            return Ok(Progress::Working);
        }
        let logits = self.weights.logits()?;
        let labels: Vec<i64> = self
            .batch
            .iter()
            .map(|&example| self.labels[example])
            .collect();
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(self.weights.device())?;
        let log_p = logits.f_log_softmax(-1, Kind::Float)?;
        let loss = log_p
            .f_nll_loss::<Tensor>(&labels, None, Reduction::Mean, -100)?
            .f_double_value(&[])?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged {
                epoch: self.epoch,
                step: self.step + 1,
                loss,
            });
        }
        let right = logits
            .f_argmax(1, false)?
            .f_eq_tensor(&labels)?
            .f_sum(Kind::Int64)?
            .f_int64_value(&[])? as usize;
        let count = self.batch.len();
        self.seen += count;
        self.right += right;
        self.loss += loss * count as f64;
        // ∂loss/∂logits = (softmax − one-hot) / B.
        let mut gradient = log_p.f_exp()?;
        let minus_one = Tensor::f_full([count as i64, 1], -1.0, (Kind::Float, gradient.device()))?;
        let gradient = gradient
            .f_scatter_add_(1, &labels.f_unsqueeze(1)?, &minus_one)?
            .f_div_scalar_(count as f64)?;
        self.phase = Phase::Backward { gradient };
        Ok(Progress::Working)
    }

    fn learning_rate(&self) -> f64 {
        let done = self.step as f64 / self.steps() as f64;
        match self.options.schedule {
            Schedule::Cosine => {
                self.options.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Schedule::Constant => self.options.learning_rate,
        }
    }

    fn backward(&mut self, gradient: Tensor) -> Result<Progress, TrainError> {
        let learning_rate = self.learning_rate();
        let adamw = AdamW::new(learning_rate, self.options.weight_decay, self.step + 1);
        if !self.weights.backward(&gradient, &adamw, SLICE)? {
            self.phase = Phase::Backward { gradient };
            return Ok(Progress::Working);
        }
        self.step += 1;
        let report = StepReport {
            epoch: self.epoch,
            step: self.step,
            steps: self.steps(),
            loss: self.loss / self.seen as f64,
            train_accuracy: self.right as f64 / self.seen as f64,
            learning_rate,
        };
        self.phase = if self.next < self.order.len() {
            Phase::Ready
        } else {
            Phase::Score {
                epoch: self.epoch,
                row: 0,
                right: 0,
                loss: 0.0,
            }
        };
        Ok(Progress::Step(report))
    }

    /// Scores some rows of epoch `epoch`; when all are, ends it.
    fn score(
        &mut self,
        epoch: usize,
        row: usize,
        mut right: usize,
        mut loss: f64,
    ) -> Result<Progress, TrainError> {
        let Some(scored) = &self.scored else {
            return self.end_epoch(epoch, None);
        };
        let count = scored.labels.len();
        if row < count {
            let each = (self.labels.len() * self.views.size()[1] as usize).max(1);
            let rows = (SLICE / each).clamp(1, SCORE_ROWS).min(count - row);
            let features = scored.features.f_narrow(0, row as i64, rows as i64)?;
            let labels = Tensor::f_from_slice(&scored.labels[row..row + rows])?
                .f_to_device(self.weights.device())?;
            let mut logits = self.weights.score(&features)?;
            if scored.own {
                let keys: Vec<usize> = (row..row + rows).collect();
                let own = self.weights.own(&features, &keys)?;
                logits = logits.f_scatter_add_(
                    1,
                    &labels.f_unsqueeze(1)?,
                    &own.f_neg()?.f_unsqueeze(1)?,
                )?;
            }
            right += logits
                .f_argmax(1, false)?
                .f_eq_tensor(&labels)?
                .f_sum(Kind::Int64)?
                .f_int64_value(&[])? as usize;
            loss += logits
                .f_log_softmax(-1, Kind::Float)?
                .f_nll_loss::<Tensor>(&labels, None, Reduction::Sum, -100)?
                .f_double_value(&[])?;
            if row + rows < count {
                self.phase = Phase::Score {
                    epoch,
                    row: row + rows,
                    right,
                    loss,
                };
                return Ok(Progress::Working);
            }
        }
        let score = Score {
            accuracy: right as f64 / count as f64,
            cross_entropy: loss / count as f64,
            examples: count,
        };
        self.end_epoch(epoch, Some(score))
    }

    fn end_epoch(&mut self, epoch: usize, score: Option<Score>) -> Result<Progress, TrainError> {
        let last = epoch == self.options.epochs;
        let best = match (score, &self.best) {
            (Some(score), Some((_, best))) => score.beats(best),
            (Some(_), None) => true,
            (None, _) => last,
        };
        if best {
            if let Some(score) = score {
                self.best = Some((epoch, score));
            }
            if epoch > 0 {
                self.best_keys = self.weights.keys()?;
            }
        }
        let seen = self.seen as f64;
        let report = EpochReport {
            epoch,
            loss: (epoch > 0).then(|| self.loss / seen),
            train_accuracy: (epoch > 0).then(|| self.right as f64 / seen),
            score,
            best,
        };
        self.epochs.push(report);
        let patience = self.options.patience;
        let tired = self
            .best
            .is_some_and(|(best, _)| patience > 0 && epoch - best >= patience);
        self.phase = if last || tired {
            Phase::Finished
        } else {
            Phase::Ready
        };
        Ok(Progress::Epoch(report))
    }

    /// The outcome.
    ///
    /// # Errors
    /// [`TrainError::Unfinished`] before [`Progress::Finished`].
    pub fn finish(self) -> Result<Tuned, TrainError> {
        if !matches!(self.phase, Phase::Finished) {
            return Err(TrainError::Unfinished {
                step: self.step,
                steps: self.steps(),
            });
        }
        let search_set = match self.scored {
            Some(scored) => Some(SearchSet {
                labels: Tensor::f_from_slice(&scored.labels)?,
                own_key: scored
                    .own
                    .then(|| {
                        Tensor::f_arange(scored.labels.len() as i64, (Kind::Int64, Device::Cpu))
                    })
                    .transpose()?,
                features: scored.features,
            }),
            None => None,
        };
        Ok(Tuned {
            keys: self.best_keys,
            alpha: self.options.alpha,
            beta: self.options.beta,
            best_epoch: self.best.map_or(self.epoch, |(epoch, _)| epoch),
            source: self.source,
            epochs: self.epochs,
            search_set,
        })
    }
}

/// Rows in f32 on the CPU, each divided by its norm.
fn unit(t: &Tensor) -> Result<Tensor, tch::TchError> {
    let t = t.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let norm = t
        .f_square()?
        .f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?
        .f_sqrt()?
        .f_clamp_min(1e-12)?;
    t.f_div(&norm)
}

fn whole_numbers(t: &Tensor) -> Result<Vec<i64>, tch::TchError> {
    Vec::<i64>::try_from(
        &t.f_to_device(Device::Cpu)?
            .f_to_kind(Kind::Int64)?
            .f_contiguous()?,
    )
}

fn check_options(options: &Options) -> Result<(), TrainError> {
    let check = |name, value: f64, ok: bool, limits| {
        if ok {
            Ok(())
        } else {
            Err(TrainError::Option {
                name,
                value,
                limits,
            })
        }
    };
    let Options {
        epochs,
        learning_rate,
        batch_size,
        weight_decay,
        alpha,
        beta,
        ..
    } = *options;
    check(
        "epochs",
        epochs as f64,
        (1..=1000).contains(&epochs),
        "1..=1000",
    )?;
    check(
        "batch_size",
        batch_size as f64,
        (1..=65536).contains(&batch_size),
        "1..=65536",
    )?;
    let positive = learning_rate.is_finite() && learning_rate > 0.0;
    check(
        "learning_rate",
        learning_rate,
        positive,
        "finite numbers above 0",
    )?;
    let share = (0.0..=1.0).contains(&weight_decay);
    check("weight_decay", weight_decay, share, "0..=1")?;
    let positive = alpha.is_finite() && alpha > 0.0;
    check("alpha", alpha, positive, "finite numbers above 0")?;
    let positive = beta.is_finite() && beta > 0.0;
    check("beta", beta, positive, "finite numbers above 0")
}

/// R and D, if everything fits together.
fn check_set(set: &TrainingSet) -> Result<(usize, i64), TrainError> {
    let shape = |what, t: &Tensor, fits: bool, expected: String| {
        if fits {
            Ok(())
        } else {
            Err(HeadError::Shape {
                what,
                found: t.size(),
                expected,
            })
        }
    };
    let n = set.classes as i64;
    let size = set.keys.size();
    let two = size.len() == 2 && size[1] > 0;
    shape("keys", set.keys, two, "[M, D]".into())?;
    let (m, d) = (size[0], size[1]);
    if m == 0 || n == 0 {
        return Err(TrainError::NoExamples);
    }
    let size = set.views.size();
    let fits = size.len() == 3 && size[0] == m && size[1] > 0 && size[2] == d;
    shape("views", set.views, fits, format!("[{m}, R, {d}]"))?;
    let vector = |what, t: &Tensor, expected: &[i64]| {
        shape(what, t, t.size() == expected, format!("{expected:?}"))
    };
    vector("labels", set.labels, &[m])?;
    if let Some(linear) = set.linear {
        vector("L", linear, &[n, d])?;
    }
    if let Some(bias) = set.bias {
        vector("b", bias, &[n])?;
    }
    if let Some(factor) = set.class_factor {
        vector("the classes' factors", factor, &[n])?;
    }
    if let Some((features, labels)) = set.validation {
        let e = labels.size().first().copied().unwrap_or(0);
        if e == 0 {
            return Err(TrainError::NoExamples);
        }
        vector("validation labels", labels, &[e])?;
        vector("validation features", features, &[e, d])?;
        sort(labels, set.classes)?;
    }
    Ok((set.views.size()[1] as usize, d))
}
