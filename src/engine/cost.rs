//! How long a batch takes: duration = a·n + b, fitted online.

/// Weight that an observation keeps when the next one arrives.
const MEMORY: f64 = 0.98;
/// Share of the best throughput at which a batch is large enough.
const WORTHWHILE: f64 = 0.97;

/// A least-squares line through (batch size, seconds), older batches weighing
/// less.
#[derive(Clone, Debug, Default)]
pub struct CostModel {
    weight: f64,
    sum_n: f64,
    sum_t: f64,
    sum_nn: f64,
    sum_nt: f64,
}

impl CostModel {
    /// Adds a batch of `n` that took `seconds`.
    pub fn observe(&mut self, n: usize, seconds: f64) {
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
        self.weight += 1.0;
        self.sum_n += n;
        self.sum_t += seconds;
        self.sum_nn += n * n;
        self.sum_nt += n * seconds;
    }

    /// (a, b): seconds per picture and per batch; none before the first
    /// observation. Neither is negative.
    pub fn line(&self) -> Option<(f64, f64)> {
        if self.weight <= 0.0 {
            return None;
        }
        let mean_n = self.sum_n / self.weight;
        let mean_t = self.sum_t / self.weight;
        let variance = self.sum_nn / self.weight - mean_n * mean_n;
        let covariance = self.sum_nt / self.weight - mean_n * mean_t;
        // With one batch size only there is no slope to see: take it all as
        // cost per picture, which errs towards small batches.
        let slope = if variance > 1e-9 {
            (covariance / variance).clamp(0.0, mean_t / mean_n)
        } else {
            mean_t / mean_n
        };
        Some((slope, (mean_t - slope * mean_n).max(0.0)))
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

    /// The smallest batch that has 97 % of the throughput of `most`: waiting
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

#[cfg(test)]
mod tests {
    use super::CostModel;

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
        assert!(cost.throughput(n).unwrap() >= 0.97 * best);
        assert!(n == 1 || cost.throughput(n - 1).unwrap() < 0.97 * best);
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
        for n in (1..=16).cycle().take(600) {
            cost.observe(n, 0.003 * n as f64 + 0.005);
        }
        let (a, _) = cost.line().unwrap();
        assert!((a - 0.003).abs() < 1e-5, "{a}");
    }
}
