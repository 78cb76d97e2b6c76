//! One total mapping from errors to gRPC statuses with details
//! (`google.rpc.ErrorInfo`, `BadRequest`, `RetryInfo`, `RequestInfo`; AIP-193).

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    observe,
    quote::{self, shortened},
    request::RequestError,
};
use crate::{auth::GuardError, catalog::CatalogError};
use tip_adapter::error::TipError;
use tipserve_api::names::NameError;
use tipserve_clip::{PictureError, TextError};
use tipserve_engine::{EngineError, Refusal};
use tipserve_store::StoreError;

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "tipserve";

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The gRPC code.
    pub code: Code,
    /// The reason, for programs: UPPER_SNAKE_CASE, never changed once given.
    pub reason: &'static str,
    /// The reason, for people: names the thing, the limit and the value.
    pub message: String,
    /// The request's field concerned, where there is one.
    pub field: Option<String>,
    /// Facts for programs.
    pub metadata: HashMap<String, String>,
    /// When to try again, where that makes sense.
    pub retry: Option<Duration>,
}

impl Problem {
    /// A problem without field, facts or retry.
    pub fn new(code: Code, reason: &'static str, message: impl ToString) -> Problem {
        Problem {
            code,
            reason,
            message: message.to_string(),
            field: None,
            metadata: HashMap::new(),
            retry: None,
        }
    }

    /// Names the field.
    #[must_use]
    pub fn field(mut self, field: impl ToString) -> Problem {
        self.field = Some(field.to_string());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, key: &str, value: impl ToString) -> Problem {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> Problem {
        self.retry = Some(after);
        self
    }

    /// A message over the server's limit, from what tonic says of it: "…found
    /// 5000 bytes, the limit is: 1024 bytes".
    pub fn message_too_large(said: &str) -> Problem {
        let mut numbers = said
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty());
        let problem = Problem::new(Code::OutOfRange, "MESSAGE_TOO_LARGE", said)
            .fact("limit", "max_message_bytes");
        let (Some(value), Some(maximum)) = (numbers.next(), numbers.next()) else {
            return problem;
        };
        Problem {
            message: format!(
                "the message has {value} bytes, over the server's limit max_message_bytes = \
                 {maximum}"
            ),
            ..problem
        }
        .fact("value", value)
        .fact("maximum", maximum)
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason, DOMAIN, self.metadata.clone());
        if let Some(id) = observe::request_id() {
            details.set_request_info(id, "");
        }
        if let Some(field) = &self.field {
            details.add_bad_request_violation(field, self.of_field(field));
        }
        if let Some(retry) = self.retry {
            details.set_retry_info(Some(retry));
        }
        details
    }

    /// The message without the name of the field, which is said beside it.
    fn of_field(&self, field: &str) -> &str {
        match self.message.strip_prefix(field) {
            Some(rest) if rest.starts_with([':', ' ']) => rest.trim_start_matches([':', ' ']),
            _ => &self.message,
        }
    }

    /// As the status of one item.
    pub fn to_item_status(&self) -> tonic_types::Status {
        let status = Status::from(self.clone());
        // The details of a tonic status are an encoded google.rpc.Status.
        prost::Message::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
            code: self.code as i32,
            message: self.message.clone(),
            details: Vec::new(),
        })
    }
}

impl Problem {
    /// The same, with no more of what the client sent than fits an error.
    fn shortened(mut self) -> Problem {
        let short = |text: &mut String, most| {
            if text.len() > most {
                *text = shortened(text, most).into_owned();
            }
        };
        short(&mut self.message, quote::MAX_MESSAGE_BYTES);
        if let Some(field) = &mut self.field {
            short(field, quote::MAX_FACT_BYTES);
        }
        for value in self.metadata.values_mut() {
            short(value, quote::MAX_FACT_BYTES);
        }
        debug_assert!(self.metadata.len() <= quote::MAX_FACTS);
        self
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let problem = problem.shortened();
        Status::with_error_details(problem.code, problem.message.clone(), problem.details())
    }
}

