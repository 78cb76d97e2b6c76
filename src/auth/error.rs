//! Why a call is refused, and why an authenticator cannot be set up. No message
//! ever contains a token.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

use tipserve_api::methods::Role;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AuthError {
    /// The server requires a token, and the call has none.
    #[error("this server requires a token: send the header \"authorization: Bearer TOKEN\"")]
    TokenMissing,
    /// The header is there, but not of the form that is needed.
    #[error("send exactly one header authorization, of the form \"Bearer TOKEN\"")]
    TokenMalformed,
    /// No token of the file has the hash of this one.
    #[error("the token is not one that this server knows")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the token {name:?} expired at {at}")]
    TokenExpired {
        /// The token's name, never the token.
        name: String,
        /// When it expired, in RFC 3339.
        at: String,
    },
    /// The role does not allow the method.
    #[error("{method} needs the role {needed}; the token {name:?} has {role}")]
    Role {
        /// The token's name, never the token.
        name: String,
        /// The role that the token has.
        role: Role,
        /// The least role that the method asks for.
        needed: Role,
        /// The method's name, without its service.
        method: String,
    },
    /// The prefix does not allow the cache, whether or not it exists: the
    /// answer does not reveal that.
    #[error("the token {name:?} may use caches whose id begins with {prefix:?}, not {cache:?}")]
    Cache {
        /// The token's name, never the token.
        name: String,
        /// The prefix that the token is bound to.
        prefix: String,
        /// The id that the request names.
        cache: String,
    },
    /// The method changes what all caches share, but the token is for some of
    /// them only.
    #[error(
        "the token {name:?} may touch caches whose id begins with {prefix:?}: it may not change \
         what all share"
    )]
    AllCaches {
        /// The token's name.
        name: String,
        /// The prefix of the caches it is for.
        prefix: String,
    },
    /// The token's prefix was changed so that it allows less than it did when
    /// the call began.
    #[error(
        "the token {name:?} may use fewer caches now than when the call began: those whose id \
         begins with {prefix:?}"
    )]
    Narrowed {
        /// The token's name, never the token.
        name: String,
        /// The prefix that it is bound to now.
        prefix: String,
    },
    /// The client's certificate is no longer valid.
    #[error("the certificate of {subject:?} is no longer valid: {reason}")]
    Certificate {
        /// The subject of the certificate.
        subject: String,
        /// "it has been revoked" and the like.
        reason: String,
    },
    /// The method is not in the table of methods.
    #[error("{path} is not a method of this server")]
    UnknownMethod {
        /// The path of the HTTP request.
        path: String,
    },
    /// The token's rate limit is used up for the moment.
    #[error("the token {name:?} is over its limit {limit} = {maximum}; wait {:.3} s", wait.as_secs_f64())]
    Rate {
        /// The token's name, never the token.
        name: String,
        /// The limit's name in the file of tokens.
        limit: &'static str,
        /// The limit's value, a second.
        maximum: f64,
        /// How long until it would be allowed.
        wait: Duration,
    },
    /// More at once than the token may ever send, however long it waits.
    #[error(
        "{asked} items in one request are over the token {name:?}'s limit items_burst = {burst}"
    )]
    Burst {
        /// The token's name, never the token.
        name: String,
        /// The most that may be asked for at once.
        burst: u32,
        /// What was asked for at once.
        asked: u64,
    },
    /// Too many calls of one token.
    #[error("the token {name:?} has {maximum} calls under way, its limit max_streams = {maximum}")]
    TokenStreams {
        /// The token's name, never the token.
        name: String,
        /// The token's limit on calls under way.
        maximum: usize,
    },
    /// Too many calls of one peer of a server that requires no tokens.
    #[error("{who} has {maximum} calls under way, the limit max_peer_streams = {maximum}")]
    PeerStreams {
        /// Its certificate's subject, or its address.
        who: String,
        /// Most calls of one peer.
        maximum: usize,
    },
    /// Too many calls of the methods that need no token.
    #[error("{maximum} calls that need no token are under way, the limit {limit} = {maximum}")]
    ProbeStreams {
        /// The limit's name.
        limit: &'static str,
        /// Most such calls, in all or from one address.
        maximum: usize,
    },
    /// Too many calls in the whole server.
    #[error("the server has {maximum} calls under way, its limit max_streams = {maximum}")]
    ServerStreams {
        /// The server's limit on calls under way.
        maximum: usize,
    },
}

/// Why an authenticator cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// A file cannot be read.
    #[error("cannot read {what} {path}: {reason}")]
    Read {
        /// What the file is, with its setting.
        what: &'static str,
        /// The path that the setting names.
        path: PathBuf,
        /// The system's reason for refusing.
        reason: String,
    },
    /// A file cannot be used.
    #[error("{what} {path}: {reason}")]
    Invalid {
        /// What the file is, with its setting.
        what: &'static str,
        /// The path that the setting names.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
    },
}

impl OpenError {
    /// A file that cannot be used.
    pub(super) fn invalid(
        what: &'static str,
        path: &std::path::Path,
        reason: impl ToString,
    ) -> OpenError {
        OpenError::Invalid {
            what,
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
