//! Folders and files: walking them, and reading one lazily within a bound.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tonic::Code;
use walkdir::{DirEntry, WalkDir};

use super::{
    documents::{ItemError, RejectedDocument},
    failure::Failure,
};
use tipserve_api::{
    code_name,
    v1::{Input, input::Content},
};

/// What an item's message weighs besides the picture: ids, tags, the batch.
const MESSAGE_OVERHEAD: usize = 2048;

/// A file that cannot be sent: found on this side, reported like the server's
/// own rejections.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// As the server would have it.
    pub code: Code,
    /// "FILE_TOO_LARGE", "FILE_UNREADABLE".
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Unusable {
    /// For the report.
    pub fn error(self) -> ItemError {
        ItemError {
            code: code_name(self.code).to_owned(),
            reason: Some(self.reason.to_owned()),
            message: self.message,
        }
    }

    /// For the report.
    pub fn rejected(self, id: String) -> RejectedDocument {
        RejectedDocument {
            id,
            error: self.error(),
        }
    }

    /// An item of `size` bytes that no message can carry.
    pub fn too_large(size: u64, limit: usize) -> Self {
        Self {
            code: Code::OutOfRange,
            reason: "FILE_TOO_LARGE",
            message: format!(
                "{size} bytes, but the server takes messages of at most {limit} bytes"
            ),
        }
    }
}

/// The regular files under `root`, hidden ones left out, each folder by its
/// entries' names (byte order). Links are followed, but not in circles. A
/// folder that cannot be read is an error in its place.
pub fn walk(root: &Path) -> impl Iterator<Item = Result<PathBuf, Failure>> + Send + use<> {
    WalkDir::new(root)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !(is_hidden(entry) || leads_up(entry)))
        .filter_map(|entry| match entry {
            Ok(entry) if entry.file_type().is_file() => Some(Ok(entry.into_path())),
            Ok(_) => None,
            // A link to a folder that holds it, or to nothing.
            Err(error) if error.loop_ancestor().is_some() => None,
            Err(error) if is_dangling_link(&error) => error.path().map(|path| Ok(path.to_owned())),
            Err(error) => Some(Err(Failure::Input(format!(
                "cannot walk the folder: {error}"
            )))),
        })
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Whether this is a link to a folder that holds it. walkdir sees circles
/// within the walk, not those that go round above its root.
fn leads_up(entry: &DirEntry) -> bool {
    if !entry.path_is_symlink() || !entry.file_type().is_dir() {
        return false;
    }
    let Some(parent) = entry.path().parent() else {
        return false;
    };
    match (entry.path().canonicalize(), parent.canonicalize()) {
        (Ok(target), Ok(parent)) => parent.starts_with(target),
        _ => false,
    }
}

fn is_dangling_link(error: &walkdir::Error) -> bool {
    error
        .path()
        .is_some_and(|path| path.is_symlink() && !path.exists())
}

/// Reads one picture file whole, if a message of `limit` bytes can carry it.
pub fn read(path: &Path, limit: usize) -> Result<Input, Unusable> {
    let unreadable = |error: std::io::Error| Unusable {
        code: if error.kind() == std::io::ErrorKind::NotFound {
            Code::NotFound
        } else {
            Code::InvalidArgument
        },
        reason: "FILE_UNREADABLE",
        message: format!("cannot be read: {error}"),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let room = limit.saturating_sub(MESSAGE_OVERHEAD) as u64;
    if size > room {
        return Err(Unusable::too_large(size, limit));
    }
    // A pipe tells no size, and a file may grow: never read more than fits.
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.by_ref()
        .take(room + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if content.len() as u64 > room {
        return Err(Unusable::too_large(content.len() as u64, limit));
    }
    Ok(Input {
        content: Some(Content::EncodedImage(Bytes::from(content))),
    })
}

/// The path from `root`, with '/' between its parts, as an id.
pub fn relative_id(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// The path, if there is something.
pub fn existing(path: &Path, flag: &str) -> Result<std::fs::Metadata, Failure> {
    std::fs::metadata(path).map_err(|error| {
        let text = format!("{flag} {}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Failure::NotFound(text),
            _ => Failure::Input(text),
        }
    })
}
