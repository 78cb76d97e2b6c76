//! How a command ends: failures, exit codes, and how a gRPC status with its
//! details reads.

use std::{io, process::ExitCode};

use serde::Serialize;
use tonic::Code;
use tonic_types::StatusExt as _;

use tipserve_api::code_name;

/// How a command ended that did what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It did everything that it was asked to.
    Done,
    /// It did everything except for some items, which it reported.
    SomeFailed,
    /// It reported what it had done when it was interrupted.
    Interrupted,
}

impl Completion {
    /// 0; 4 if some items failed; 130 if it was interrupted.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::SomeFailed => ExitCode::from(4),
            Self::Interrupted => ExitCode::from(130),
        }
    }

    /// [`Completion::SomeFailed`] if any item failed.
    pub fn with_failed(failed: u64) -> Self {
        if failed == 0 {
            Self::Done
        } else {
            Self::SomeFailed
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line contradicts itself. Change it.
    #[error("{0}")]
    Usage(String),

    /// A local file or folder, or a run on the server, is not there.
    #[error("{0}")]
    NotFound(String),

    /// Local data that cannot be used: what, where, why.
    #[error("{0}")]
    Input(String),

    /// The server broke the protocol, or a child process failed.
    #[error("{0}")]
    Broken(String),

    /// The server answered with an error.
    #[error("{doing}: {}", status.message())]
    Rpc {
        /// What was being done: "creating cache \"x\"".
        doing: String,
        /// The server's status, with its details.
        status: Box<tonic::Status>,
    },

    /// No server answers at this address.
    #[error("no tipserve server answers at {address} ({cause}). {}", how_to_start(listen.as_deref()))]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// The same as `--listen` takes it; none for a Unix socket.
        listen: Option<String>,
        /// The system's message, in its own words.
        cause: String,
    },

    /// A server answers, and TLS cannot be spoken with it.
    #[error("cannot speak TLS with the server at {address}: {cause}")]
    Tls {
        /// The address that was connected to.
        address: String,
        /// What the TLS library says.
        cause: String,
    },

    /// The connection broke, or the server stopped answering, during a call.
    #[error("{doing}: the connection to {address} was lost ({cause})")]
    Disconnected {
        /// What was being done: "creating cache \"x\"".
        doing: String,
        /// The address that was connected to.
        address: String,
        /// The system's message, in its own words.
        cause: String,
    },

    /// A unary call was not answered in time.
    #[error(
        "{doing}: no answer from {address} within {seconds} s (--timeout){}",
        if *changes { "; whether it was done is unknown" } else { "" }
    )]
    Timeout {
        /// What was being done: "creating cache \"x\"".
        doing: String,
        /// The address that was connected to.
        address: String,
        /// How long it was waited for.
        seconds: f64,
        /// Whether the call would have changed something.
        changes: bool,
    },

    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),

    /// Ctrl-C or SIGTERM ended the command.
    #[error("interrupted")]
    Interrupted,
}

/// What to do if no server answers.
fn how_to_start(listen: Option<&str>) -> String {
    let start = listen
        .map(|listen| {
            format!(
                "Start one with\n  tipserve serve --bundle DIR --store DIR --listen {listen}\nor "
            )
        })
        .unwrap_or_default();
    let text = format!("{start}name another with --server or TIPSERVE_SERVER");
    if start.is_empty() {
        text.replacen("name", "Name", 1)
    } else {
        text
    }
}

