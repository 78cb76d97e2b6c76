//! Metrics of connections, and of log lines that were not written.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::{
    logs,
    names::{CONNECTION_REFUSALS, CONNECTIONS, DROPPED_LOG_LINES, REFUSED_CONNECTIONS},
};

pub(super) fn describe() {
    describe_gauge!(CONNECTIONS, "Open connections to the API.");
    describe_counter!(
        REFUSED_CONNECTIONS,
        "Connections closed by the server for a limit or for taking too long, by reason."
    );
    describe_counter!(
        DROPPED_LOG_LINES,
        "Log lines dropped because standard error did not take them in time."
    );
    gauge!(CONNECTIONS).set(0.0);
    for reason in CONNECTION_REFUSALS {
        counter!(REFUSED_CONNECTIONS, "reason" => reason).absolute(0);
    }
    counter!(DROPPED_LOG_LINES).absolute(0);
}

/// Brings the counter of dropped lines up to date.
pub(super) fn refresh() {
    counter!(DROPPED_LOG_LINES).absolute(logs::dropped_lines());
}

/// Sets the number of open connections.
pub fn connections_open(count: usize) {
    gauge!(CONNECTIONS).set(count as f64);
}

/// A connection was closed; `reason` is one of [`CONNECTION_REFUSALS`].
pub fn connection_refused(reason: &'static str) {
    counter!(REFUSED_CONNECTIONS, "reason" => reason).increment(1);
}
