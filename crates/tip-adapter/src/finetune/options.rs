//! How to train, and on what; checked.

use tch::Tensor;

use super::TrainError;
use crate::dimensions::row_count;
use crate::head::{HeadError, sort};

/// How the learning rate changes over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Half a cosine, from the learning rate to 0, over all steps.
    #[default]
    Cosine,
    /// The same learning rate at every step.
    Constant,
}

/// How to train. The defaults are the authors' recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Passes over the examples, 1 to 1000.
    pub epochs: usize,
    /// AdamW's learning rate, above 0.
    pub learning_rate: f64,
    /// Examples in a step, 1 to 65536.
    pub batch_size: usize,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// Of AdamW, 0 to 1.
    pub weight_decay: f64,
    /// Seed of every random choice: the order of the examples, the views drawn
    /// and the views held back.
    pub seed: u64,
    /// Stop after this many epochs without a better one; 0: never.
    pub patience: usize,
    /// α of the head that is trained.
    pub alpha: f64,
    /// β of the head that is trained.
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
    /// N, the number of classes.
    pub classes: usize,
    /// The examples' views, [M, R, D], f16 or f32; normalised when drawn.
    pub views: &'a Tensor,
    /// The keys to start from, f32 [M, D].
    pub keys: &'a Tensor,
    /// int64 [M], each in 0..N, in any order.
    pub labels: &'a Tensor,
    /// L [N, D], the logit scale in it.
    pub linear: Option<&'a Tensor>,
    /// b [N], added to every row of logits.
    pub bias: Option<&'a Tensor>,
    /// f32 [N], the factor of each class under `ClassBalance::Mean`, without
    /// α; none: 1.
    pub class_factor: Option<&'a Tensor>,
    /// Validation examples: features [E, D] and labels int64 [E].
    pub validation: Option<(&'a Tensor, &'a Tensor)>,
}

pub(super) fn check_options(options: &Options) -> Result<(), TrainError> {
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
pub(super) fn check_set(set: &TrainingSet) -> Result<(usize, i64), TrainError> {
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
        let e = row_count(labels)?;
        if e == 0 {
            return Err(TrainError::NoExamples);
        }
        vector("validation labels", labels, &[e])?;
        vector("validation features", features, &[e, d])?;
        sort(labels, set.classes)?;
    }
    Ok((set.views.size()[1] as usize, d))
}
