//! How a command ends: outcomes, failures, exit codes, and how a gRPC status
//! with its details reads.

use std::{io, process::ExitCode};

use serde::Serialize;
use tonic::Code;
use tonic_types::StatusExt as _;

use tipserve_api::code_name;

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Done,
    /// But for some items, which it reported.
    SomeFailed,
    /// As far as it came until it was interrupted, which it reported.
    Interrupted,
}

impl Outcome {
    /// 0, 4 where some items failed, 130 where it was interrupted.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::SomeFailed => ExitCode::from(4),
            Self::Interrupted => ExitCode::from(130),
        }
    }

    /// `SomeFailed` where any did.
    pub fn of(failed: usize) -> Self {
        if failed == 0 {
            Self::Done
        } else {
            Self::SomeFailed
        }
    }
}

/// Why a command did not do what it was asked.
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
        /// The server's answer.
        status: Box<tonic::Status>,
    },

    /// No server answers at this address.
    #[error(
        "no tipserve server answers at {address} ({cause}). Start one with\n  \
         tipserve serve --bundle DIR --store DIR --listen {listen}\n\
         or name another with --server or TIPSERVE_SERVER"
    )]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// The same as `--listen` takes it.
        listen: String,
        /// What the system said.
        cause: String,
    },

    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),

    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
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
            Self::Unreachable { .. } => 5,
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

    /// Whether whoever reads standard output has gone away (`| head`), which
    /// is no news to anybody.
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

    /// The failure for programs.
    pub fn document(&self) -> ErrorDocument {
        let (code, details) = match self {
            Self::Usage(_) => ("USAGE", None),
            Self::NotFound(_) => ("NOT_FOUND", None),
            Self::Input(_) => ("INPUT", None),
            Self::Broken(_) => ("BROKEN", None),
            Self::Output(_) => ("OUTPUT", None),
            Self::Interrupted => ("INTERRUPTED", None),
            Self::Unreachable { .. } => ("UNREACHABLE", None),
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

/// `{"error": {...}}`.
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
    /// `ErrorInfo.reason`.
    reason: Option<String>,
    /// `ErrorInfo.metadata`.
    metadata: std::collections::BTreeMap<String, String>,
    /// `BadRequest.field_violations`.
    field_violations: Vec<FieldViolation>,
    /// `RetryInfo.retry_delay`.
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
