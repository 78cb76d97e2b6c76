//! How fast one token may call, and how much at once.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use serde::Deserialize;

use super::AuthError;

/// Limits of one token as its entry says; absent: none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RateSettings {
    /// Calls a second, on average.
    pub requests_per_second: Option<f64>,
    /// Calls at once. Default: one second's.
    pub requests_burst: Option<u32>,
    /// Items (pictures, embeddings, texts) a second, on average.
    pub items_per_second: Option<f64>,
    /// Items at once. Default: one second's.
    pub items_burst: Option<u32>,
    /// Calls under way, unary ones included.
    pub max_streams: Option<usize>,
}

/// A token bucket (GCRA) for one limit of one token.
struct Bucket {
    limiter: DefaultDirectRateLimiter,
    name: &'static str,
    rate: f64,
    burst: u32,
}

/// What one token has used, shared by all its calls.
pub struct Rates {
    settings: RateSettings,
    requests: Option<Bucket>,
    items: Option<Bucket>,
    streams: Arc<AtomicUsize>,
}

/// One call under way; given back when dropped.
#[derive(Debug)]
pub struct StreamPlace(Arc<AtomicUsize>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StreamPlace {
    /// A place among `maximum`, if there is one.
    pub fn take(count: &Arc<AtomicUsize>, maximum: usize) -> Option<StreamPlace> {
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < maximum).then_some(now + 1)
        });
        taken.ok().map(|_| StreamPlace(Arc::clone(count)))
    }
}

/// The slowest and fastest rates that can be counted.
const RATES: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

impl Bucket {
    fn new(
        name: &'static str,
        rate: Option<f64>,
        burst_name: &str,
        burst: Option<u32>,
    ) -> Result<Option<Bucket>, String> {
        let Some(rate) = rate else {
            return match burst {
                Some(_) => Err(format!("{burst_name} needs {name}")),
                None => Ok(None),
            };
        };
        if !RATES.contains(&rate) {
            return Err(format!(
                "{name} = {rate} is not in 0.000001 to 1,000,000,000"
            ));
        }
        let burst = burst.unwrap_or(rate.ceil().clamp(1.0, f64::from(u32::MAX)) as u32);
        let most = NonZeroU32::new(burst)
            .ok_or_else(|| format!("{burst_name} = 0 lets nothing through"))?;
        let quota = Quota::with_period(Duration::from_secs_f64(rate.recip()))
            .ok_or_else(|| format!("{name} = {rate} is too fast to count"))?
            .allow_burst(most);
        Ok(Some(Bucket {
            limiter: RateLimiter::direct(quota),
            name,
            rate,
            burst,
        }))
    }

    fn take(&self, token: &str, count: NonZeroU32) -> Result<(), AuthError> {
        match self.limiter.check_n(count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(AuthError::Rate {
                name: token.to_owned(),
                limit: self.name,
                maximum: self.rate,
                wait: not_until.wait_time_from(self.limiter.clock().now()),
            }),
            Err(_) => Err(AuthError::Burst {
                name: token.to_owned(),
                burst: self.burst,
                asked: count.get().into(),
            }),
        }
    }
}

impl Rates {
    /// A token that has used nothing yet.
    ///
    /// # Errors
    /// A limit that cannot be, in words.
    pub fn new(settings: RateSettings) -> Result<Rates, String> {
        if settings.max_streams == Some(0) {
            return Err("max_streams = 0 lets nothing through".to_owned());
        }
        Ok(Rates {
            requests: Bucket::new(
                "requests_per_second",
                settings.requests_per_second,
                "requests_burst",
                settings.requests_burst,
            )?,
            items: Bucket::new(
                "items_per_second",
                settings.items_per_second,
                "items_burst",
                settings.items_burst,
            )?,
            streams: Arc::default(),
            settings,
        })
    }

    /// The limits that it was made with.
    pub fn settings(&self) -> &RateSettings {
        &self.settings
    }

