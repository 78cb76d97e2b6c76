//! Errors: a gRPC status as HTTP's status code, headers and JSON.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tipserve_api::printable::printable;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{json::JsonError, response};

/// The domain of tipserve's reasons.
const DOMAIN: &str = "tipserve";

// What is quoted of a request may be megabytes of it; the server's own errors
// have the same limits.

/// Longest message that a status carries, in bytes.
const MAX_MESSAGE_BYTES: usize = 512;
/// Longest path of a field, in bytes.
const MAX_FIELD_BYTES: usize = 128;

/// A status of this crate's own.
pub fn error(code: Code, reason: &str, message: impl AsRef<str>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    let message = printable(message.as_ref(), MAX_MESSAGE_BYTES);
    Status::with_error_details(code, message, details)
}

impl From<JsonError> for Status {
    fn from(problem: JsonError) -> Status {
        let message = printable(&problem.to_string(), MAX_MESSAGE_BYTES);
        match problem {
            JsonError::Syntax(_) => error(Code::InvalidArgument, "JSON_INVALID", message),
            JsonError::Field { field, problem } => {
                let field = printable(&field, MAX_FIELD_BYTES);
                let problem = printable(&problem, MAX_MESSAGE_BYTES);
                let mut details = ErrorDetails::with_error_info("FIELD_INVALID", DOMAIN, []);
                details.add_bad_request_violation(field, problem);
                Status::with_error_details(Code::InvalidArgument, message, details)
            }
            JsonError::TooLarge(limit) => {
                let facts = [
                    ("limit".to_owned(), "max_message_bytes".to_owned()),
                    ("maximum".to_owned(), limit.to_string()),
                ];
                let details = ErrorDetails::with_error_info("MESSAGE_TOO_LARGE", DOMAIN, facts);
                Status::with_error_details(Code::OutOfRange, message, details)
            }
        }
    }
}

/// A status with the id of its request, which those that were made within the
/// call have already.
pub fn with_request(status: &Status, id: &HeaderValue) -> Status {
    let mut details = status.get_error_details();
    let Ok(id) = id.to_str() else {
        return status.clone();
    };
    if details.request_info().is_some() {
        return status.clone();
    }
    details.set_request_info(id, "");
    Status::with_error_details(status.code(), status.message(), details)
}

/// A refusal that needs no descriptors: of a request whose method is not yet
/// known.
pub fn refusal(code: Code, reason: &str, message: &str) -> Response<Body> {
    let body = json!({
        "code": code as i32,
        "message": message,
        "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": DOMAIN,
            "metadata": {},
        }],
    });
    let mut response = response::json(body.to_string().into_bytes());
    describe(&error(code, reason, message), &mut response);
    response
}

/// The reason of a status.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// HTTP's code for a status.
pub fn http_code(status: &Status) -> StatusCode {
    match (status.code(), reason(status).as_str()) {
        (_, "PATH_UNKNOWN") => StatusCode::NOT_FOUND,
        (_, "VERB_UNKNOWN") => StatusCode::METHOD_NOT_ALLOWED,
        (_, "CONTENT_TYPE_UNKNOWN") => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (_, "MESSAGE_TOO_LARGE") => StatusCode::PAYLOAD_TOO_LARGE,
        (_, "MESSAGE_TIMEOUT") => StatusCode::REQUEST_TIMEOUT,
        (Code::Ok, _) => StatusCode::OK,
        (Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition, _) => {
            StatusCode::BAD_REQUEST
        }
        (Code::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::AlreadyExists | Code::Aborted, _) => StatusCode::CONFLICT,
        (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        // nginx's "client closed request".
        (Code::Cancelled, _) => {
            StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        (Code::Unimplemented, _) => StatusCode::NOT_IMPLEMENTED,
        (Code::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (Code::Unknown | Code::Internal | Code::DataLoss, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Gives a response the code and the headers that a status has.
pub fn describe(status: &Status, response: &mut Response<Body>) {
    let code = http_code(status);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if code == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        headers.insert(header::WWW_AUTHENTICATE, scheme);
    }
    let retry = status.get_details_retry_info();
    if let Some(delay) = retry.and_then(|retry| retry.retry_delay) {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
}
