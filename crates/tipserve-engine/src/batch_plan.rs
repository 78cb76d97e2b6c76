//! Deadline-aware batch sizing: which of the waiting jobs are the next batch.

use crate::cost::CostModel;

/// A job is given up only for others whose own limits exceed its limit by at
/// most this factor: a caller that asks for an early answer is not pushed aside
/// by those who can wait.
const SIMILAR: f64 = 1.25;

/// A job's deadline, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Deadline {
    /// Seconds from now until it passes; negative once it has.
    pub left: f64,
    /// All the time that it allowed, from its arrival.
    pub allowed: f64,
}

/// What to do with jobs that wait, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchPlan {
    /// Jobs at the head of the queue that are answered as too late.
    pub lost: usize,
    /// Jobs after those that form the batch; at least one.
    pub size: usize,
}

/// The next batch of `waiting`, which are sorted by what they have left, those
/// without a deadline last; none if nothing waits.
///
/// A batch has as many jobs as its most urgent one has time for. One that
/// would be late even alone is lost, unless nothing else waits: an engine
/// that runs nothing never learns that the machine has become faster.
///
/// While the engine is `overloaded` every second of a worker would be filled by
/// others. Then the batch is the one that is worth most: with n jobs in time,
/// and T(n) seconds, n − T(n)·(jobs a second at the best size). An urgent job
/// that would shrink a large batch to a small one is given up if that saves
/// several of its kind from being refused. Of plans of equal value the one that
/// loses fewest is taken.
pub(super) fn plan_batch(
    waiting: &[Option<Deadline>],
    cost: &CostModel,
    most: usize,
    overloaded: bool,
) -> Option<BatchPlan> {
    let count = waiting.len();
    let margin = cost.margin();
    // A larger batch never takes less time.
    let ends: Vec<f64> = (1..=count)
        .map(|n| cost.predict(n).unwrap_or(0.0) * margin)
        .collect();
    let in_time = |left: f64, most: usize| {
        let size = ends.partition_point(|end| *end <= left).min(most);
        (size > 0).then_some(size)
    };
    let full = cost.worthwhile(most).and_then(|n| cost.throughput(n));
    let value = |n: usize| {
        let seconds = cost.predict(n).unwrap_or(0.0);
        n as f64 - seconds * full.unwrap_or(0.0)
    };
    let timed = waiting.iter().flatten().count();

    let mut best: Option<(f64, BatchPlan)> = None;
    // The shortest limit among those that would be given up.
    let mut given_up = f64::INFINITY;
    for (lost, job) in waiting.iter().enumerate() {
        let Some(deadline) = job else {
            // No job is given up for those without a deadline.
            let rest = BatchPlan {
                lost,
                size: count - lost,
            };
            return Some(best.map_or(rest, |(_, plan)| plan));
        };
        if let Some(size) = in_time(deadline.left, count - lost) {
            if deadline.allowed > SIMILAR * given_up {
                break;
            }
            let worth = value(size.min(timed - lost));
            if best.is_none_or(|(most, _)| worth > most + 1e-9) {
                best = Some((worth, BatchPlan { lost, size }));
            }
            if !overloaded {
                break;
            }
            given_up = given_up.min(deadline.allowed);
        }
    }
    let last = count.checked_sub(1)?;
    Some(best.map_or(
        BatchPlan {
            lost: last,
            size: 1,
        },
        |(_, plan)| plan,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 ms a picture and 50 ms a batch.
    fn cost() -> CostModel {
        let mut cost = CostModel::default();
        for n in (1..=32).cycle().take(320) {
            cost.warm(n, 0.010 * n as f64 + 0.050);
        }
        cost
    }

    fn all(left: &[f64]) -> Vec<Option<Deadline>> {
        left.iter()
            .map(|&left| Some(Deadline { left, allowed: 1.0 }))
            .collect()
    }

    fn next(waiting: &[Option<Deadline>], overloaded: bool) -> (usize, usize) {
        let plan = plan_batch(waiting, &cost(), 32, overloaded).expect("something waits");
        (plan.lost, plan.size)
    }

    #[test]
    fn nothing_waits() {
        assert_eq!(plan_batch(&[], &cost(), 32, true), None);
    }

    #[test]
    fn a_batch_is_in_time_for_its_most_urgent() {
        // 1.15 · (0.05 + 0.01 n) ≤ 0.1: 3.
        assert_eq!(next(&all(&[0.1; 20]), false), (0, 3));
        assert_eq!(next(&all(&[0.9; 20]), false), (0, 20));
    }

    #[test]
    fn one_that_would_be_late_alone_is_lost_but_not_the_last() {
        assert_eq!(next(&all(&[0.01, 0.02, 0.9]), false), (2, 1));
        assert_eq!(next(&all(&[0.01, 0.02]), false), (1, 1));
        assert_eq!(next(&all(&[0.01, 0.02]), true), (1, 1));
    }

    #[test]
    fn overload_only_then_does_the_engine_give_up_one_for_many() {
        let mut left = vec![0.9; 20];
        left[0] = 0.08;
        assert_eq!(next(&all(&left), false), (0, 1));
        assert_eq!(next(&all(&left), true), (1, 19));
        // Not for one other.
        assert_eq!(next(&all(&left[..2]), true), (0, 1));
    }

    #[test]
    fn who_asks_for_an_early_answer_is_not_given_up_for_those_who_can_wait() {
        let mut waiting = all(&[0.9; 20]);
        waiting[0] = Some(Deadline {
            left: 0.08,
            allowed: 0.1,
        });
        assert_eq!(next(&waiting, true), (0, 1));
        // Without a deadline they fill the batch, and count for nothing.
        let mut waiting = vec![None; 20];
        waiting[0] = all(&[0.2])[0];
        assert_eq!(next(&waiting, true), (0, 12));
        waiting[0] = all(&[0.01])[0];
        assert_eq!(next(&waiting, true), (1, 19));
    }

    #[test]
    fn before_the_first_batch_all_go() {
        let plan = plan_batch(&all(&[0.1; 5]), &CostModel::default(), 32, true);
        assert_eq!(plan, Some(BatchPlan { lost: 0, size: 5 }));
    }
}