    /// Counts a call that begins; `default` bounds the calls in progress if the
    /// token's entry does not.
    ///
    /// # Errors
    /// [`AuthError::Rate`] or [`AuthError::TokenStreams`].
    pub fn begin(&self, token: &str, default: usize) -> Result<StreamPlace, AuthError> {
        let maximum = self.settings.max_streams.unwrap_or(default);
        let place =
            StreamPlace::take(&self.streams, maximum).ok_or_else(|| AuthError::TokenStreams {
                name: token.to_owned(),
                maximum,
            })?;
        if let Some(requests) = &self.requests {
            requests.take(token, NonZeroU32::MIN)?;
        }
        Ok(place)
    }

    /// Counts items.
    ///
    /// # Errors
    /// [`AuthError::Rate`], or [`AuthError::Burst`] if `count` at once is more
    /// than the limit ever allows.
    pub fn items(&self, token: &str, count: usize) -> Result<(), AuthError> {
        let (Some(items), Some(n)) = (&self.items, u32::try_from(count).ok()) else {
            return match &self.items {
                None => Ok(()),
                Some(items) => Err(AuthError::Burst {
                    name: token.to_owned(),
                    burst: items.burst,
                    asked: count as u64,
                }),
            };
        };
        match NonZeroU32::new(n) {
            None => Ok(()),
            Some(n) => items.take(token, n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refills in eleven days: no test waits for it.
    const SLOW: f64 = 1e-6;

    fn rates(text: &str) -> Result<Rates, String> {
        Rates::new(toml::from_str(text).expect("TOML"))
    }

    #[test]
    fn calls_are_let_through_up_to_the_burst() {
        let rates =
            rates(&format!("requests_per_second = {SLOW}\nrequests_burst = 2")).expect("valid");
        for _ in 0..2 {
            rates.begin("t", 9).expect("let through");
        }
        match rates.begin("t", 9).expect_err("refused") {
            AuthError::Rate {
                name, limit, wait, ..
            } => {
                assert_eq!((name.as_str(), limit), ("t", "requests_per_second"));
                assert!(wait > Duration::from_secs(3600));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn items_count_each_and_too_many_at_once_are_said_so() {
        let rates = rates(&format!("items_per_second = {SLOW}\nitems_burst = 5")).expect("valid");
        rates.items("t", 0).expect("nothing");
        rates.items("t", 3).expect("let through");
        assert!(matches!(rates.items("t", 3), Err(AuthError::Rate { .. })));
        rates.items("t", 2).expect("let through");
        assert!(matches!(
            rates.items("t", 6),
            Err(AuthError::Burst {
                burst: 5,
                asked: 6,
                ..
            })
        ));
        rates.begin("t", 9).expect("calls are not items");
    }

    #[test]
    fn a_place_is_given_back() {
        let rates = rates("max_streams = 2").expect("valid");
        let first = rates.begin("t", 9).expect("let through");
        let _second = rates.begin("t", 9).expect("let through");
        assert!(matches!(
            rates.begin("t", 9),
            Err(AuthError::TokenStreams { maximum: 2, .. })
        ));
        drop(first);
        rates.begin("t", 9).expect("let through");
    }

    #[test]
    fn a_token_without_a_limit_has_the_default() {
        let rates = rates("").expect("valid");
        let _place = rates.begin("t", 1).expect("let through");
        assert!(matches!(
            rates.begin("t", 1),
            Err(AuthError::TokenStreams { maximum: 1, .. })
        ));
    }

    #[test]
    fn limits_that_cannot_be_are_named() {
        for (text, words) in [
            ("requests_per_second = 0.0", "requests_per_second = 0"),
            ("items_per_second = -1.0", "items_per_second = -1"),
            ("items_burst = 3", "needs items_per_second"),
            ("items_per_second = 1.0\nitems_burst = 0", "items_burst = 0"),
            ("max_streams = 0", "max_streams = 0"),
        ] {
            let Err(error) = rates(text) else {
                panic!("{text} was taken")
            };
            assert!(error.contains(words), "{error}");
        }
    }
}
