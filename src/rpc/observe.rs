//! Counting RPCs by method and code.

use tonic::{Code, Response, Status};

use super::problem::Failure;
use crate::telemetry;

/// Counts a call when it ends, however it ends.
struct Call {
    method: &'static str,
    code: Code,
}

impl Drop for Call {
    fn drop(&mut self) {
        telemetry::request(self.method, self.code);
    }
}

/// Runs a call and counts it. A call whose future is dropped was cancelled.
pub async fn observed<T>(
    method: &'static str,
    call: impl Future<Output = Result<Response<T>, Failure>>,
) -> Result<Response<T>, Status> {
    let mut counted = Call {
        method,
        code: Code::Cancelled,
    };
    let result = call.await.map_err(Status::from);
    counted.code = match &result {
        Ok(_) => Code::Ok,
        Err(status) => {
            tracing::debug!(method, code = ?status.code(), message = status.message(), "refused");
            status.code()
        }
    };
    result
}
