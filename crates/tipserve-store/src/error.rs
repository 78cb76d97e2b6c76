//! What can go wrong in the store, as values that name the thing concerned.

use std::time::Duration;

use thiserror::Error;
use tipserve_api::names::NameError;

/// An error of the store. Every one names what it is about; `Clone`, because a
/// load that many wait for fails for all of them alike.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The cache, version or alias does not exist (or no longer does).
    #[error("{what} does not exist{hint}")]
    NotFound {
        /// Resource name, for instance `caches/x/versions/3`.
        what: String,
        /// Empty, or what may help, beginning with `": "`.
        hint: String,
    },

    /// Something of that name is there already.
    #[error("{what} already exists")]
    AlreadyExists {
        /// Resource name of what is there.
        what: String,
    },

    /// Bytes in the store are not those that were written. What they belong to
    /// is set aside; everything else is served.
    #[error("{what} is damaged: {detail}")]
    Damaged {
        /// Resource name, or the object's path.
        what: String,
        /// Which object, and how it differs from what was written.
        detail: String,
    },

    /// Written by a newer tipserve.
    #[error(
        "{what} is written in format {found}; this tipserve reads formats up to {supported}: \
         upgrade it"
    )]
    NewerFormat {
        /// Resource name, or the object's path.
        what: String,
        /// The format that the object has.
        found: u32,
        /// The newest format that this build reads.
        supported: u32,
    },

    /// An invalid id or alias.
    #[error(transparent)]
    InvalidName(#[from] NameError),

    /// A draft or file that cannot become a version.
    #[error("{what} is not valid: {detail}")]
    InvalidDraft {
        /// The tensor, field or file.
        what: String,
        /// Which rule it breaks, and how.
        detail: String,
    },

    /// The state does not allow it, or somebody else changed it first.
    #[error("{what}: {detail}")]
    Conflict {
        /// Resource name of what cannot be changed.
        what: String,
        /// What the change conflicts with.
        detail: String,
    },

    /// A request id that another specification has used before.
    #[error(
        "the request id {request_id:?} was used before, with another specification, and made \
         {what}: a new request needs a new id"
    )]
    RequestReused {
        /// Resource name of the version.
        what: String,
        /// The id that both requests carry.
        request_id: String,
    },

    /// The caller expected the cache as it was before somebody changed it.
    #[error("{what} {}", etag_detail(.expected, .found))]
    EtagMismatch {
        /// Resource name of the cache.
        what: String,
        /// The etag given; [`NEW`](super::NEW) for a cache that must not exist.
        expected: String,
        /// The etag now; [`NEW`](super::NEW) if there is no such cache.
        found: String,
    },

    /// The storage does not answer. What is resident is still served.
    #[error("the store does not answer while {doing}: {detail}")]
    Unavailable {
        /// What was being done, and to which object.
        doing: String,
        /// The storage's own message, for operators.
        detail: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },

    /// No space is left (disk or quota).
    #[error("the store is full: {detail} while {doing}")]
    Full {
        /// What was being done, and to which object.
        doing: String,
        /// The storage's own message, for operators.
        detail: String,
    },

    /// The storage refuses access: read-only, permissions, credentials.
    #[error("the store refuses access while {doing}: {detail}")]
    Refused {
        /// What was being done, and to which object.
        doing: String,
        /// The storage's own message, for operators.
        detail: String,
    },

    /// The disk failed to make a write durable. It is not acknowledged, and
    /// nothing of it is trusted.
    #[error(
        "the store could not make a write durable while {doing}: {detail}; nothing of it is kept"
    )]
    NotDurable {
        /// What was being done, and to which object.
        doing: String,
        /// The storage's own message, for operators.
        detail: String,
    },

    /// The thing is larger than a limit allows.
    #[error("{what} takes {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Resource name, or path of the object.
        what: String,
        /// How large it is, in bytes.
        size: u64,
        /// The limit that it exceeds, in bytes.
        limit: u64,
    },

    /// The store's address or folder cannot be used.
    #[error("cannot open the store {url}: {detail}")]
    Open {
        /// As given, without any query or credentials.
        url: String,
        /// What is wrong with it, or what the storage says.
        detail: String,
    },

    /// Any other answer of the storage.
    #[error("the store failed while {doing}: {detail}")]
    Storage {
        /// What was being done, and to which object.
        doing: String,
        /// The storage's own message, for operators.
        detail: String,
    },
}

fn etag_detail(expected: &str, found: &str) -> String {
    if expected == super::NEW {
        format!("was to be new, but is there already, with etag {found:?}")
    } else if found == super::NEW {
        format!("does not exist, so its etag is not {expected:?}")
    } else {
        format!("has etag {found:?}, not {expected:?}: somebody changed it meanwhile")
    }
}

impl StoreError {
    /// A missing thing, without a hint.
    pub(crate) fn not_found(what: impl ToString) -> Self {
        Self::NotFound {
            what: what.to_string(),
            hint: String::new(),
        }
    }

    /// A [`StoreError::Damaged`] about `what`.
    pub fn damaged(what: impl ToString, detail: impl ToString) -> Self {
        Self::Damaged {
            what: what.to_string(),
            detail: detail.to_string(),
        }
    }

    /// A [`StoreError::InvalidDraft`] about `what`.
    pub fn invalid(what: impl ToString, detail: impl ToString) -> Self {
        Self::InvalidDraft {
            what: what.to_string(),
            detail: detail.to_string(),
        }
    }

    /// A state that forbids it.
    pub(crate) fn conflict(what: impl ToString, detail: impl ToString) -> Self {
        Self::Conflict {
            what: what.to_string(),
            detail: detail.to_string(),
        }
    }

    /// Whether the storage itself failed, so that it is unknown whether the
    /// thing is there.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Refused { .. } | Self::Storage { .. }
        )
    }
}
