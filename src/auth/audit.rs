//! One line in the log for every change of a cache: who, what, with what
//! outcome. The target is `tipserve::audit`, the level `INFO` whatever the
//! filter says of other targets.

use tonic::Code;

use super::Caller;

/// The target of every audit line.
pub const TARGET: &str = "tipserve::audit";

/// A change under way. Its line is written when it has ended, or when it is
/// dropped: a change that nobody ended was cancelled.
#[derive(Debug)]
pub struct Change {
    caller: Caller,
    action: &'static str,
    resource: String,
    code: Option<Code>,
}

impl Change {
    /// A change that begins. `action` is a verb and what it is done to:
    /// "delete_cache".
    pub fn new(caller: &Caller, action: &'static str, resource: impl Into<String>) -> Change {
        Change {
            caller: caller.clone(),
            action,
            resource: resource.into(),
            code: None,
        }
    }

    /// What is changed, once it is known better than at the start.
    pub fn names(&mut self, resource: impl Into<String>) {
        self.resource = resource.into();
    }

    /// It has ended.
    pub fn ended(mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        line(&self.caller, self.action, &self.resource, code);
    }
}

/// Longest resource in a line, characters: a client may name anything.
const MAX_RESOURCE: usize = 200;

/// Writes one line.
pub fn line(caller: &Caller, action: &str, resource: &str, code: Code) {
    let resource: String = resource.chars().take(MAX_RESOURCE).collect();
    tracing::info!(
        target: TARGET,
        who = caller.who(),
        known_by = caller.known_by(),
        certificate = caller.certificate(),
        action,
        resource,
        result = ?code,
        request_id = caller.request_id(),
        "audit"
    );
}
