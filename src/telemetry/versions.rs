//! What is counted by version: series of their own for the versions that are
//! in use, a bounded number of them.
//!
//! The recorder keeps a series for as long as the process lives, which suits
//! labels from fixed sets. Versions come and go: after some months of nightly
//! retraining the one that serves would be one too many. So their figures are
//! kept here, where a version's can be dropped, and are written behind the
//! recorder's.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::LazyLock,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::names::{DRIFT, DRIFTS, RECOGNISED_BY_VERSION, RECOGNITION};

/// Versions with series of their own.
const MOST: usize = 64;

/// A version that was used within this time keeps its series, whoever else comes.
/// Otherwise more than [`MOST`] versions that are used in turn would take each
/// other's, and no count would ever grow.
const KEEP: Duration = Duration::from_secs(15 * 60);

/// The label of all other versions.
const OTHERS: &str = "other";

static SERIES: LazyLock<Mutex<VersionSeries>> = LazyLock::new(Mutex::default);

/// A version was asked something: it is in use. Called for every item, so it never
/// waits: the next item says the same.
pub fn version_asked(name: &str) {
    if let Some(mut series) = SERIES.try_lock() {
        series.touch(name, Instant::now());
    }
}

/// A version said whether it knows an item's class.
pub(super) fn recognised(name: &str, accepted: bool) {
    SERIES.lock().recognised(name, accepted, Instant::now());
}

/// How far what a version is asked is from its examples: stability indices of
/// the nearest examples' similarity and of the classes.
pub fn drift(name: &str, similarity: Option<f64>, classes: f64) {
    let mut series = SERIES.lock();
    series.drift(name, [similarity, Some(classes)], Instant::now());
}

/// Versions were deleted: their series end.
pub fn versions_deleted(is_deleted: impl Fn(&str) -> bool) {
    SERIES.lock().named.retain(|name, _| !is_deleted(name));
}

/// Adds the versions' series to a text for Prometheus.
pub(super) fn render(text: &mut String) {
    SERIES.lock().render(text);
}

/// The figures of one version.
struct Figures {
    used: Instant,
    /// As [`RECOGNITION`] has them.
    recognised: [u64; RECOGNITION.len()],
    /// As [`DRIFTS`] has them; `None` if not known yet.
    drift: [Option<f64>; DRIFTS.len()],
}

#[derive(Default)]
struct VersionSeries {
    /// By resource name.
    named: HashMap<String, Figures>,
    others: [u64; RECOGNITION.len()],
}

impl VersionSeries {
    fn touch(&mut self, name: &str, now: Instant) {
        if let Some(figures) = self.named.get_mut(name) {
            figures.used = now;
        }
    }

    fn recognised(&mut self, name: &str, accepted: bool, now: Instant) {
        let counts = match self.figures(name, now) {
            Some(figures) => &mut figures.recognised,
            None => &mut self.others,
        };
        let [yes, no] = counts;
        *(if accepted { yes } else { no }) += 1;
    }

    fn drift(&mut self, name: &str, indices: [Option<f64>; DRIFTS.len()], now: Instant) {
        if let Some(figures) = self.figures(name, now) {
            for (kept, index) in figures.drift.iter_mut().zip(indices) {
                *kept = index.or(*kept);
            }
        }
    }

    /// A version's figures, which are in use from now on. `None` if all places
    /// belong to versions that have been used of late.
    fn figures(&mut self, name: &str, now: Instant) -> Option<&mut Figures> {
        if !self.named.contains_key(name) {
            if self.named.len() >= MOST {
                self.free_a_place(now)?;
            }
            let none_yet = Figures {
                used: now,
                recognised: [0; RECOGNITION.len()],
                drift: [None; DRIFTS.len()],
            };
            self.named.insert(name.to_owned(), none_yet);
        }
        let figures = self.named.get_mut(name)?;
        figures.used = now;
        Some(figures)
    }

    /// Drops the version that has been unused longest, if that is long enough.
    /// What it counted does not go to the others, whose count would jump.
    fn free_a_place(&mut self, now: Instant) -> Option<()> {
        let (name, figures) = self.named.iter().min_by_key(|(_, figures)| figures.used)?;
        if now.saturating_duration_since(figures.used) < KEEP {
            return None;
        }
        let name = name.clone();
        self.named.remove(&name);
        Some(())
    }

