//! Training in short steps, between which the device is free for others.

use tch::{Device, Kind, Reduction, Tensor};

use super::{
    AdamW, EpochReport, Options, Progress, Schedule, Score, Start, StepReport, TrainError,
    TrainingSet, Tuned, Weights,
    draws::Draws,
    kernels::Kernels,
    operators,
    options::{check_options, check_set},
    scored::{Scored, Scoring, right, whole_numbers},
};
use crate::head::{Backend, HeadError, sort};
use tip_kernels::packed::Isa;
use tip_spec::SelectionSource;

/// Multiplications in one call of [`Trainer::step`]: some 10 to 20 ms on two
/// processor cores.
const SLICE: usize = 1 << 30;
/// Rows scored at once, at most.
const SCORE_ROWS: usize = 256;

/// What a trainer is at.
enum Phase {
    /// An epoch is being scored, some rows at a time.
    Score(Scoring),
    /// Nothing is under way: the next call begins a step.
    Ready,
    Forward,
    Backward {
        gradient: Tensor,
    },
    Finished,
}

/// Training that runs in short steps, so that the device can serve requests
/// between two of them.
pub struct Trainer {
    options: Options,
    weights: Box<dyn Weights>,
    width: usize,
    labels: Vec<i64>,
    draws: Draws,
    scored: Option<Scored>,
    source: SelectionSource,
    phase: Phase,
    /// The epoch under way, from 1; 0 before training.
    epoch: usize,
    step: usize,
    /// The examples of the step under way.
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
        let sizes = check_set(set)?;
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
            (Backend::Automatic, Some(isa)) => Box::new(Kernels::new(isa, true, &start)?),
            #[cfg(target_arch = "x86_64")]
            (Backend::Avx2, Some(_)) => Box::new(Kernels::new(Isa::Avx2, false, &start)?),
            #[cfg(target_arch = "x86_64")]
            (Backend::Avx512, Some(Isa::Avx512)) => {
                Box::new(Kernels::new(Isa::Avx512, false, &start)?)
            }
            _ => return Err(HeadError::Backend(backend).into()),
        };

        let labels = whole_numbers(set.labels)?;
        let draws = Draws::new(set, options, sizes)?;
        let (scored, source) = Scored::new(set, &draws, &labels)?;
        Ok(Self {
            options: options.clone(),
            weights,
            width: sizes.1 as usize,
            labels,
            draws,
            scored,
            source,
            phase: Phase::Score(Scoring::new(0)),
            epoch: 0,
            step: 0,
            batch: Vec::new(),
            seen: 0,
            right: 0,
            loss: 0.0,
            epochs: Vec::new(),
            best: None,
            best_keys: set.keys.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?,
        })
    }

    /// Optimiser steps of the whole training.
    pub fn steps(&self) -> usize {
        self.options.epochs * self.steps_each()
    }

    fn steps_each(&self) -> usize {
        self.labels.len().div_ceil(self.options.batch_size)
    }

    /// Works for some 10 to 20 ms, on as many threads as torch has.
    ///
    /// # Errors
    /// [`TrainError::Diverged`], or torch's own. The trainer cannot be used
    /// afterwards.
    pub fn step(&mut self) -> Result<Progress, TrainError> {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Score(scoring) => self.score(scoring),
            Phase::Ready => self.begin(),
            Phase::Forward => self.forward(),
            Phase::Backward { gradient } => self.backward(gradient),
            Phase::Finished => Ok(Progress::Finished),
        }
    }

    fn begin(&mut self) -> Result<Progress, TrainError> {
        if self.draws.exhausted() {
            self.draws.shuffle();
            (self.seen, self.right, self.loss) = (0, 0, 0.0);
            self.epoch += 1;
        }
        let (batch, features) = self.draws.batch()?;
        self.batch = batch;
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
        let right = right(&logits, &labels)?;
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
        self.phase = if self.draws.exhausted() {
            Phase::Score(Scoring::new(self.epoch))
        } else {
            Phase::Ready
        };
        Ok(Progress::Step(report))
    }

    /// Scores some rows of an epoch; when all are, ends it.
    fn score(&mut self, mut scoring: Scoring) -> Result<Progress, TrainError> {
        let Some(scored) = &self.scored else {
            return self.end_epoch(scoring.epoch, None);
        };
        let each = (self.labels.len() * self.width).max(1);
        let rows = (SLICE / each).clamp(1, SCORE_ROWS);
        scored.advance(&mut scoring, &*self.weights, rows)?;
        match scored.score(&scoring) {
            None => {
                self.phase = Phase::Score(scoring);
                Ok(Progress::Working)
            }
            score => self.end_epoch(scoring.epoch, score),
        }
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
        let search_set = self.scored.map(Scored::search_set).transpose()?;
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
