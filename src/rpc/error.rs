//! The one error of the API: a gRPC status with its details
//! (`google.rpc.ErrorInfo`, `BadRequest`, `RetryInfo`, `RequestInfo`; AIP-193).
//! [`mapping`] makes one of every error that the crates beneath return.

mod mapping;

use std::{collections::HashMap, time::Duration};

use tipserve_api::printable::printable;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::call;

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "tipserve";

// What a status takes in an answer's trailers. Clients refuse trailers over 8
// or 16 KiB and then report that instead of the error, so all of it together
// stays under 4 KiB: the message percent-encoded (three bytes for one), and
// again, twice, in the base64 of the details.

/// Longest message that a status carries, in bytes.
const MAX_MESSAGE_BYTES: usize = 512;
/// Longest path of a field, and longest value of a fact, bytes.
const MAX_VALUE_BYTES: usize = 128;

/// An error on its way to a client.
///
/// Boxed, so that a `Result` of it is as small as one of a pointer.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    code: Code,
    reason: &'static str,
    message: String,
    field: Option<String>,
    metadata: HashMap<String, String>,
    retry: Option<Duration>,
}

impl ApiError {
    /// An error without field, facts or retry. `reason` is for programs:
    /// UPPER_SNAKE_CASE, never changed once released. `message` is for people
    /// and names the thing, the limit and the value.
    pub fn new(code: Code, reason: &'static str, message: impl ToString) -> ApiError {
        ApiError(Box::new(Parts {
            code,
            reason,
            message: printable(&message.to_string(), MAX_MESSAGE_BYTES),
            field: None,
            metadata: HashMap::new(),
            retry: None,
        }))
    }

    /// Names the request's field that is at fault.
    #[must_use]
    pub fn field(mut self, field: impl ToString) -> ApiError {
        self.0.field = Some(printable(&field.to_string(), MAX_VALUE_BYTES));
        self
    }

    /// Adds a fact for programs to `ErrorInfo.metadata`.
    #[must_use]
    pub fn fact(mut self, key: &str, value: impl ToString) -> ApiError {
        let value = printable(&value.to_string(), MAX_VALUE_BYTES);
        self.0.metadata.insert(key.to_owned(), value);
        self
    }

    /// Adds after how long a retry can succeed.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> ApiError {
        self.0.retry = Some(after);
        self
    }

    /// Prefixes the message with what it is about: "example \"7\"".
    #[must_use]
    pub fn about(mut self, subject: impl std::fmt::Display) -> ApiError {
        let message = format!("{subject}: {}", self.0.message);
        self.0.message = printable(&message, MAX_MESSAGE_BYTES);
        self
    }

    /// The gRPC code that the status will have.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The reason of `ErrorInfo`, for programs.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// The status's message, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The path of the field at fault, if it is one field's fault.
    pub fn field_path(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// A message over the server's limit, from tonic's words: "…found 5000
    /// bytes, the limit is: 1024 bytes".
    pub fn message_too_large(words: &str) -> ApiError {
        let mut numbers = words
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty());
        let (message, numbers) = match (numbers.next(), numbers.next()) {
            (Some(value), Some(maximum)) => (
                format!(
                    "the message has {value} bytes, over the server's limit max_message_bytes = \
                     {maximum}"
                ),
                Some((value, maximum)),
            ),
            _ => (words.to_owned(), None),
        };
        let error = ApiError::new(Code::OutOfRange, "MESSAGE_TOO_LARGE", message)
            .fact("limit", "max_message_bytes");
        match numbers {
            Some((value, maximum)) => error.fact("value", value).fact("maximum", maximum),
            None => error,
        }
    }

    /// A status that tonic made (an oversized message, a reset stream), passed
    /// on with its code.
    pub fn from_status(status: &Status) -> ApiError {
        if let Some(error) = carried_by(status) {
            return error;
        }
        let reason = match status.code() {
            Code::OutOfRange => return ApiError::message_too_large(status.message()),
            Code::Cancelled => "CANCELLED",
            _ => "TRANSPORT",
        };
        ApiError::new(status.code(), reason, status.message())
    }

    /// The server is shutting down: the unanswered rest should be sent
    /// elsewhere.
    pub fn shutting_down() -> ApiError {
        ApiError::new(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "the server is shutting down; reconnect and send what is unanswered",
        )
        .retry(Duration::from_millis(200))
    }

    /// As the status of a call.
    pub fn into_status(self) -> Status {
        self.into()
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.0.reason, DOMAIN, self.0.metadata.clone());
        if let Some(id) = call::request_id() {
            details.set_request_info(id, "");
        }
        if let Some(field) = &self.0.field {
            details.add_bad_request_violation(field, self.violation(field));
        }
        if let Some(retry) = self.0.retry {
            details.set_retry_info(Some(retry));
        }
        details
    }

    /// The message without the field's name, which the detail has separately.
    fn violation(&self, field: &str) -> &str {
        match self.0.message.strip_prefix(field) {
            Some(rest) if rest.starts_with([':', ' ']) => rest.trim_start_matches([':', ' ']),
            _ => &self.0.message,
        }
    }

    /// As the status of one item.
    pub fn to_item_status(&self) -> tonic_types::Status {
        let status = Status::from(self.clone());
        // The details of a tonic status are an encoded google.rpc.Status.
        prost::Message::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
            code: self.0.code as i32,
            message: self.0.message.clone(),
            details: Vec::new(),
        })
    }
}