impl Failure {
    /// A file, or standard output, that cannot be written.
    pub fn writing(doing: &str, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Output(error);
        }
        Self::Input(format!("{doing}: cannot write: {error}"))
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. } => 5,
            Self::Interrupted => 130,
            Self::Rpc { status, .. } => match status.code() {
                Code::NotFound => 3,
                Code::Unavailable => 5,
                Code::Aborted => 6,
                _ => 1,
            },
            Self::Input(_) | Self::Broken(_) | Self::Output(_) => 1,
        }
    }

    /// Whether the reader of standard output has gone away (`| head`), which
    /// nobody needs to be told.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The lines after the first: the server's details, for people.
    pub fn detail_lines(&self) -> Vec<String> {
        match self {
            Self::Rpc { status, .. } => StatusDocument::of(status).lines(),
            _ => Vec::new(),
        }
    }

    /// The failure as `--json` prints it.
    pub fn document(&self) -> ErrorDocument {
        let (code, details) = match self {
            Self::Usage(_) => ("USAGE", None),
            Self::NotFound(_) => ("NOT_FOUND", None),
            Self::Input(_) => ("INPUT", None),
            Self::Broken(_) => ("BROKEN", None),
            Self::Output(_) => ("OUTPUT", None),
            Self::Interrupted => ("INTERRUPTED", None),
            Self::Unreachable { .. } | Self::Tls { .. } | Self::Disconnected { .. } => {
                ("UNREACHABLE", None)
            }
            Self::Timeout { .. } => ("TIMEOUT", None),
            Self::Rpc { status, .. } => {
                (code_name(status.code()), Some(StatusDocument::of(status)))
            }
        };
        let details = details.unwrap_or_default();
        ErrorDocument {
            error: ErrorBody {
                code: code.to_owned(),
                exit_code: self.exit_code(),
                message: self.to_string(),
                details,
            },
        }
    }
}

/// The document of a failure: `{"error": {…}}`.
#[derive(Debug, Serialize)]
pub struct ErrorDocument {
    error: ErrorBody,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    code: String,
    exit_code: u8,
    message: String,
    #[serde(flatten)]
    details: StatusDocument,
}

/// The details of a gRPC status that programs act on.
#[derive(Debug, Default, Serialize)]
pub struct StatusDocument {
    /// From `ErrorInfo.reason`: what programs match on.
    reason: Option<String>,
    /// From `ErrorInfo.metadata`: field, limit, value.
    metadata: std::collections::BTreeMap<String, String>,
    /// From `BadRequest.field_violations`: fields that are wrong.
    field_violations: Vec<FieldViolation>,
    /// From `RetryInfo.retry_delay`: when trying again makes sense.
    retry_after_seconds: Option<f64>,
    /// `RequestInfo.request_id`: what the server's logs and traces call it.
    request_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct FieldViolation {
    field: String,
    description: String,
}

impl StatusDocument {
    fn of(status: &tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            reason: info
                .map(|info| info.reason.clone())
                .filter(|it| !it.is_empty()),
            metadata: info
                .map(|info| info.metadata.clone().into_iter().collect())
                .unwrap_or_default(),
            field_violations: details
                .bad_request()
                .map(|bad| {
                    bad.field_violations
                        .iter()
                        .map(|violation| FieldViolation {
                            field: violation.field.clone(),
                            description: violation.description.clone(),
                        })
                        .collect()
                })
                .unwrap_or_default(),
            retry_after_seconds: details
                .retry_info()
                .and_then(|retry| retry.retry_delay)
                .map(|delay| delay.as_secs_f64()),
            request_id: details
                .request_info()
                .map(|info| info.request_id.clone())
                .or_else(|| {
                    let id = status.metadata().get("x-request-id")?;
                    id.to_str().ok().map(str::to_owned)
                })
                .filter(|id| !id.is_empty()),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(reason) = &self.reason {
            lines.push(format!("reason: {reason}"));
        }
        for (key, value) in &self.metadata {
            lines.push(format!("{key}: {value}"));
        }
        for violation in &self.field_violations {
            lines.push(format!(
                "field {}: {}",
                violation.field, violation.description
            ));
        }
        if let Some(seconds) = self.retry_after_seconds {
            lines.push(format!("try again in {seconds:.1} s"));
        }
        if let Some(id) = &self.request_id {
            lines.push(format!("request: {id}"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_status() {
        let of = |code| {
            let status = Box::new(tonic::Status::new(code, "x"));
            Failure::Rpc {
                doing: String::new(),
                status,
            }
            .exit_code()
        };
        assert_eq!(of(Code::NotFound), 3);
        assert_eq!(of(Code::Unavailable), 5);
        assert_eq!(of(Code::Aborted), 6);
        assert_eq!(of(Code::InvalidArgument), 1);
    }
}
