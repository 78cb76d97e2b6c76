//! Who may call, and what: TLS, tokens with roles and prefixes, rates, the
//! loopback rule. Knows nothing of caches beyond their ids, and nothing of
//! gRPC beyond the methods' names.
//!
//! - [`Authenticator`] holds certificates and tokens, read again when their
//!   files change;
//! - [`Caller`] is who a call comes from, and whether they still may;
//! - [`audit::AuditLine`] is the line that a change leaves in the log.

pub mod audit;
mod authenticator;
mod caller;
mod error;
mod exposure;
mod open_calls;
mod origin;
pub mod peer;
pub mod rates;
mod reload;
mod settings;
pub mod tls;
pub mod tokens;

pub use authenticator::Authenticator;
pub use caller::Caller;
pub use error::{AuthError, OpenError};
pub use exposure::ExposureError;
pub use open_calls::{CallCounts, MAX_ADDRESS_PROBE_STREAMS, MAX_PROBE_STREAMS, OpenCalls};
pub use origin::{ORIGIN_RULE, Origin};
pub use settings::{AuthSettings, TlsFiles};
