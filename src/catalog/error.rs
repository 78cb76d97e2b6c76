//! What can go wrong with classifiers.

use std::sync::Arc;

use thiserror::Error;

use tip_adapter::error::TipError;
use tipserve_clip::{TextError, int8::MOST_NOISE};
use tipserve_engine::EngineError;
use tipserve_store::StoreError;

/// What can go wrong with classifiers. `Clone`, because a load that many wait
/// for fails for all of them alike.
#[derive(Clone, Debug, Error)]
pub enum CatalogError {
    /// The store failed, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No head can be made from these examples.
    #[error("{0}")]
    Tip(Arc<TipError>),
    /// A text cannot be tokenised.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The engine refused an item, or failed on it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Features of one bundle mean nothing to another.
    #[error(
        "{version} was made with bundle {made_with} ({made_with_name}), this server serves {}: \
         load that bundle (LoadBundle, or --bundle at the start)",
        served.join(", ")
    )]
    WrongBundle {
        /// Resource name of the version.
        version: String,
        /// Fingerprint of the bundle that made it.
        made_with: String,
        /// The name of the bundle that made it.
        made_with_name: String,
        /// This server's bundles, with their fingerprints.
        served: Vec<String>,
    },
    /// A name that no bundle has, or several.
    #[error("{given:?} {problem}; known: {}", known.join(", "))]
    UnknownBundle {
        /// The name or fingerprint that was requested.
        given: String,
        /// What is wrong with it, in words.
        problem: &'static str,
        /// The names that would have been valid.
        known: Vec<String>,
    },
    /// A bundle that cannot be loaded.
    #[error("the bundle in {folder:?} cannot be loaded: {reason}")]
    UnusableBundle {
        /// The name of the folder that holds it.
        folder: String,
        /// The reason, in words.
        reason: String,
        /// Whether a device or the host has too little free memory for it.
        out_of_memory: bool,
    },
    /// A bundle that stands if it cannot be loaded or unloaded.
    #[error("the bundle {name:?} {problem}")]
    BundleBusy {
        /// The name of the bundle.
        name: String,
        /// The reason, in words.
        problem: &'static str,
    },
    /// The version's features and this server's are 8-bit and float, and differ
    /// too much to be compared.
    #[error(
        "{version} has features computed in {made_with}, and this server computes in \
         {served}; they differ too much to be compared (noise {noise}, at most {MOST_NOISE}): \
         start a server with another --dtype, or make the cache again"
    )]
    WrongDtype {
        /// Resource name of the version.
        version: String,
        /// What its features were computed in.
        made_with: String,
        /// What this server computes in.
        served: &'static str,
        /// [`tipserve_clip::Agreement::noise`] of the two formats' features.
        noise: f64,
    },
    /// It alone is larger than the budget for resident versions.
    #[error("{version} takes {size} bytes of {place} memory; the budget is {budget}")]
    OverBudget {
        /// Resource name of the version.
        version: String,
        /// Which memory: "host" or "device".
        place: &'static str,
        /// The memory that the version takes, in bytes.
        size: u64,
        /// The whole budget, in bytes.
        budget: u64,
    },
    /// A limit of the server is exceeded.
    #[error("{what} has {value}, over the server's limit {limit} = {maximum}")]
    OverLimit {
        /// The part of the request or version that is over it.
        what: String,
        /// The limit's name, as GetServerInfo has it.
        limit: &'static str,
        /// The limit's value, in its own unit.
        maximum: u64,
        /// The value that was asked for, in the same unit.
        value: u64,
    },
    /// It could not be loaded now.
    #[error("{detail}")]
    NotLoaded {
        /// Why it could not, for the caller.
        detail: String,
    },
    /// A part of the request is invalid.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its path in the request.
        field: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// Text is needed and there is no encoder for it.
    #[error(
        "this server's bundle has no text encoder: give text weights with the classes, or ask for \
         a cache without text"
    )]
    NoTextEncoder,
    /// The version cannot do what was asked.
    #[error("{version} {problem}")]
    Unsupported {
        /// Resource name of the version.
        version: String,
        /// Why not, to follow the version's name.
        problem: String,
    },
    /// Too many of the kind are in progress.
    #[error("{what}: {count} are under way, the limit is {limit}")]
    Busy {
        /// The kind of work: "fine-tuning runs".
        what: &'static str,
        /// How many are under way.
        count: usize,
        /// How many may be, the server's limit.
        limit: usize,
    },
    /// A fine-tuning run failed, as its record says.
    #[error("{message}")]
    RunFailed {
        /// A gRPC status code, as its number.
        code: i32,
        /// The reason of the API's error, as the record has it.
        reason: String,
        /// The error in words, as the record has it.
        message: String,
    },
    /// The server that ran a fine-tuning stopped before it ended.
    #[error(
        "the server that ran it stopped before it ended, and no version was made; start it again"
    )]
    RunInterrupted,
    /// The run is on another server, and only that one can cancel it.
    #[error("fineTunes/{id} runs on another server: cancel it there")]
    RunElsewhere {
        /// The run's id, without `fineTunes/`.
        id: String,
    },
    /// The caller cancelled, or went away.
    #[error("cancelled")]
    Cancelled,
    /// The call's deadline has passed.
    #[error("the call's deadline has passed")]
    DeadlineExceeded,
    /// A defect of this server.
    #[error("internal error: {detail}")]
    Internal {
        /// What happened, for a bug report.
        detail: String,
    },
}

impl From<TipError> for CatalogError {
    fn from(error: TipError) -> CatalogError {
        CatalogError::Tip(Arc::new(error))
    }
}

impl CatalogError {
    /// A [`CatalogError::Invalid`] for a part of the request.
    pub fn invalid(field: impl ToString, problem: impl ToString) -> CatalogError {
        CatalogError::Invalid {
            field: field.to_string(),
            problem: problem.to_string(),
        }
    }

    /// Whether it is temporary: the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            CatalogError::NotLoaded { .. } => true,
            CatalogError::Store(error) => error.is_outage(),
            _ => false,
        }
    }

    /// A defect of this server.
    pub fn internal(detail: impl ToString) -> CatalogError {
        CatalogError::Internal {
            detail: detail.to_string(),
        }
    }
}