    fn render(&self, text: &mut String) {
        let mut order: Vec<_> = (self.named.iter())
            .map(|(name, figures)| (label(name), figures))
            .collect();
        order.sort_by(|a, b| a.0.cmp(&b.0));
        let counts = (order.iter())
            .filter(|(_, figures)| figures.recognised.iter().any(|count| *count > 0))
            .map(|(version, figures)| (version.as_str(), figures.recognised))
            .chain([(OTHERS, self.others)]);
        head(
            text,
            RECOGNISED_BY_VERSION,
            "counter",
            "Items that a version recognised or rejected, by version: the 64 used last, the others together.",
        );
        for (version, counts) in counts {
            for (outcome, count) in RECOGNITION.into_iter().zip(counts) {
                line(text, RECOGNISED_BY_VERSION, version, "outcome", outcome);
                let _ = writeln!(text, "{count}");
            }
        }
        text.push('\n');
        head(
            text,
            DRIFT,
            "gauge",
            "How far what a version is asked is from its examples (population stability index), by version (the 64 used last) and by what: nearest examples' similarity, or classes.",
        );
        let indices = (order.iter())
            .map(|(version, figures)| (version.as_str(), figures.drift))
            .chain([(OTHERS, [Some(0.0); DRIFTS.len()])]);
        for (version, indices) in indices {
            for (of, index) in DRIFTS.into_iter().zip(indices) {
                if let Some(index) = index {
                    line(text, DRIFT, version, "of", of);
                    let _ = writeln!(text, "{index}");
                }
            }
        }
        text.push('\n');
    }
}

fn head(text: &mut String, metric: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
}

/// All but a line's value. Names of caches have nothing that would have to be
/// escaped.
fn line(text: &mut String, metric: &str, version: &str, key: &str, value: &str) {
    let _ = write!(text, "{metric}{{version=\"{version}\",{key}=\"{value}\"}} ");
}

/// The value of the label `version` of "caches/pets/versions/3": "pets@3".
fn label(name: &str) -> String {
    let rest = name.strip_prefix("caches/").unwrap_or(name);
    match rest.split_once("/versions/") {
        Some((cache, version)) => format!("{cache}@{version}"),
        None => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(version: usize) -> String {
        format!("caches/pets/versions/{version}")
    }

    fn rendered(series: &VersionSeries) -> String {
        let mut text = String::new();
        series.render(&mut text);
        text
    }

    fn drift_of(series: &VersionSeries, version: usize) -> bool {
        rendered(series).contains(&format!("{DRIFT}{{version=\"pets@{version}\","))
    }

    #[test]
    fn the_version_that_serves_has_its_series_after_any_number_of_retrainings() {
        let mut series = VersionSeries::default();
        let start = Instant::now();
        for day in 1..=1000 {
            let now = start + Duration::from_secs(24 * 3600) * u32::try_from(day).unwrap();
            series.drift(&name(day), [Some(0.5), 0.25.into()], now);
            assert!(drift_of(&series, day), "on day {day}");
            // Asked for all the time, though nothing is published for it again.
            series.touch(&name(1), now + Duration::from_secs(60));
        }
        assert_eq!(series.named.len(), MOST);
        assert!(drift_of(&series, 1) && drift_of(&series, 1000 - MOST + 2));
        assert!(!drift_of(&series, 2) && !drift_of(&series, 1000 - MOST + 1));
    }

    #[test]
    fn versions_in_use_do_not_take_each_others_series() {
        let mut series = VersionSeries::default();
        let start = Instant::now();
        for round in 0..100 {
            for version in 0..2 * MOST {
                let now = start + Duration::from_secs(60 * round);
                series.recognised(&name(version), version % 2 == 0, now);
            }
        }
        let text = rendered(&series);
        let first =
            format!(r#"{RECOGNISED_BY_VERSION}{{version="pets@0",outcome="accepted"}} 100"#);
        assert!(text.contains(&first), "{text}");
        let others =
            format!(r#"{RECOGNISED_BY_VERSION}{{version="other",outcome="rejected"}} 3200"#);
        assert!(text.contains(&others), "{text}");
        // Once the first has rested long enough, a newcomer takes its place.
        let late = start + Duration::from_secs(60 * 99) + KEEP;
        for version in 1..MOST {
            series.touch(&name(version), late);
        }
        series.recognised(&name(MOST), true, late);
        assert!(!series.named.contains_key(&name(0)) && series.named.contains_key(&name(MOST)));
    }

    #[test]
    fn what_is_not_known_again_stays_as_it_was() {
        let mut series = VersionSeries::default();
        let now = Instant::now();
        series.drift(&name(3), [Some(0.5), Some(0.25)], now);
        series.drift(&name(3), [None, Some(0.125)], now);
        let text = rendered(&series);
        for expected in [
            r#"{version="pets@3",of="similarity"} 0.5"#,
            r#"{version="pets@3",of="classes"} 0.125"#,
            r#"{version="other",of="classes"} 0"#,
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), 2);
        let counted = format!(r#"{RECOGNISED_BY_VERSION}{{version="pets@3""#);
        assert!(!text.contains(&counted), "nothing was to be recognised");
    }
}
