//! Counting RPCs by method and code.

use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicUsize, Ordering},
};

use tonic::{Code, Response, Status};

use super::problem::Failure;
use crate::telemetry;

/// Counts a call when it has ended, however it ends: when the last clone is
/// dropped. A call that nobody ended was cancelled.
#[derive(Clone)]
pub struct Call(Arc<Counted>);

struct Counted {
    method: &'static str,
    code: AtomicI32,
    calls: Calls,
}

/// How many calls are under way.
#[derive(Clone, Default)]
pub struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// Their number now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let code = Code::from_i32(self.code.load(Ordering::Relaxed));
        self.calls.0.fetch_sub(1, Ordering::Relaxed);
        telemetry::request(self.method, code);
    }
}

impl Call {
    /// A call that has begun.
    pub fn new(calls: &Calls, method: &'static str) -> Call {
        calls.0.fetch_add(1, Ordering::Relaxed);
        Call(Arc::new(Counted {
            method,
            calls: calls.clone(),
            code: AtomicI32::new(Code::Cancelled as i32),
        }))
    }

    /// Notes how the call ended.
    pub fn ended(&self, code: Code) {
        self.0.code.store(code as i32, Ordering::Relaxed);
    }

    /// Runs the part of a streaming call that comes before its stream; a
    /// failure ends the call, a stream goes on with its own clone.
    pub async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Failure>>,
    ) -> Result<Response<T>, Status> {
        let result = call.await.map_err(Status::from);
        if let Err(status) = &result {
            self.ended(status.code());
            tracing::debug!(
                method = self.0.method,
                code = ?status.code(),
                message = status.message(),
                "refused"
            );
        }
        result
    }
}

/// Runs a unary call and counts it.
pub async fn observed<T>(
    calls: &Calls,
    method: &'static str,
    work: impl Future<Output = Result<Response<T>, Failure>>,
) -> Result<Response<T>, Status> {
    let call = Call::new(calls, method);
    let result = call.answer(work).await;
    if result.is_ok() {
        call.ended(Code::Ok);
    }
    result
}