impl From<PictureError> for Problem {
    fn from(error: PictureError) -> Problem {
        let reason = match &error {
            PictureError::Empty => "PICTURE_EMPTY",
            PictureError::Unrecognised { .. } => "PICTURE_UNRECOGNISED",
            PictureError::Unsupported { .. } => "PICTURE_UNSUPPORTED",
            PictureError::TooLarge { .. } => "PICTURE_TOO_LARGE",
            PictureError::Truncated { .. } => "PICTURE_TRUNCATED",
            PictureError::Undecodable { .. } => "PICTURE_UNDECODABLE",
            PictureError::Shape { .. } => "PICTURE_SHAPE",
        };
        let problem = Problem::new(Code::InvalidArgument, reason, &error).field("input");
        match error {
            PictureError::TooLarge {
                what,
                setting,
                limit,
                value,
            } => problem
                .fact("what", what)
                .fact("setting", setting)
                .fact("limit", limit)
                .fact("value", value),
            _ => problem,
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Problem {
        let (code, reason) = match error {
            EngineError::Picture(error) => return error.into(),
            EngineError::DecoderPanicked => (Code::InvalidArgument, "PICTURE_UNDECODABLE"),
            EngineError::NoImageEncoder => (Code::FailedPrecondition, "NO_IMAGE_ENCODER"),
            EngineError::DeadlineExceeded { .. } => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            EngineError::Cancelled => (Code::Cancelled, "CANCELLED"),
            EngineError::Encoder { .. } => (Code::Internal, "ENCODER_FAILED"),
            EngineError::NotFinite => (Code::Internal, "FEATURE_NOT_FINITE"),
            EngineError::Head { .. } => (Code::Internal, "HEAD_FAILED"),
            EngineError::DeviceBroken => (Code::Unavailable, "DEVICE_BROKEN"),
            EngineError::ShuttingDown => (Code::Unavailable, "SHUTTING_DOWN"),
        };
        let problem = Problem::new(code, reason, &error);
        match code {
            Code::Unavailable => problem.retry(Duration::from_secs(1)),
            _ => problem,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem::new(
            Code::ResourceExhausted,
            "QUEUE_FULL",
            format!(
                "the server is full: its limit {} = {} is reached",
                refusal.limit, refusal.value
            ),
        )
        .fact("limit", refusal.limit)
        .fact("value", refusal.value)
    }
}

impl From<GuardError> for Problem {
    fn from(error: GuardError) -> Problem {
        let (code, reason) = match &error {
            GuardError::TokenMissing => (Code::Unauthenticated, "TOKEN_MISSING"),
            GuardError::TokenMalformed => (Code::Unauthenticated, "TOKEN_MALFORMED"),
            GuardError::TokenUnknown => (Code::Unauthenticated, "TOKEN_UNKNOWN"),
            GuardError::TokenExpired { .. } => (Code::Unauthenticated, "TOKEN_EXPIRED"),
            GuardError::Role { .. } => (Code::PermissionDenied, "ROLE_NOT_ALLOWED"),
            GuardError::Cache { .. } => (Code::PermissionDenied, "CACHE_NOT_ALLOWED"),
            GuardError::UnknownMethod { .. } => (Code::Unimplemented, "METHOD_UNKNOWN"),
            GuardError::Rate { .. } => (Code::ResourceExhausted, "RATE_LIMITED"),
            GuardError::Burst { .. } => (Code::InvalidArgument, "LIMIT_EXCEEDED"),
            GuardError::TokenStreams { .. } | GuardError::ServerStreams { .. } => {
                (Code::ResourceExhausted, "TOO_MANY_STREAMS")
            }
        };
        let problem = Problem::new(code, reason, &error);
        match error {
            GuardError::Role {
                name, role, needed, ..
            } => problem
                .fact("token", name)
                .fact("role", role)
                .fact("needed", needed),
            GuardError::Cache { name, prefix, .. } => {
                problem.fact("token", name).fact("prefix", prefix)
            }
            GuardError::Rate {
                limit,
                maximum,
                wait,
                ..
            } => problem
                .fact("limit", limit)
                .fact("maximum", maximum)
                .retry(wait.max(Duration::from_millis(1))),
            GuardError::Burst { burst, asked, .. } => problem
                .fact("limit", "items_burst")
                .fact("maximum", burst)
                .fact("value", asked),
            GuardError::TokenStreams { maximum, .. } | GuardError::ServerStreams { maximum } => {
                problem
                    .fact("limit", "max_streams")
                    .fact("maximum", maximum)
                    // Nobody knows when a call ends.
                    .retry(Duration::from_secs(1))
            }
            _ => problem,
        }
    }
}

impl From<TextError> for Problem {
    fn from(error: TextError) -> Problem {
        Problem::new(Code::InvalidArgument, "TEXT_INVALID", error).field("texts")
    }
}

impl From<&TipError> for Problem {
    fn from(error: &TipError) -> Problem {
        let (code, reason) = match error {
            TipError::Torch(_) => (Code::Internal, "HEAD_FAILED"),
            TipError::Cancelled => (Code::Cancelled, "CANCELLED"),
            _ => (Code::InvalidArgument, "CACHE_INVALID"),
        };
        Problem::new(code, reason, error)
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Problem {
        Problem::new(Code::InvalidArgument, "NAME_INVALID", &error)
            .field(error.kind.replace(' ', "_"))
            .fact("value", &error.value)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let (code, reason) = match &error {
            StoreError::NotFound { .. } => (Code::NotFound, "NOT_FOUND"),
            StoreError::AlreadyExists { .. } => (Code::AlreadyExists, "ALREADY_EXISTS"),
            StoreError::Damaged { .. } => (Code::DataLoss, "DAMAGED"),
            StoreError::NewerFormat { .. } => (Code::FailedPrecondition, "NEWER_FORMAT"),
            StoreError::InvalidName(error) => return error.clone().into(),
            StoreError::InvalidDraft { .. } => (Code::InvalidArgument, "CACHE_INVALID"),
            StoreError::Conflict { .. } => (Code::FailedPrecondition, "CONFLICT"),
            StoreError::EtagMismatch { .. } => (Code::Aborted, "ETAG_MISMATCH"),
            StoreError::Unavailable { .. } => (Code::Unavailable, "STORE_UNAVAILABLE"),
            StoreError::Full { .. } => (Code::ResourceExhausted, "STORE_FULL"),
            StoreError::Refused { .. } => (Code::FailedPrecondition, "STORE_REFUSED"),
            StoreError::NotDurable { .. } => (Code::Internal, "STORE_NOT_DURABLE"),
            StoreError::TooLarge { .. } => (Code::ResourceExhausted, "CACHE_TOO_LARGE"),
            StoreError::Open { .. } | StoreError::Storage { .. } => {
                (Code::Internal, "STORE_FAILED")
            }
        };
        let problem = Problem::new(code, reason, &error);
        match error {
            StoreError::NotFound { what, .. }
            | StoreError::AlreadyExists { what }
            | StoreError::Damaged { what, .. }
            | StoreError::Conflict { what, .. } => problem.fact("resource", what),
            StoreError::EtagMismatch {
                what,
                expected,
                found,
            } => problem
                .fact("resource", what)
                .fact("expected", expected)
                .fact("etag", found),
            StoreError::TooLarge { what, size, limit } => problem
                .fact("resource", what)
                .fact("value", size)
                .fact("limit", limit),
            StoreError::Unavailable { retry_after, .. } => problem.retry(retry_after),
            _ => problem,
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Problem {
        let message = error.to_string();
        match error {
            RequestError::Missing { field } => {
                Problem::new(Code::InvalidArgument, "FIELD_MISSING", message).field(field)
            }
            RequestError::Invalid { field, .. } => {
                Problem::new(Code::InvalidArgument, "FIELD_INVALID", message).field(field)
            }
            RequestError::TooMuch {
                field,
                limit,
                maximum,
                value,
            } => Problem::new(Code::InvalidArgument, "LIMIT_EXCEEDED", message)
                .field(field)
                .fact("limit", limit)
                .fact("maximum", maximum)
                .fact("value", value),
            RequestError::Order { .. } => {
                Problem::new(Code::InvalidArgument, "MESSAGE_ORDER", message)
            }
            RequestError::TooLate { wait, left } => {
                Problem::new(Code::ResourceExhausted, "DEADLINE_UNREACHABLE", message)
                    .retry(wait.saturating_sub(left))
            }
            RequestError::DeadlineExceeded => {
                Problem::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
            }
            RequestError::NotOffered { .. } => {
                Problem::new(Code::Unimplemented, "NOT_OFFERED", message)
            }
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Problem {
        let message = error.to_string();
        match error {
            CatalogError::Store(error) => error.into(),
            CatalogError::Tip(error) => error.as_ref().into(),
            CatalogError::Text(error) => error.into(),
            CatalogError::Engine(error) => error.into(),
            CatalogError::WrongBundle { version, .. } => {
                Problem::new(Code::FailedPrecondition, "WRONG_BUNDLE", message)
                    .fact("resource", version)
            }
            CatalogError::OverBudget { size, budget, .. } => {
                Problem::new(Code::ResourceExhausted, "CACHE_TOO_LARGE", message)
                    .fact("limit", "resident_bytes")
                    .fact("maximum", budget)
                    .fact("value", size)
            }
            CatalogError::OverLimit {
                limit,
                maximum,
                value,
                ..
            } => Problem::new(Code::InvalidArgument, "LIMIT_EXCEEDED", message)
                .fact("limit", limit)
                .fact("maximum", maximum)
                .fact("value", value),
            CatalogError::NotLoaded { .. } => {
                Problem::new(Code::Unavailable, "CACHE_NOT_LOADED", message)
                    .retry(Duration::from_secs(1))
            }
            CatalogError::Invalid { field, .. } => {
                Problem::new(Code::InvalidArgument, "FIELD_INVALID", message).field(field)
            }
            CatalogError::NoTextEncoder => {
                Problem::new(Code::FailedPrecondition, "NO_TEXT_ENCODER", message)
            }
            CatalogError::Unsupported { .. } => {
                Problem::new(Code::FailedPrecondition, "UNSUPPORTED", message)
            }
            CatalogError::Busy { .. } => {
                Problem::new(Code::ResourceExhausted, "BUSY", message).retry(Duration::from_secs(5))
            }
            CatalogError::RunFailed { code, reason, .. } => {
                Problem::new(Code::from(code), "RUN_FAILED", message).fact("reason", reason)
            }
            CatalogError::RunInterrupted => {
                Problem::new(Code::Unavailable, "RUN_INTERRUPTED", message)
            }
            CatalogError::RunElsewhere { .. } => {
                Problem::new(Code::FailedPrecondition, "RUN_ELSEWHERE", message)
            }
            CatalogError::Cancelled => Problem::new(Code::Cancelled, "CANCELLED", message),
            CatalogError::Internal { .. } => Problem::new(Code::Internal, "INTERNAL", message),
        }
    }
}

/// For `?` in the services.
macro_rules! status_from {
    ($($error:ty),*) => {
        /// A tonic status through [`Problem`].
        #[derive(Debug)]
        pub struct Failure(Box<Problem>);

        impl From<Box<Problem>> for Failure {
            fn from(problem: Box<Problem>) -> Failure {
                Failure(problem)
            }
        }

        impl From<Problem> for Failure {
            fn from(problem: Problem) -> Failure {
                Failure(Box::new(problem))
            }
        }

        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Problem::from(error).into()
            }
        })*

        impl Failure {
            /// The gRPC code.
            pub fn code(&self) -> Code {
                self.0.code
            }
        }

        impl From<Failure> for Status {
            fn from(failure: Failure) -> Status {
                (*failure.0).into()
            }
        }
    };
}

status_from!(
    PictureError,
    EngineError,
    Refusal,
    TextError,
    NameError,
    StoreError,
    RequestError,
    CatalogError,
    GuardError
);

#[cfg(test)]
mod tests {
    use super::*;

    fn description(error: RequestError) -> String {
        let status = Status::from(Problem::from(error));
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
}
