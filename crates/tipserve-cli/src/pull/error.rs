//! Why a bundle could not be fetched.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::{failure::Failure, files::readable};

/// Why a bundle could not be fetched, and what to do.
#[derive(Debug, Error)]
pub(crate) enum PullError {
    /// It is no address, or one of another kind.
    #[error("{given:?} is not the address of a bundle: {problem}")]
    Address {
        /// The address, as given.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No request can be made to the bucket.
    #[error("{given:?} cannot be fetched from: {problem}")]
    Bucket {
        /// The address, as given.
        given: String,
        /// What is wrong with it, or with the environment.
        problem: String,
    },
    /// An invalid public key.
    #[error("{given:?} is no public key of minisign (\"RW…\"), and no file with one")]
    PublicKey {
        /// The key, as given.
        given: String,
    },
    /// The signature was not made with the key.
    #[error("{what} is not signed with the key that was given: {problem}. Nothing of it was kept")]
    Signature {
        /// The address of the file.
        what: String,
        /// What is wrong with the signature.
        problem: String,
    },
    /// The index does not name it.
    #[error("the index names no bundle {name:?}; it names {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names of the index, for the message.
        known: String,
    },
    /// The index names it, and nobody publishes it.
    #[error("{name} is not published as a bundle{}", how_to_make(command.as_deref()))]
    NotPublished {
        /// The bundle's name in the index.
        name: String,
        /// The command that exports it, if the index has one.
        command: Option<String>,
    },
    /// The index or a bundle.toml is not what it should be.
    #[error("{what}: {problem}")]
    Malformed {
        /// The address that it came from.
        what: String,
        /// What is wrong with its content.
        problem: String,
    },
    /// No server answers at the address.
    #[error(
        "cannot reach {address} ({cause}). Without a network, pull the bundle on a machine that has \
         one (tipserve pull … --to DIR) and copy the folder; what was fetched so far is kept, and \
         the same command resumes from there"
    )]
    Unreachable {
        /// The address that was asked.
        address: String,
        /// The system's message, in its own words.
        cause: String,
    },
    /// The server answers with an HTTP error.
    #[error("{address}: {status}{}", hint(*status))]
    Refused {
        /// The address that was asked.
        address: String,
        /// The HTTP status code of its answer.
        status: u16,
        /// How long it asks to wait before the next request.
        pause: Option<Duration>,
    },
    /// The server sends it elsewhere, and there it is not fetched from.
    #[error("{address} is not followed: {problem}")]
    Redirected {
        /// The address that was asked.
        address: String,
        /// What is wrong with where it leads.
        problem: String,
    },
    /// A file that does not end.
    #[error("{what} has over {most} bytes, the most that are taken for it. Nothing of it was kept")]
    TooLarge {
        /// The address of the file.
        what: String,
        /// The limit.
        most: u64,
    },
    /// What was fetched is something else.
    #[error(
        "{what} has the sha256 {found}, not {expected}: it was changed on its way or at its \
         source. Nothing of it was kept"
    )]
    WrongHash {
        /// The address of the file.
        what: String,
        /// The sha256 of what was received.
        found: String,
        /// The sha256 that `bundle.toml` states.
        expected: String,
    },
    /// A file here cannot be written or read.
    #[error("{}: {source}{}", readable(path), disk_hint(source))]
    Disk {
        /// The file or folder that it was about.
        path: PathBuf,
        /// The system's error, with its code.
        source: io::Error,
    },
    /// There is no home folder to keep things in.
    #[error("there is no folder to keep bundles in: set TIPSERVE_CACHE")]
    NoCacheFolder,
    /// `--to` names something that is there.
    #[error("{} already exists: name a new folder", readable(path))]
    Exists {
        /// The folder that is there already.
        path: PathBuf,
    },
}

impl PullError {
    /// An error of the disk at `path`.
    pub fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PullError {
        let path = path.into();
        move |source| PullError::Disk { path, source }
    }
}

fn how_to_make(command: Option<&str>) -> String {
    match command {
        Some(command) => format!("; make it, which downloads the weights:\n  {command}"),
        None => ", and the index does not say how to make it".to_owned(),
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => " (it wants a token, HF_TOKEN for Hugging Face, or other keys)",
        404 => " (there is nothing at that address)",
        _ => "",
    }
}

fn disk_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". What was fetched so far is kept: free some space, or set TIPSERVE_CACHE to a larger disk, \
             and run it again"
        }
        _ => "",
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Failure {
        let text = error.to_string();
        match error {
            PullError::Address { .. } | PullError::PublicKey { .. } => Failure::Usage(text),
            PullError::Unknown { .. }
            | PullError::NotPublished { .. }
            | PullError::Refused { status: 404, .. } => Failure::NotFound(text),
            PullError::Malformed { .. }
            | PullError::WrongHash { .. }
            | PullError::TooLarge { .. }
            | PullError::Bucket { .. }
            | PullError::Signature { .. }
            | PullError::Exists { .. }
            | PullError::NoCacheFolder
            | PullError::Disk { .. } => Failure::Input(text),
            PullError::Unreachable { .. }
            | PullError::Redirected { .. }
            | PullError::Refused { .. } => Failure::Broken(text),
        }
    }
}
