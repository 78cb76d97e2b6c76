//! How long a batch takes: duration = a·n + b, fitted online.

/// Weight that an observation keeps for the shape when the next one arrives.
const MEMORY: f64 = 0.98;
/// The same for the height: ten batches or so. A machine that loses a core to
/// another process is slower at once, and until the model sees that, what it
/// promises comes too late.
const RECENT: f64 = 0.9;
/// Share of the best throughput at which a batch is large enough. Close to 1,
/// as the shape is known only roughly: if it is taken for too flat, 0.97 would
/// give batches of some 3 pictures when 12 are cheaper.
const WORTHWHILE: f64 = 0.99;
/// How much batch sizes must vary (standard deviation over mean) for a slope
/// to be read off them: below that it is noise.
const SPREAD: f64 = 0.2;
/// How far the shape moves towards what the latest observations say.
const LEARNING: f64 = 0.005;

/// Weight that an observation keeps for the scatter when the next one arrives.
const SCATTER_MEMORY: f64 = 0.97;
/// How many standard deviations of the scatter the margin is. In simulations of an
/// overloaded server 2 is as good as 1.6 and 2.5 where durations scatter by 4 %, and
/// up to 7 points of goodput better than a fixed 15 % where they scatter by 20 %.
const MARGIN_DEVIATIONS: f64 = 2.0;
/// The margin before anything was observed.
const FIRST_MARGIN: f64 = 1.15;
/// The most that the margin may be, however the machine behaves.
const MOST_MARGIN: f64 = 2.0;

/// The line a·n + b: its height, and its shape, which is the share of a batch of
/// one that is the batch's own and not the picture's, b/(a + b).
///
/// The height follows the machine within some ten batches. The shape is learned while warming,
/// where sizes vary and the machine does not, and then moves slowly, by
/// least squares over batches of different sizes. Under load it could not be
/// read off directly: all batches come to have the size that the model itself
/// chose, so that noise decides; and large batches are those of a busy
/// machine, so that a line through them and the small ones of a quiet one is
/// too steep, and says that batches are not worth it.
#[derive(Clone, Debug, Default)]
pub struct CostModel {
    weight: f64,
    sum_n: f64,
    sum_t: f64,
    sum_nn: f64,
    sum_nt: f64,
    recent_weight: f64,
    recent_n: f64,
    recent_t: f64,
    /// b/(a + b), 0 to 1, once sizes have varied enough to see it.
    shape: Option<f64>,
    /// Variance of log(seconds / prediction), once there was one.
    scatter: Option<f64>,
}

impl CostModel {
    /// Adds a batch of `n` that took `seconds`, while nothing else runs.
    pub fn warm(&mut self, n: usize, seconds: f64) {
        self.add(n, seconds);
        self.shape = self.regression().or(self.shape);
    }

    /// Adds a batch of `n` that took `seconds`.
    pub fn observe(&mut self, n: usize, seconds: f64) {
        self.add_scatter(n, seconds);
        self.add(n, seconds);
        if let Some(seen) = self.regression() {
            let shape = self.shape.unwrap_or(seen);
            self.shape = Some(shape + LEARNING * (seen - shape));
        }
    }

    /// Lets the height follow what a batch of `n` would have taken, by what it took in another way.
    pub fn follow(&mut self, n: usize, seconds: f64) {
        self.add(n, seconds);
    }

    fn add(&mut self, n: usize, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 || n == 0 {
            return;
        }
        let n = n as f64;
        for sum in [
            &mut self.weight,
            &mut self.sum_n,
            &mut self.sum_t,
            &mut self.sum_nn,
            &mut self.sum_nt,
        ] {
            *sum *= MEMORY;
        }
        for sum in [
            &mut self.recent_weight,
            &mut self.recent_n,
            &mut self.recent_t,
        ] {
            *sum *= RECENT;
        }
        self.recent_weight += 1.0;
        self.recent_n += n;
        self.recent_t += seconds;
        self.weight += 1.0;
        self.sum_n += n;
        self.sum_t += seconds;
        self.sum_nn += n * n;
        self.sum_nt += n * seconds;
    }