/// The error that a status of the message layer, or of the codec, was made of,
/// once tonic has passed it on.
fn carried_by(status: &Status) -> Option<ApiError> {
    const REASONS: [&str; 8] = [
        "MESSAGE_TOO_LARGE",
        "MESSAGE_TIMEOUT",
        "QUEUE_FULL",
        "ENCODING_INVALID",
        // Of bodies over HTTP.
        "JSON_INVALID",
        "FIELD_INVALID",
        "FORM_INVALID",
        "CONTENT_TYPE_UNKNOWN",
    ];
    let details = status.get_error_details();
    let info = details.error_info()?;
    let reason = REASONS.into_iter().find(|reason| *reason == info.reason)?;
    let error = info.metadata.iter().fold(
        ApiError::new(status.code(), reason, status.message()),
        |error, (key, value)| error.fact(key, value),
    );
    let violations = details
        .bad_request()
        .map(|request| &request.field_violations);
    let error = match violations.and_then(|violations| violations.first()) {
        Some(violation) => error.field(&violation.field),
        None => error,
    };
    Some(
        match details.retry_info().and_then(|retry| retry.retry_delay) {
            Some(delay) => error.retry(delay),
            None => error,
        },
    )
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        let details = error.details();
        Status::with_error_details(error.0.code, error.0.message, details)
    }
}

#[cfg(test)]
mod tests {
    use tipserve_api::printable::is_unprintable;

    use super::{super::request::RequestError, *};

    fn description(error: RequestError) -> String {
        let status = Status::from(ApiError::from(error));
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("a field").field_violations;
        violations.first().expect("a violation").description.clone()
    }

    #[test]
    fn a_field_is_named_once() {
        for (error, said) in [
            (RequestError::invalid("spec.views", "7 is odd"), "7 is odd"),
            (RequestError::missing("spec"), "is missing"),
            // Another field's name, that begins alike.
            (
                RequestError::invalid("spec", "spec.views: 7 is odd"),
                "spec.views: 7 is odd",
            ),
        ] {
            assert_eq!(description(error), said);
        }
    }

    #[test]
    fn what_an_error_quotes_commands_no_terminal() {
        for quoted in ["\u{1b}[2J", "a\nb", "\u{2028}", "\u{202e}gpj"] {
            let status = Status::from(ApiError::new(Code::NotFound, "UNKNOWN", quoted));
            assert!(!status.message().contains(is_unprintable), "{quoted:?}");
        }
    }

    #[test]
    fn an_error_fits_into_four_kibibytes_of_trailers_whatever_it_quotes() {
        for quoted in ["x", "ü", "𝄞", "\u{1b}", "\""] {
            let quoted = quoted.repeat(100_000);
            let status = Status::from(
                ApiError::new(Code::InvalidArgument, "FIELD_INVALID", &quoted)
                    .field(&quoted)
                    .fact("value", &quoted)
                    .fact("limit", &quoted)
                    .fact("resource", &quoted)
                    .retry(Duration::from_secs(1)),
            );
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers).expect("headers");
            let bytes: usize = trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 4)
                .sum();
            assert!(bytes < 4096, "{bytes} bytes of trailers");
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let error = ApiError::new(Code::NotFound, "NOT_FOUND", "a\u{1b}[2Jb\r").field("c\u{7}");
        assert_eq!(error.message(), "a\\u{1b}[2Jb\\r");
        assert_eq!(error.field_path(), Some("c\\u{7}"));
    }
}
