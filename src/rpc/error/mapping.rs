//! Every error of the crates beneath as an [`ApiError`]: one total mapping, so
//! that each error has exactly one code and one reason.

use std::time::Duration;

use tonic::Code;

use super::ApiError;
use crate::{auth::AuthError, catalog::CatalogError, rpc::request::RequestError};
use tip_adapter::error::TipError;
use tipserve_api::names::NameError;
use tipserve_clip::{PictureError, TextError};
use tipserve_engine::{EngineError, Refusal};
use tipserve_store::StoreError;

impl From<PictureError> for ApiError {
    fn from(error: PictureError) -> ApiError {
        let reason = match &error {
            PictureError::Empty => "PICTURE_EMPTY",
            PictureError::Unrecognised { .. } => "PICTURE_UNRECOGNISED",
            PictureError::Unsupported { .. } => "PICTURE_UNSUPPORTED",
            PictureError::TooLarge { .. } => "PICTURE_TOO_LARGE",
            PictureError::Truncated { .. } => "PICTURE_TRUNCATED",
            PictureError::Undecodable { .. } => "PICTURE_UNDECODABLE",
            PictureError::Shape { .. } => "PICTURE_SHAPE",
        };
        let mapped = ApiError::new(Code::InvalidArgument, reason, &error).field("input");
        match error {
            PictureError::TooLarge {
                what,
                setting,
                limit,
                value,
            } => mapped
                .fact("what", what)
                .fact("setting", setting)
                .fact("limit", limit)
                .fact("value", value),
            _ => mapped,
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
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
        let mapped = ApiError::new(code, reason, &error);
        match code {
            Code::Unavailable => mapped.retry(Duration::from_secs(1)),
            _ => mapped,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        ApiError::new(
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

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> ApiError {
        let (code, reason) = match &error {
            AuthError::TokenMissing => (Code::Unauthenticated, "TOKEN_MISSING"),
            AuthError::TokenMalformed => (Code::Unauthenticated, "TOKEN_MALFORMED"),
            AuthError::TokenUnknown => (Code::Unauthenticated, "TOKEN_UNKNOWN"),
            AuthError::TokenExpired { .. } => (Code::Unauthenticated, "TOKEN_EXPIRED"),
            AuthError::Role { .. } => (Code::PermissionDenied, "ROLE_NOT_ALLOWED"),
            AuthError::Cache { .. } | AuthError::Narrowed { .. } | AuthError::AllCaches { .. } => {
                (Code::PermissionDenied, "CACHE_NOT_ALLOWED")
            }
            AuthError::Certificate { .. } => (Code::Unauthenticated, "CERTIFICATE_REFUSED"),
            AuthError::UnknownMethod { .. } => (Code::Unimplemented, "METHOD_UNKNOWN"),
            AuthError::Rate { .. } => (Code::ResourceExhausted, "RATE_LIMITED"),
            AuthError::Burst { .. } => (Code::InvalidArgument, "LIMIT_EXCEEDED"),
            AuthError::TokenStreams { .. }
            | AuthError::PeerStreams { .. }
            | AuthError::ServerStreams { .. }
            | AuthError::ProbeStreams { .. } => (Code::ResourceExhausted, "TOO_MANY_STREAMS"),
        };
        let mapped = ApiError::new(code, reason, &error);
        match error {
            AuthError::Role {
                name, role, needed, ..
            } => mapped
                .fact("token", name)
                .fact("role", role)
                .fact("needed", needed),
            AuthError::Cache { name, prefix, .. }
            | AuthError::Narrowed { name, prefix }
            | AuthError::AllCaches { name, prefix } => {
                mapped.fact("token", name).fact("prefix", prefix)
            }
            AuthError::Rate {
                limit,
                maximum,
                wait,
                ..
            } => mapped
                .fact("limit", limit)
                .fact("maximum", maximum)
                .retry(wait.max(Duration::from_millis(1))),
            AuthError::Burst { burst, asked, .. } => mapped
                .fact("limit", "items_burst")
                .fact("maximum", burst)
                .fact("value", asked),
            AuthError::TokenStreams { maximum, .. } | AuthError::ServerStreams { maximum } => {
                mapped
                    .fact("limit", "max_streams")
                    .fact("maximum", maximum)
                    // Nobody knows when a call ends.
                    .retry(Duration::from_secs(1))
            }
            AuthError::PeerStreams { maximum, .. } => mapped
                .fact("limit", "max_peer_streams")
                .fact("maximum", maximum)
                .retry(Duration::from_secs(1)),
            AuthError::ProbeStreams { limit, maximum } => mapped
                .fact("limit", limit)
                .fact("maximum", maximum)
                .retry(Duration::from_secs(1)),
            _ => mapped,
        }
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> ApiError {
        ApiError::new(Code::InvalidArgument, "TEXT_INVALID", error).field("texts")
    }
}

impl From<&TipError> for ApiError {
    fn from(error: &TipError) -> ApiError {
        let (code, reason) = match error {
            TipError::Torch(_) => (Code::Internal, "HEAD_FAILED"),
            TipError::Cancelled => (Code::Cancelled, "CANCELLED"),
            _ => (Code::InvalidArgument, "CACHE_INVALID"),
        };
        ApiError::new(code, reason, error)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> ApiError {
        ApiError::new(Code::InvalidArgument, "NAME_INVALID", &error)
            .field(error.kind.replace(' ', "_"))
            .fact("value", &error.value)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let (code, reason) = match &error {
            StoreError::NotFound { .. } => (Code::NotFound, "NOT_FOUND"),
            StoreError::AlreadyExists { .. } => (Code::AlreadyExists, "ALREADY_EXISTS"),
            StoreError::Damaged { .. } => (Code::DataLoss, "DAMAGED"),
            StoreError::NewerFormat { .. } => (Code::FailedPrecondition, "NEWER_FORMAT"),
            StoreError::InvalidName(error) => return error.clone().into(),
            StoreError::InvalidDraft { .. } => (Code::InvalidArgument, "CACHE_INVALID"),
            StoreError::Conflict { .. } => (Code::FailedPrecondition, "CONFLICT"),
            StoreError::RequestReused { .. } => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
            StoreError::EtagMismatch { .. } => (Code::Aborted, "ETAG_MISMATCH"),
            StoreError::Unavailable { .. } => (Code::Unavailable, "STORE_UNAVAILABLE"),
            StoreError::Full { .. } => (Code::ResourceExhausted, "STORE_FULL"),
            StoreError::Refused { .. } => (Code::FailedPrecondition, "STORE_REFUSED"),
            StoreError::TooLarge { .. } => (Code::ResourceExhausted, "CACHE_TOO_LARGE"),
            StoreError::NotDurable { .. } => (Code::Internal, "STORE_NOT_DURABLE"),
            StoreError::Open { .. } | StoreError::Storage { .. } => {
                (Code::Internal, "STORE_FAILED")
            }
        };
        let mapped = ApiError::new(code, reason, &error);
        match error {
            StoreError::NotFound { what, .. }
            | StoreError::AlreadyExists { what }
            | StoreError::Damaged { what, .. }
            | StoreError::Conflict { what, .. } => mapped.fact("resource", what),
            StoreError::RequestReused { what, request_id } => {
                mapped.fact("resource", what).fact("request_id", request_id)
            }
            StoreError::EtagMismatch {
                what,
                expected,
                found,
            } => mapped
                .fact("resource", what)
                .fact("expected", expected)
                .fact("etag", found),
            StoreError::TooLarge { what, size, limit } => mapped
                .fact("resource", what)
                .fact("value", size)
                .fact("limit", limit),
            StoreError::Unavailable { retry_after, .. } => mapped.retry(retry_after),
            _ => mapped,
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> ApiError {
        let message = error.to_string();
        match error {
            RequestError::Missing { field } => {
                ApiError::new(Code::InvalidArgument, "FIELD_MISSING", message).field(field)
            }
            RequestError::Invalid { field, .. } => {
                ApiError::new(Code::InvalidArgument, "FIELD_INVALID", message).field(field)
            }
            RequestError::TooMuch {
                field,
                limit,
                maximum,
                value,
            } => ApiError::new(Code::InvalidArgument, "LIMIT_EXCEEDED", message)
                .field(field)
                .fact("limit", limit)
                .fact("maximum", maximum)
                .fact("value", value),
            RequestError::Order { .. } => {
                ApiError::new(Code::InvalidArgument, "MESSAGE_ORDER", message)
            }
            RequestError::TooLate { wait, left } => {
                ApiError::new(Code::ResourceExhausted, "DEADLINE_UNREACHABLE", message)
                    .retry(wait.saturating_sub(left))
            }
            RequestError::DeadlineExceeded => {
                ApiError::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
            }
            RequestError::NotOffered { .. } => {
                ApiError::new(Code::Unimplemented, "NOT_OFFERED", message)
            }
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> ApiError {
        let message = error.to_string();
        match error {
            CatalogError::Store(error) => error.into(),
            CatalogError::Tip(error) => error.as_ref().into(),
            CatalogError::Text(error) => error.into(),
            CatalogError::Engine(error) => error.into(),
            CatalogError::WrongBundle { version, .. } => {
                ApiError::new(Code::FailedPrecondition, "WRONG_BUNDLE", message)
                    .fact("resource", version)
            }
            CatalogError::UnknownBundle { given, .. } => {
                ApiError::new(Code::NotFound, "BUNDLE_NOT_FOUND", message)
                    .field("bundle")
                    .fact("bundle", given)
            }
            CatalogError::UnusableBundle {
                folder,
                out_of_memory,
                ..
            } => {
                let (code, reason) = match out_of_memory {
                    true => (Code::ResourceExhausted, "OUT_OF_MEMORY"),
                    false => (Code::FailedPrecondition, "BUNDLE_UNUSABLE"),
                };
                ApiError::new(code, reason, message).fact("folder", folder)
            }
            CatalogError::BundleBusy { name, .. } => {
                ApiError::new(Code::FailedPrecondition, "BUNDLE_BUSY", message).fact("bundle", name)
            }
            CatalogError::WrongDtype { version, .. } => {
                ApiError::new(Code::FailedPrecondition, "WRONG_DTYPE", message)
                    .fact("resource", version)
            }
            CatalogError::OverBudget { size, budget, .. } => {
                ApiError::new(Code::ResourceExhausted, "CACHE_TOO_LARGE", message)
                    .fact("limit", "resident_bytes")
                    .fact("maximum", budget)
                    .fact("value", size)
            }
            CatalogError::OverLimit {
                limit,
                maximum,
                value,
                ..
            } => ApiError::new(Code::InvalidArgument, "LIMIT_EXCEEDED", message)
                .fact("limit", limit)
                .fact("maximum", maximum)
                .fact("value", value),
            CatalogError::NotLoaded { .. } => {
                ApiError::new(Code::Unavailable, "CACHE_NOT_LOADED", message)
                    .retry(Duration::from_secs(1))
            }
            CatalogError::Invalid { field, .. } => {
                ApiError::new(Code::InvalidArgument, "FIELD_INVALID", message).field(field)
            }
            CatalogError::NoTextEncoder => {
                ApiError::new(Code::FailedPrecondition, "NO_TEXT_ENCODER", message)
            }
            CatalogError::Unsupported { .. } => {
                ApiError::new(Code::FailedPrecondition, "UNSUPPORTED", message)
            }
            CatalogError::Busy { .. } => ApiError::new(Code::ResourceExhausted, "BUSY", message)
                .retry(Duration::from_secs(5)),
            CatalogError::RunFailed { code, reason, .. } => {
                ApiError::new(Code::from(code), "RUN_FAILED", message).fact("reason", reason)
            }
            CatalogError::RunInterrupted => {
                ApiError::new(Code::Unavailable, "RUN_INTERRUPTED", message)
            }
            CatalogError::RunElsewhere { .. } => {
                ApiError::new(Code::FailedPrecondition, "RUN_ELSEWHERE", message)
            }
            CatalogError::Cancelled => ApiError::new(Code::Cancelled, "CANCELLED", message),
            CatalogError::DeadlineExceeded => {
                ApiError::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
            }
            CatalogError::Internal { .. } => ApiError::new(Code::Internal, "INTERNAL", message),
        }
    }
}