    fn add_scatter(&mut self, n: usize, seconds: f64) {
        let Some(predicted) = self.predict(n).filter(|predicted| *predicted > 0.0) else {
            return;
        };
        // One batch that was suspended says little about the others.
        let off = (seconds / predicted).ln().abs().min(MOST_MARGIN.ln());
        if off.is_finite() {
            let before = self.scatter.unwrap_or_else(first_scatter);
            self.scatter = Some(SCATTER_MEMORY * before + (1.0 - SCATTER_MEMORY) * off * off);
        }
    }

    /// How much longer than predicted something may take and still be in time: a
    /// factor, 1 or more, by how much durations have scattered of late.
    pub fn margin(&self) -> f64 {
        let deviation = self.scatter.unwrap_or_else(first_scatter).sqrt();
        (MARGIN_DEVIATIONS * deviation).exp().min(MOST_MARGIN)
    }

    /// The shape of the line through the observations, where their sizes vary
    /// enough.
    fn regression(&self) -> Option<f64> {
        if self.weight <= 0.0 {
            return None;
        }
        let mean_n = self.sum_n / self.weight;
        let mean_t = self.sum_t / self.weight;
        let variance = self.sum_nn / self.weight - mean_n * mean_n;
        let covariance = self.sum_nt / self.weight - mean_n * mean_t;
        if variance <= (SPREAD * mean_n).powi(2) {
            return None;
        }
        let slope = (covariance / variance).clamp(0.0, mean_t / mean_n);
        let own = (mean_t - slope * mean_n).max(0.0);
        Some(own / (slope + own))
    }

    /// (a, b): seconds per picture and per batch, neither negative; none before
    /// the first observation.
    pub fn line(&self) -> Option<(f64, f64)> {
        if self.weight <= 0.0 {
            return None;
        }
        // If only one batch size was ever seen, everything counts as cost per
        // picture, which errs towards small batches.
        let shape = self.shape.unwrap_or(0.0);
        let one = self.recent_t / ((1.0 - shape) * self.recent_n + shape * self.recent_weight);
        Some(((1.0 - shape) * one, shape * one))
    }

    /// Seconds that a batch of `n` takes.
    pub fn predict(&self, n: usize) -> Option<f64> {
        let (a, b) = self.line()?;
        Some(a * n as f64 + b)
    }

    /// Pictures per second at batches of `n`.
    pub fn throughput(&self, n: usize) -> Option<f64> {
        let seconds = self.predict(n)?;
        (seconds > 0.0).then(|| n as f64 / seconds)
    }

    /// The smallest batch that has 99 % of the throughput of `most`: waiting
    /// for more than that costs latency and gains nothing.
    pub fn worthwhile(&self, most: usize) -> Option<usize> {
        let (a, b) = self.line()?;
        let most = most.max(1);
        let best = self.throughput(most)?;
        // n / (a·n + b) ≥ w·best  ⇔  n ≥ w·best·b / (1 − w·best·a)
        let slack = 1.0 - WORTHWHILE * best * a;
        if slack <= 0.0 {
            return Some(most);
        }
        let n = (WORTHWHILE * best * b / slack - 1e-9).ceil().max(1.0);
        Some((n as usize).clamp(1, most))
    }
}

/// The scatter of [`FIRST_MARGIN`].
fn first_scatter() -> f64 {
    (FIRST_MARGIN.ln() / MARGIN_DEVIATIONS).powi(2)
}

#[cfg(test)]
mod tests {
    use super::{CostModel, FIRST_MARGIN, MOST_MARGIN, WORTHWHILE};

