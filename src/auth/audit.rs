//! One line in the log for every call that changes a cache or takes one away:
//! who, what, with what outcome. The target is `tipserve::audit`, the level
//! `INFO` whatever the filter says of other targets.
//!
//! The auth layer begins a line for each call of an audited method and ends it
//! with the status that the call was answered with, so that no handler can
//! forget one. A handler only names the resource, and, where it knows better
//! than the answer (a change that was made for a client that is gone), the
//! result.

use std::sync::Arc;

use http::Extensions;
use parking_lot::Mutex;
use tipserve_api::printable::printable;
use tonic::Code;

use super::Caller;

/// The target of every audit line.
pub const TARGET: &str = "tipserve::audit";
/// Longest name in a line, in bytes: a client may name anything.
const MAX_NAME_BYTES: usize = 400;

/// A line that is written once: when the last clone is dropped, or before, by
/// [`AuditLine::write`]. Without a result it was cancelled. The default is a
/// line that is never written, for what runs outside of the auth layer.
#[derive(Clone, Debug, Default)]
pub struct AuditLine(Option<Arc<Record>>);

#[derive(Debug)]
struct Record {
    caller: Caller,
    action: &'static str,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    resource: String,
    result: Option<Code>,
    answered: Option<Code>,
    written: bool,
}

impl AuditLine {
    /// A line for a call that begins. `action` is a verb and its object:
    /// "delete_cache".
    pub fn begin(caller: &Caller, action: &'static str) -> AuditLine {
        AuditLine(Some(Arc::new(Record {
            caller: caller.clone(),
            action,
            line: Mutex::default(),
        })))
    }

    /// The line of a request's call.
    pub fn of(extensions: &Extensions) -> AuditLine {
        extensions.get::<AuditLine>().cloned().unwrap_or_default()
    }

    /// Names what is changed; again, once it is known better.
    pub fn resource(&self, resource: impl Into<String>) {
        self.update(|line| line.resource = resource.into());
    }

    /// How the change ended. It takes precedence over the call's status, which
    /// may be that its deadline has passed.
    pub fn result(&self, code: Code) {
        self.update(|line| line.result = line.result.or(Some(code)));
    }

    /// The status that the call was answered with.
    pub fn answered(&self, code: Code) {
        self.update(|line| line.answered = line.answered.or(Some(code)));
    }

    /// Writes the line now: what was asked for has begun, and has a line of its
    /// own for its end.
    pub fn write(&self) {
        if let Some(record) = &self.0 {
            record.write();
        }
    }

    /// Writes no line: nothing was changed, nor was to be.
    pub fn discard(&self) {
        self.update(|line| line.written = true);
    }

    fn update(&self, change: impl FnOnce(&mut Line)) {
        if let Some(record) = &self.0 {
            change(&mut record.line.lock());
        }
    }
}

impl Record {
    fn write(&self) {
        let mut line = self.line.lock();
        if std::mem::replace(&mut line.written, true) {
            return;
        }
        let code = line.result.or(line.answered).unwrap_or(Code::Cancelled);
        emit(&self.caller, self.action, &line.resource, code);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.write();
    }
}

fn emit(caller: &Caller, action: &str, resource: &str, code: Code) {
    let shown = |name: &str| printable(name, MAX_NAME_BYTES);
    tracing::info!(
        target: TARGET,
        who = shown(&caller.who()),
        known_by = caller.known_by(),
        certificate = caller.certificate().as_deref().map(shown),
        action,
        resource = shown(resource),
        result = ?code,
        request_id = caller.request_id(),
        "audit"
    );
}
