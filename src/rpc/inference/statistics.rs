//! `ModelStatistics`: what this service's requests have cost, by version.
//!
//! Held for a bounded number of versions, those asked for last; one that was
//! dropped begins again at 0, as a model does that Triton unloads.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tonic::Response;

use super::{answer_size::AnswerSize, model};
use crate::{
    auth::Caller,
    rpc::{Context, error::ApiError},
};
use tipserve_api::inference::{self as v2, InferStatistics, StatisticDuration};
use tipserve_engine::{JobOutput, StageTimes};
use tipserve_store::{CacheId, VersionNumber, VersionSelector};

/// Versions whose statistics are held: some hundred bytes each.
const HELD: usize = 16_384;

/// Statistics of the versions asked for last.
pub struct Statistics(Cache<(CacheId, VersionNumber), Arc<Entry>>);

impl Default for Statistics {
    fn default() -> Self {
        Statistics(Cache::new(HELD))
    }
}

impl Statistics {
    /// The entry of a version, made if it has none.
    pub fn entry(&self, cache: &CacheId, version: VersionNumber) -> Arc<Entry> {
        let key = (cache.clone(), version);
        let made: Result<_, std::convert::Infallible> =
            self.0.get_or_insert_with(&key, || Ok(Arc::default()));
        match made {
            Ok(entry) => entry,
            Err(never) => match never {},
        }
    }
}

/// What one version's requests have cost.
#[derive(Default)]
pub struct Entry(Mutex<Totals>);

#[derive(Clone, Copy, Default)]
struct Totals {
    last_inference: u64,
    elements: u64,
    /// In shares of a batch.
    executions: f64,
    success: Spent,
    fail: Spent,
    queue: Spent,
    input: Spent,
    infer: Spent,
    output: Spent,
}

/// How often, and how long in all.
#[derive(Clone, Copy, Default)]
struct Spent {
    count: u64,
    time: Duration,
}

impl Spent {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

impl From<Spent> for StatisticDuration {
    fn from(spent: Spent) -> StatisticDuration {
        StatisticDuration {
            count: spent.count,
            ns: u64::try_from(spent.time.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl Entry {
    /// A request was answered. Its stages are those of its slowest element:
    /// that is the one it waited for.
    pub fn answered(&self, outcomes: &[JobOutput], took: Duration) {
        let shares: f64 = outcomes
            .iter()
            .map(|outcome| (outcome.times.batch_size.max(1) as f64).recip())
            .sum();
        let slowest = outcomes
            .iter()
            .map(|outcome| outcome.times)
            .max_by_key(|times| times.total)
            .unwrap_or_default();
        let StageTimes {
            decode_queue,
            decode,
            queue,
            encode,
            head,
            total,
            ..
        } = slowest;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut totals = self.0.lock();
        totals.last_inference = now
            .ok()
            .and_then(|now| u64::try_from(now.as_millis()).ok())
            .unwrap_or_default();
        totals.elements += outcomes.len() as u64;
        totals.executions += shares;
        totals.success.add(took);
        totals.queue.add(decode_queue + queue);
        totals.input.add(decode);
        totals.infer.add(encode + head);
        totals.output.add(took.saturating_sub(total));
    }

    /// Counts a request that failed after `took`.
    pub fn failed(&self, took: Duration) {
        self.0.lock().fail.add(took);
    }

    fn message(&self, cache: &CacheId, version: VersionNumber) -> v2::ModelStatistics {
        let totals = *self.0.lock();
        v2::ModelStatistics {
            name: cache.to_string(),
            version: version.to_string(),
            last_inference: totals.last_inference,
            inference_count: totals.elements,
            execution_count: totals.executions.ceil() as u64,
            inference_stats: Some(InferStatistics {
                success: Some(totals.success.into()),
                fail: Some(totals.fail.into()),
                queue: Some(totals.queue.into()),
                compute_input: Some(totals.input.into()),
                compute_infer: Some(totals.infer.into()),
                compute_output: Some(totals.output.into()),
                cache_hit: Some(StatisticDuration::default()),
                cache_miss: Some(StatisticDuration::default()),
            }),
            ..v2::ModelStatistics::default()
        }
    }
}

/// `ModelStatistics`: of one version, of all of a cache's, or, without a name,
/// of all that are held.
///
/// # Errors
/// A cache or version that is not there; an answer that takes more than a
/// message.
pub async fn serve(
    context: &Context,
    statistics: &Statistics,
    caller: &Caller,
    name: &str,
    version: &str,
) -> Result<Response<v2::ModelStatisticsResponse>, ApiError> {
    let mut keys: Vec<(CacheId, VersionNumber)> = Vec::new();
    if name.is_empty() {
        let all = statistics.0.iter().map(|(key, _)| key);
        keys.extend(all.filter(|(cache, _)| caller.sees(cache)));
        keys.sort_unstable();
    } else {
        let reference = model::reference(caller, name, version)?;
        let store = context.catalog.store();
        if version.is_empty() && reference.version == VersionSelector::Latest {
            let versions = store.versions(&reference.cache).await?;
            let oldest_first = versions.iter().rev();
            keys.extend(oldest_first.map(|version| (reference.cache.clone(), version.number)));
        } else {
            keys.push(store.resolve(&reference).await?);
        }
    }
    let none = Entry::default();
    let mut size = AnswerSize::new("ask for one model and version");
    let mut model_stats = Vec::with_capacity(keys.len());
    for (cache, version) in keys {
        let row = match statistics.0.get(&(cache.clone(), version)) {
            Some(entry) => entry.message(&cache, version),
            None => none.message(&cache, version),
        };
        size.add(&row)?;
        model_stats.push(row);
    }
    Ok(Response::new(v2::ModelStatisticsResponse { model_stats }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_whatever_is_asked_for() {
        let statistics = Statistics::default();
        let cache: CacheId = "birds".parse().expect("an id");
        for number in 1..=2 * HELD as u64 {
            let version = VersionNumber::new(number).expect("a number");
            statistics.entry(&cache, version).failed(Duration::ZERO);
        }
        assert!(statistics.0.len() <= HELD, "{}", statistics.0.len());
    }
}
