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
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mathematics'.
    #[error("{0}")]
    Tip(Arc<TipError>),
    /// A text's.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Features of one bundle mean nothing to another.
    #[error("{version} was made with bundle {made_with}, this server serves {served}")]
    WrongBundle {
        /// The version.
        version: String,
        /// Fingerprint of the bundle that made it.
        made_with: String,
        /// Fingerprint of this server's bundle.
        served: String,
    },
    /// 8-bit features that differ too much from float ones to be compared.
    #[error(
        "{version} has features of an encoder in {made_with} and this server's computes in \
         {served}; they differ too much to be compared (noise {noise}, at most {MOST_NOISE}): \
         start a server with another --dtype, or make the cache again"
    )]
    WrongDtype {
        /// The version.
        version: String,
        /// What its features were computed in.
        made_with: String,
        /// What this server computes in.
        served: &'static str,
        /// [`tipserve_clip::Agreement::noise`] between the two.
        noise: f64,
    },
    /// It alone is larger than the budget for resident versions.
    #[error("{version} takes {size} bytes of {place} memory; the budget is {budget}")]
    OverBudget {
        /// The version.
        version: String,
        /// "host" or "device".
        place: &'static str,
        /// Its size, bytes.
        size: u64,
        /// The budget, bytes.
        budget: u64,
    },
    /// A limit of the server is passed.
    #[error("{what} has {value}, over the server's limit {limit} = {maximum}")]
    OverLimit {
        /// What passes it.
        what: String,
        /// The limit's name.
        limit: &'static str,
        /// The limit.
        maximum: u64,
        /// The value.
        value: u64,
    },
    /// It could not be loaded now.
    #[error("{detail}")]
    NotLoaded {
        /// Why.
        detail: String,
    },
    /// A part of the request that cannot be.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its path in the request.
        field: String,
        /// What is wrong.
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
        /// The version.
        version: String,
        /// Why.
        problem: String,
    },
    /// Too much of it is under way.
    #[error("{what}: {count} are under way, the limit is {limit}")]
    Busy {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// Of so many.
        limit: usize,
    },
    /// A fine-tuning run failed, as its record says.
    #[error("{message}")]
    RunFailed {
        /// A gRPC status code.
        code: i32,
        /// The error's reason.
        reason: String,
        /// In words.
        message: String,
    },
    /// The server that ran a fine-tuning stopped before it ended.
    #[error(
        "the server that ran it stopped before it ended, and no version was made; ask for it again"
    )]
    RunInterrupted,
    /// A fine-tuning runs on another server, which alone can cancel it.
    #[error("fineTunes/{id} runs on another server: cancel it there")]
    RunElsewhere {
        /// The run's id.
        id: String,
    },
    /// The caller cancelled, or went away.
    #[error("cancelled")]
    Cancelled,
    /// A defect of this server.
    #[error("internal error: {detail}")]
    Internal {
        /// What happened.
        detail: String,
    },
}

impl From<TipError> for CatalogError {
    fn from(error: TipError) -> CatalogError {
        CatalogError::Tip(Arc::new(error))
    }
}

impl CatalogError {
    /// A part of the request that cannot be.
    pub fn invalid(field: impl ToString, problem: impl ToString) -> CatalogError {
        CatalogError::Invalid {
            field: field.to_string(),
            problem: problem.to_string(),
        }
    }

    /// Whether it says nothing of the thing asked for: the same may succeed
    /// later.
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
