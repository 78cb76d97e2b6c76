//! Checking what clients send, before anything is done with it.

use std::time::{Duration, Instant};

use http::HeaderMap;
use thiserror::Error;
use tonic::metadata::MetadataMap;

use crate::catalog::{MAX_ID_BYTES, printable};
use tipserve_api::v1::{self as pb, input};
use tipserve_clip::ExifOrientation;
use tipserve_engine::{Content, Crop, Priority, Source};

/// A request that cannot be served as it is.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RequestError {
    /// A field that must be set is not.
    #[error("{field} is missing")]
    Missing {
        /// The field's path in the request.
        field: String,
    },
    /// A field has a value that it cannot have.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's path in the request.
        field: String,
        /// What is wrong, with the value and what it may be.
        problem: String,
    },
    /// A limit of the server is exceeded.
    #[error("{field} is {value}, over the server's limit {limit} = {maximum}")]
    TooMuch {
        /// The field's path in the request.
        field: String,
        /// The limit's name, as GetServerInfo has it.
        limit: &'static str,
        /// The limit's value, in its own unit.
        maximum: u64,
        /// The value that was sent, in the same unit.
        value: u64,
    },
    /// Messages in the wrong order.
    #[error("{problem}")]
    Order {
        /// Which message was expected, in words.
        problem: &'static str,
    },
    /// It would be answered only after its deadline.
    #[error(
        "it would be answered in {:.3} s, but its time limit leaves {:.3} s",
        wait.as_secs_f64(),
        left.as_secs_f64()
    )]
    TooLate {
        /// The wait that admission predicts.
        wait: Duration,
        /// Time left until the deadline.
        left: Duration,
    },
    /// The call's deadline has passed.
    #[error("the call's deadline has passed")]
    DeadlineExceeded,
    /// A part of a protocol that this server does not offer.
    #[error("{what} is not offered: {instead}")]
    NotOffered {
        /// What the request asks for.
        what: &'static str,
        /// What to do instead, or why.
        instead: &'static str,
    },
}

impl RequestError {
    /// A field that must be set is not.
    pub fn missing(field: impl ToString) -> RequestError {
        RequestError::Missing {
            field: field.to_string(),
        }
    }

    /// A field has a value that it cannot have.
    pub fn invalid(field: impl ToString, problem: impl ToString) -> RequestError {
        RequestError::Invalid {
            field: field.to_string(),
            problem: problem.to_string(),
        }
    }

    /// An error if a limit is exceeded.
    ///
    /// # Errors
    /// [`RequestError::TooMuch`] where `value` is over `maximum`.
    pub fn check(
        field: &str,
        limit: &'static str,
        maximum: usize,
        value: usize,
    ) -> Result<(), RequestError> {
        if value <= maximum {
            return Ok(());
        }
        Err(RequestError::TooMuch {
            field: field.to_owned(),
            limit,
            maximum: maximum as u64,
            value: value as u64,
        })
    }
}

/// The call's deadline from its `grpc-timeout`.
pub fn deadline(metadata: &MetadataMap, now: Instant) -> Option<Instant> {
    deadline_in(metadata.as_ref(), now)
}

/// The same, from a request's headers.
pub fn deadline_in(headers: &HeaderMap, now: Instant) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most eight digits, says the gRPC specification.
    let amount: u64 = digits.parse().ok().filter(|n| *n < 100_000_000)?;
    let left = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    now.checked_add(left)
}

/// Sleeps until the deadline; for ever if there is none.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Class indices, ascending and without duplicates.
///
/// # Errors
/// One that is not below `count`.
pub fn class_indices(
    field: &str,
    indices: &[i32],
    count: usize,
) -> Result<Vec<usize>, RequestError> {
    let mut classes = Vec::with_capacity(indices.len().min(count));
    for index in indices {
        let class = usize::try_from(*index).ok().filter(|class| *class < count);
        classes.push(class.ok_or_else(|| {
            RequestError::invalid(field, format!("{index} is not in 0..{count}"))
        })?);
    }
    classes.sort_unstable();
    classes.dedup();
    Ok(classes)
}

/// An item's own deadline: its time limit from now, but never after the
/// call's.
///
/// # Errors
/// A time limit that is negative or malformed.
pub fn item_deadline(
    limit: Option<prost_types::Duration>,
    call: Option<Instant>,
    now: Instant,
) -> Result<Option<Instant>, RequestError> {
    let own = match limit {
        None => None,
        Some(limit) => {
            let duration = Duration::try_from(limit).map_err(|_| {
                RequestError::invalid(
                    "time_limit",
                    format!(
                        "{}.{:09} s is not a positive duration",
                        limit.seconds, limit.nanos
                    ),
                )
            })?;
            now.checked_add(duration)
        }
    };
    Ok(match (own, call) {
        (Some(own), Some(call)) => Some(own.min(call)),
        (own, call) => own.or(call),
    })
}