    #[test]
    fn the_margin_follows_how_durations_scatter() {
        let mut cost = CostModel::default();
        cost.warm(1, 0.06);
        cost.warm(8, 0.13);
        assert!((cost.margin() - FIRST_MARGIN).abs() < 1e-12);
        let mut seen = |noise: f64| {
            for i in 0..400 {
                let factor = if i % 2 == 0 { 1.0 + noise } else { 1.0 - noise };
                cost.observe(8, 0.13 * factor);
            }
            cost.margin()
        };
        let (steady, noisy, wild) = (seen(0.01), seen(0.1), seen(0.9));
        assert!(steady < 1.05, "{steady}");
        assert!((1.2..1.3).contains(&noisy), "{noisy}");
        assert!(wild <= MOST_MARGIN, "{wild}");
        // One outlier among many does not matter much.
        let steady = seen(0.01);
        cost.observe(8, 1000.0);
        assert!(cost.margin() < 1.3 * steady, "{}", cost.margin());
    }

    #[test]
    fn a_line_is_found_again() {
        let mut cost = CostModel::default();
        for n in (1..=32).cycle().take(200) {
            cost.observe(n, 0.002 * n as f64 + 0.010);
        }
        let (a, b) = cost.line().unwrap();
        assert!(
            (a - 0.002).abs() < 1e-9 && (b - 0.010).abs() < 1e-8,
            "{a} {b}"
        );
        let n = cost.worthwhile(32).unwrap();
        let best = cost.throughput(32).unwrap();
        assert!(cost.throughput(n).unwrap() >= WORTHWHILE * best);
        assert!(n == 1 || cost.throughput(n - 1).unwrap() < WORTHWHILE * best);
    }

    #[test]
    fn one_batch_size_alone_is_enough_to_predict_with() {
        let mut cost = CostModel::default();
        assert!(cost.predict(4).is_none());
        cost.observe(8, 0.08);
        assert!((cost.predict(8).unwrap() - 0.08).abs() < 1e-12);
        assert_eq!(cost.worthwhile(32), Some(1));
    }

    #[test]
    fn a_drifting_machine_is_followed() {
        let mut cost = CostModel::default();
        for n in (1..=16).cycle().take(300) {
            cost.observe(n, 0.001 * n as f64 + 0.005);
        }
        for n in (1..=16).cycle().take(2000) {
            cost.observe(n, 0.003 * n as f64 + 0.005);
        }
        let (a, _) = cost.line().unwrap();
        assert!((a - 0.003).abs() < 1e-5, "{a}");
    }

    #[test]
    fn a_steady_load_does_not_unlearn_what_a_batch_costs() {
        let mut cost = CostModel::default();
        for n in [1, 1, 2, 2, 4, 4] {
            cost.warm(n, 0.050 * n as f64 + 0.030);
        }
        let chosen = cost.worthwhile(32).unwrap();
        assert!(chosen > 4, "{chosen}");
        // The noise is a tenth, and the machine half as fast.
        for i in 0..2000 {
            let n = cost.worthwhile(32).unwrap();
            let noise = if i % 2 == 0 { 1.1 } else { 0.9 };
            cost.observe(n, 2.0 * noise * (0.050 * n as f64 + 0.030));
        }
        let n = cost.worthwhile(32).unwrap();
        assert!(4 * n >= 3 * chosen && n <= chosen + 2, "{n}, not {chosen}");
        let (a, _) = cost.line().unwrap();
        assert!((a - 0.100).abs() < 0.02, "{a}");
    }

    #[test]
    fn durations_that_do_not_grow_ask_for_the_largest_batch() {
        let mut cost = CostModel::default();
        for n in [1, 2, 4, 8] {
            cost.warm(n, 0.010 - 0.000_1 * n as f64);
        }
        assert_eq!(cost.worthwhile(32), Some(32));
        let seconds = cost.predict(32).unwrap();
        assert!(seconds > 0.009 && seconds < 0.011, "{seconds}");
    }
}
