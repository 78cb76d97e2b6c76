//! Metrics of authentication: certificates and tokens.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const GUARD_RELOADS: &str = "tipserve_guard_reloads_total";
const TLS_HANDSHAKE_FAILURES: &str = "tipserve_tls_handshake_failures_total";
const TLS_EXPIRY: &str = "tipserve_tls_certificate_expiry_timestamp_seconds";
const TOKENS: &str = "tipserve_tokens";

/// Present at zero even without TLS and tokens.
pub(super) fn describe() {
    describe_counter!(
        GUARD_RELOADS,
        "Changed certificates and tokens files read anew, by kind and outcome."
    );
    describe_counter!(
        TLS_HANDSHAKE_FAILURES,
        "TLS handshakes that failed or took too long."
    );
    describe_gauge!(
        TLS_EXPIRY,
        "When the server's certificate ends, seconds since 1970; 0 without TLS."
    );
    describe_gauge!(TOKENS, "Tokens that the server knows.");
    for kind in ["tls", "tokens"] {
        for outcome in ["ok", "error"] {
            counter!(GUARD_RELOADS, "kind" => kind, "outcome" => outcome).absolute(0);
        }
    }
    counter!(TLS_HANDSHAKE_FAILURES).absolute(0);
    gauge!(TLS_EXPIRY).set(0.0);
    gauge!(TOKENS).set(0.0);
}

/// Counts a changed file of certificates or tokens that was read anew, or could
/// not be used.
pub fn auth_reloaded(kind: &'static str, ok: bool) {
    let outcome = if ok { "ok" } else { "error" };
    counter!(GUARD_RELOADS, "kind" => kind, "outcome" => outcome).increment(1);
}

/// Counts a TLS handshake that failed.
pub fn handshake_failed() {
    counter!(TLS_HANDSHAKE_FAILURES).increment(1);
}

/// The certificate in force ends then (seconds since 1970).
pub fn certificate_ends(at: i64) {
    gauge!(TLS_EXPIRY).set(at as f64);
}

/// Sets the number of tokens in force.
pub fn tokens_known(count: usize) {
    gauge!(TOKENS).set(count as f64);
}