/// The priority that a client asked for.
///
/// # Errors
/// An unknown value.
pub fn priority(value: i32) -> Result<Priority, RequestError> {
    match pb::Priority::try_from(value) {
        Ok(pb::Priority::Unspecified | pb::Priority::Interactive) => Ok(Priority::Interactive),
        Ok(pb::Priority::Bulk) => Ok(Priority::Bulk),
        Err(_) => Err(RequestError::invalid(
            "priority",
            format!("{value} is not a Priority"),
        )),
    }
}

/// What a client wants done with EXIF orientation: by default it is applied.
///
/// # Errors
/// An unknown value.
pub fn exif_orientation(field: &str, value: i32) -> Result<ExifOrientation, RequestError> {
    match pb::ExifOrientation::try_from(value) {
        Ok(pb::ExifOrientation::Unspecified | pb::ExifOrientation::Apply) => {
            Ok(ExifOrientation::Apply)
        }
        Ok(pb::ExifOrientation::Ignore) => Ok(ExifOrientation::Ignore),
        Err(_) => Err(RequestError::invalid(
            field,
            format!("{value} is not an ExifOrientation"),
        )),
    }
}

/// A client's input as content for the engine.
///
/// # Errors
/// If nothing is set, or an embedding is not a direction of `width`.
pub fn content(
    sent: Option<pb::Input>,
    crop: Crop,
    width: usize,
    exif_orientation: ExifOrientation,
) -> Result<Content, RequestError> {
    let sent = sent
        .and_then(|sent| sent.content)
        .ok_or_else(|| RequestError::missing("input"))?;
    Ok(match sent {
        input::Content::EncodedImage(bytes) => Content::Picture {
            source: Source::File {
                bytes,
                exif_orientation,
            },
            crop,
        },
        input::Content::RawRgb(raw) => Content::Picture {
            source: Source::Rgb {
                width: raw.width,
                height: raw.height,
                data: raw.data,
            },
            crop,
        },
        input::Content::Embedding(embedding) => {
            Content::Embedding(unit("input.embedding", embedding.values, width)?)
        }
    })
}

/// A unit vector of `width`.
///
/// # Errors
/// If the width differs, a value is not finite, or all are zero.
pub fn unit(field: &str, mut values: Vec<f32>, width: usize) -> Result<Vec<f32>, RequestError> {
    if values.len() != width {
        return Err(RequestError::invalid(
            field,
            format!(
                "it has {} values, the bundle's width is {width}",
                values.len()
            ),
        ));
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        let value = values.get(at).copied().unwrap_or(f32::NAN);
        return Err(RequestError::invalid(
            field,
            format!("value {at} is {value}; all must be finite"),
        ));
    }
    // In f64, so that neither huge nor tiny vectors overflow or vanish.
    let norm = values
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    if norm == 0.0 {
        return Err(RequestError::invalid(
            field,
            "all values are 0: it has no direction",
        ));
    }
    let scale = norm.recip();
    for value in &mut values {
        *value = (f64::from(*value) * scale) as f32;
    }
    Ok(values)
}

/// A name, an id or another text of one line that others will be shown.
///
/// # Errors
/// A control character in it.
pub fn check_printable(field: &str, text: &str) -> Result<(), RequestError> {
    printable::check(text).map_err(|reason| RequestError::invalid(field, format!("it {reason}")))
}

/// An id of at most [`MAX_ID_BYTES`].
///
/// # Errors
/// If it is longer.
pub fn check_id(field: &str, id: &str) -> Result<(), RequestError> {
    RequestError::check(field, "max_id_bytes", MAX_ID_BYTES, id.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().expect("ASCII"));
        let now = Instant::now();
        deadline(&metadata, now).map(|at| at - now)
    }

    #[test]
    fn every_unit_of_grpc_timeout_is_read() {
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("3M"), Some(Duration::from_secs(180)));
        assert_eq!(timeout("4S"), Some(Duration::from_secs(4)));
        assert_eq!(timeout("5m"), Some(Duration::from_millis(5)));
        assert_eq!(timeout("6u"), Some(Duration::from_micros(6)));
        assert_eq!(timeout("7n"), Some(Duration::from_nanos(7)));
        for bad in ["", "S", "x", "1", "-1S", "123456789S", "1s"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn embeddings_are_checked_and_normalised() {
        for scale in [1.0, 1e30, 1e-30] {
            let made = unit("e", vec![3.0 * scale, 4.0 * scale], 2).expect("a direction");
            let off = (made[0] - 0.6).abs().max((made[1] - 0.8).abs());
            assert!(off < 1e-6, "{made:?}");
        }
        for (values, words) in [
            (vec![1.0], "it has 1 values, the bundle's width is 2"),
            (vec![1.0, f32::NAN], "value 1 is NaN"),
            (vec![f32::INFINITY, 0.0], "value 0 is inf"),
            (vec![0.0, 0.0], "all values are 0"),
        ] {
            let error = unit("e", values, 2).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
