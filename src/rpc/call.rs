//! One RPC under way: its id, its span, how it ended. A task-local carries it,
//! so that it need not be passed to handlers and errors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures::future::Either;
use http::HeaderValue;
use tonic::Code;
use tracing::{Instrument as _, Span, field};

use crate::telemetry;
use tipserve_api::methods;

/// The code of a call that has not ended.
const UNSET: i32 = -1;

tokio::task_local! {
    /// The call that this task serves.
    pub(super) static CURRENT: Call;
}

/// One RPC. It is counted once: when its answer's end is sent or, if that never
/// happens, when the last clone is dropped, as cancelled.
#[derive(Clone)]
pub struct Call(Arc<Record>);

struct Record {
    method: &'static str,
    id: HeaderValue,
    span: Span,
    started: Instant,
    code: AtomicI32,
    counted: AtomicBool,
    calls: Calls,
}

/// How many calls are under way.
#[derive(Clone, Default)]
pub struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// How many calls are under way now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Record {
    /// Counts the call as ended, once however often it is told.
    fn count(&self) {
        if self.counted.swap(true, Ordering::Relaxed) {
            return;
        }
        let code = match self.code.load(Ordering::Relaxed) {
            UNSET => Code::Cancelled,
            code => Code::from_i32(code),
        };
        let took = self.started.elapsed();
        self.calls.0.fetch_sub(1, Ordering::Relaxed);
        telemetry::request(self.method, code, took);
        self.span.record("code", tipserve_api::code_name(code));
        telemetry::ended(&self.span, code);
        let _entered = self.span.enter();
        tracing::debug!(seconds = took.as_secs_f64(), "ended");
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count();
    }
}

impl Call {
    /// The call that this task serves; outside of [`Observe`], one that begins
    /// now.
    pub fn current(calls: &Calls) -> Call {
        CURRENT
            .try_with(Call::clone)
            .unwrap_or_else(|_| Call::begin(calls, methods::OTHER, new_id(), Span::none()))
    }

    pub(super) fn begin(calls: &Calls, method: &'static str, id: HeaderValue, span: Span) -> Call {
        calls.0.fetch_add(1, Ordering::Relaxed);
        Call(Arc::new(Record {
            method,
            id,
            span,
            started: Instant::now(),
            code: AtomicI32::new(UNSET),
            counted: AtomicBool::new(false),
            calls: calls.clone(),
        }))
    }

    /// Notes how the call ended. The first note wins.
    pub fn ended(&self, code: Code) {
        let code = code as i32;
        let _ = self
            .0
            .code
            .compare_exchange(UNSET, code, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Counts the call, once, as it has ended.
    pub(super) fn count(&self) {
        self.0.count();
    }

    /// Its id, as `x-request-id` has it.
    pub(super) fn id(&self) -> &HeaderValue {
        &self.0.id
    }

    /// The call's span, which logs and traces hang on.
    pub(super) fn span(&self) -> &Span {
        &self.0.span
    }
}

/// The id of the request that this task serves.
pub fn request_id() -> Option<String> {
    let id = CURRENT.try_with(|call| call.0.id.clone()).ok()?;
    id.to_str().ok().map(str::to_owned)
}

/// Names the cache that this task's call is about, in its span.
pub fn about(cache: impl std::fmt::Display) {
    let cache = cache.to_string();
    let cache = cache.strip_prefix("caches/").unwrap_or(&cache);
    Span::current().record("cache", field::display(cache));
}

/// A future for a task of its own that goes on with this task's call: its id,
/// its span.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    match CURRENT.try_with(Call::clone) {
        Ok(call) => {
            let span = call.0.span.clone();
            Either::Left(CURRENT.scope(call, future).instrument(span))
        }
        Err(_) => Either::Right(future),
    }
}

/// A random request id, 32 hexadecimal digits.
pub(super) fn new_id() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}
