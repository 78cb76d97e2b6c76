//! What the server holds and saw.

use std::collections::BTreeMap;

use tipserve_api::v1 as pb;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the server holds and saw.
#[derive(Default)]
pub struct State {
    /// Versions of each cache, oldest first.
    pub caches: BTreeMap<String, Vec<pb::Version>>,
    pub aliases: BTreeMap<String, BTreeMap<String, i64>>,
    pub specs: Vec<pb::CacheSpec>,
    pub examples: Vec<pb::Example>,
    pub largest_message: usize,
    pub configs: Vec<pb::ClassifyStreamConfig>,
    pub fine_tunes: Vec<pb::FineTuneRequest>,
    pub cancelled: Vec<String>,
    pub additions: Vec<pb::AddExamplesSpec>,
    /// Filters of ListCaches and ListExamples.
    pub filters: Vec<String>,
    pub imports: Vec<(pb::ImportSpec, Vec<u8>)>,
    /// The newest version's number that each cache ever had.
    last: BTreeMap<String, i64>,
    /// How often each cache changed.
    changes: BTreeMap<String, u64>,
}

impl State {
    pub(super) fn add(
        &mut self,
        id: &str,
        classes: Vec<(String, i32)>,
        method: i32,
    ) -> pb::Version {
        let number = self.last.entry(id.to_owned()).or_default();
        *number += 1;
        let number = *number;
        self.changed(id);
        let method = if method <= 1 {
            pb::Method::TipAdapter as i32
        } else {
            method
        };
        let candidate = pb::Candidate {
            method,
            alpha: 1.17,
            beta: 5.5,
            accuracy: 0.875,
            cross_entropy: 0.4321,
            ..Default::default()
        };
        let skipped = pb::Candidate {
            method: pb::Method::Proker.into(),
            skipped: "M is over the bound".into(),
            ..Default::default()
        };
        let version = pb::Version {
            name: format!("caches/{id}/versions/{number}"),
            version: number,
            create_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            key_count: classes.iter().map(|(_, count)| i64::from(*count)).sum(),
            classes: classes
                .into_iter()
                .zip(0..)
                .map(|((display_name, example_count), index)| pb::ClassInfo {
                    threshold: None,
                    index,
                    display_name,
                    example_count,
                    validation_count: 0,
                })
                .collect(),
            width: 8,
            views: 1,
            bundle_fingerprint: "f00d".into(),
            size_bytes: 12345,
            encoder_dtype: "int8".into(),
            head: Some(pb::Head {
                method,
                alpha: 1.17,
                beta: 5.5,
                logit_scale: 100.0,
                class_balance: 1,
                temperature: 1.0,
                key_dtype: 1,
                selection: Some(pb::Selection {
                    source: pb::SelectionSource::LeaveOneOut.into(),
                    example_count: 48,
                    score: "accuracy, ties by cross-entropy".into(),
                    grid: "official, s_beta 7, s_alpha 3".into(),
                    candidates: vec![candidate, skipped],
                    reason: "it had the best leave-one-out accuracy".into(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let versions = self.caches.entry(id.to_owned()).or_default();
        versions.push(version.clone());
        version
    }

    pub(super) fn version(&self, name: &str) -> Result<&pb::Version, Status> {
        let name = name.strip_prefix("caches/").unwrap_or(name);
        let (id, wanted) = match name.split_once('@').or(name.split_once("/versions/")) {
            Some((id, wanted)) => (id, Some(wanted)),
            None => (name, None),
        };
        let versions = self.caches.get(id).ok_or_else(|| no_cache(id))?;
        let number = match wanted {
            None | Some("latest") => versions.last().map_or(0, |last| last.version),
            Some(wanted) => match wanted.parse() {
                Ok(number) => number,
                Err(_) => *self
                    .aliases
                    .get(id)
                    .and_then(|aliases| aliases.get(wanted))
                    .ok_or_else(|| Status::not_found(format!("{id} has no alias {wanted:?}")))?,
            },
        };
        versions
            .iter()
            .find(|version| version.version == number)
            .ok_or_else(|| Status::not_found(format!("{id} has no version {number}")))
    }

    pub(super) fn cache(&self, name: &str) -> Result<pb::Cache, Status> {
        let id = name.strip_prefix("caches/").unwrap_or(name);
        let versions = self.caches.get(id).ok_or_else(|| no_cache(id))?;
        Ok(pb::Cache {
            name: format!("caches/{id}"),
            create_time: versions.first().and_then(|first| first.create_time),
            latest: versions.last().cloned(),
            aliases: self
                .aliases
                .get(id)
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            version_count: versions.len() as i32,
            etag: self.etag(id),
        })
    }

    /// Another etag from now on.
    pub(super) fn changed(&mut self, id: &str) {
        *self.changes.entry(id.to_owned()).or_default() += 1;
    }

    fn etag(&self, id: &str) -> String {
        format!("e{}", self.changes.get(id).copied().unwrap_or(0))
    }

    /// Refuses a change on a condition that does not hold.
    pub(super) fn check(&self, id: &str, etag: &str) -> Result<(), Status> {
        let now = if self.caches.contains_key(id) {
            self.etag(id)
        } else {
            "new".to_owned()
        };
        if etag.is_empty() || etag == now {
            return Ok(());
        }
        let details = ErrorDetails::with_error_info("ETAG_MISMATCH", "tipserve", []);
        let text = format!("the cache {id:?} has changed: its etag is {now:?}, not {etag:?}");
        Err(Status::with_error_details(Code::Aborted, text, details))
    }
}

pub(super) fn no_cache(id: &str) -> Status {
    let details = ErrorDetails::with_error_info(
        "CACHE_NOT_FOUND",
        "tipserve",
        [("cache".to_owned(), id.to_owned())],
    );
    Status::with_error_details(Code::NotFound, format!("there is no cache {id:?}"), details)
}

/// Refuses what the command line must show with all its details.
pub(super) fn check_cache_id(cache_id: &str) -> Result<(), Status> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if cache_id.bytes().all(allowed) {
        return Ok(());
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(
        "CACHE_ID_INVALID",
        "tipserve",
        [("value".to_owned(), cache_id.to_owned())],
    );
    details.add_bad_request_violation("spec.cache_id", "must be of a-z, 0-9");
    details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
    Err(Status::with_error_details(
        Code::InvalidArgument,
        format!("{cache_id:?} is no cache id"),
        details,
    ))
}

pub(super) fn rejection(example: pb::Example, message: String) -> pb::RejectedExample {
    pb::RejectedExample {
        example_id: example.example_id,
        code: 3,
        message,
        reason: "PICTURE_UNDECODABLE".into(),
    }
}

/// Adds an example to the counts of its classes.
pub(super) fn count_labels(counts: &mut [i32], spec: &pb::CacheSpec, example: &pb::Example) {
    if spec.multi_label {
        for class in &example.class_indices {
            counts[*class as usize] += 1;
        }
    } else if !example.validation && !example.unknown {
        counts[example.class_index as usize] += 1;
    }
}
