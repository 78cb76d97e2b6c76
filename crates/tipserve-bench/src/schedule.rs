//! When items arrive, and where each goes: functions of the seed alone.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Arrivals of a Poisson process: gaps are independent and exponential with
/// mean 1/rate. Each value is the time since the start.
#[derive(Clone, Debug)]
pub struct Poisson {
    rng: ChaCha8Rng,
    rate: f64,
    seconds: f64,
}

impl Poisson {
    /// Poisson arrivals with a mean of `rate` per second, the same for the same
    /// seed.
    pub fn new(seed: u64, rate: f64) -> Self {
        Self {
            rng: stream(seed, 0),
            rate,
            seconds: 0.0,
        }
    }
}

impl Iterator for Poisson {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 - u is never 0.
        let u: f64 = self.rng.random();
        self.seconds -= (1.0 - u).ln() / self.rate;
        Duration::try_from_secs_f64(self.seconds).ok()
    }
}

/// Where an item goes and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Which stream, or cache where calls are unary.
    pub target: usize,
    /// Index of the input to send.
    pub input: usize,
}

/// Draws targets at random; inputs come in turn.
#[derive(Clone, Debug)]
pub struct Draws {
    rng: ChaCha8Rng,
    targets: usize,
    inputs: usize,
    next: usize,
}

impl Draws {
    /// Draws over this many targets and inputs, at least one of each.
    pub fn new(seed: u64, targets: usize, inputs: usize) -> Self {
        Self {
            rng: stream(seed, 1),
            targets: targets.max(1),
            inputs: inputs.max(1),
            next: 0,
        }
    }

    /// Draws the input and cache of the next item.
    pub fn draw(&mut self) -> Draw {
        let input = self.next;
        self.next = (self.next + 1) % self.inputs;
        let target = match self.targets {
            1 => 0,
            targets => self.rng.random_range(0..targets),
        };
        Draw { target, input }
    }
}

/// A generator for each purpose, so that one does not move the other.
pub fn stream(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_with_the_rate_s_mean() {
        let seed = rand::random();
        let (rate, count) = (250.0, 100_000);
        let at: Vec<f64> = Poisson::new(seed, rate)
            .take(count)
            .map(|at| at.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = std::iter::once(at[0])
            .chain(at.windows(2).map(|pair| pair[1] - pair[0]))
            .collect();
        let mean = gaps.iter().sum::<f64>() / count as f64;
        let square = gaps.iter().map(|gap| gap * gap).sum::<f64>() / count as f64;
        // An exponential's second moment is twice its mean's square; both
        // bounds are over six standard deviations wide.
        assert!((mean * rate - 1.0).abs() < 0.02, "seed {seed}: {mean}");
        let moment = square / (mean * mean);
        assert!((moment - 2.0).abs() < 0.15, "seed {seed}: {moment}");
        // Memoryless: a share of exp(-1) of the gaps is longer than the mean.
        let long = gaps.iter().filter(|gap| **gap * rate > 1.0).count() as f64 / count as f64;
        assert!((long - (-1f64).exp()).abs() < 0.01, "seed {seed}: {long}");
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let some = |seed| Poisson::new(seed, 10.0).take(50).collect::<Vec<_>>();
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
        let mut draws = (Draws::new(3, 10, 4), Draws::new(3, 10, 4));
        for _ in 0..50 {
            assert_eq!(draws.0.draw(), draws.1.draw());
        }
    }

    #[test]
    fn every_target_gets_its_share_and_inputs_come_in_turn() {
        let seed = rand::random();
        let (targets, inputs, count) = (20, 7, 40_000);
        let mut draws = Draws::new(seed, targets, inputs);
        let mut seen = vec![0_u32; targets];
        for i in 0..count {
            let draw = draws.draw();
            assert_eq!(draw.input, i % inputs);
            seen[draw.target] += 1;
        }
        let fair = count as f64 / targets as f64;
        for times in seen {
            let off = (f64::from(times) - fair).abs() / fair;
            assert!(off < 0.2, "seed {seed}: {times} of {fair}");
        }
    }
}
