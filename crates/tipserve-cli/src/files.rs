//! Folders and files: which count, how they are named, and reading one within
//! a bound.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tonic::Code;
use walkdir::{DirEntry, WalkDir};

use crate::{
    documents::{ItemError, RejectedDocument},
    failure::Failure,
};
use tipserve_api::{
    code_name,
    v1::{Input, input::Content},
};

/// Bytes of an item's message beside the picture: ids, tags, the batch.
const MESSAGE_OVERHEAD: usize = 2048;

/// What operating systems, archivers and file servers leave in folders, in
/// lower case.
const SYSTEM_FILES: [&str; 9] = [
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "zbthumbnail.info",
    "pspbrwse.jbf",
    "sync.ffs_db",
];
const SYSTEM_FOLDERS: [&str; 13] = [
    "__macosx",
    "network trash folder",
    "temporary items",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "@tmp",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    "lost+found",
    "__pycache__",
];

/// What lies beside pictures: labels.txt, annotations.xml, an editor's notes
/// (xmp, aae), notebooks, checksums, shortcuts.
const TEXTS: [&str; 24] = [
    "txt", "csv", "tsv", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "md", "html",
    "htm", "log", "ini", "xmp", "aae", "ipynb", "py", "md5", "sha256", "url", "lnk", "webloc",
];

/// Whether a file or folder of this name counts in a folder; a file that is
/// named on the command line always is. The clients in Python and Go have the
/// same rule.
pub(crate) fn counts(name: &OsStr, is_folder: bool) -> bool {
    let name = name.as_bytes();
    if name.starts_with(b".") {
        return false;
    }
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is_folder {
        return !SYSTEM_FOLDERS.iter().any(|known| is(known));
    }
    let extension = name.rsplit(|byte| *byte == b'.').next();
    let text = extension.is_some_and(|extension| {
        extension.len() < name.len()
            && TEXTS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known.as_bytes()))
    });
    !text && !SYSTEM_FILES.iter().any(|known| is(known))
}

/// A path as text. Bytes that are not UTF-8 are written as `\xNN`, so that
/// every file has an id, and two files have two.
pub fn readable(path: impl AsRef<OsStr>) -> String {
    let mut text = String::new();
    for chunk in path.as_ref().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// A file that cannot be sent: found on this side, reported like the server's
/// own rejections.
#[derive(Clone, Debug)]
pub struct Unusable {
    code: Code,
    reason: &'static str,
    /// Why it cannot be sent, for people.
    pub message: String,
}

impl Unusable {
    pub(crate) fn error(self) -> ItemError {
        ItemError {
            code: code_name(self.code).to_owned(),
            reason: Some(self.reason.to_owned()),
            message: self.message,
        }
    }

    pub(crate) fn rejected(self, id: String) -> RejectedDocument {
        RejectedDocument {
            id,
            error: self.error(),
        }
    }

    /// An item of which its source says why.
    pub(crate) fn because(reason: &'static str, message: String) -> Self {
        Self {
            code: Code::InvalidArgument,
            reason,
            message,
        }
    }

    /// An item of `size` bytes, which no message can carry.
    pub fn too_large(size: u64, limit: usize) -> Self {
        Self {
            code: Code::OutOfRange,
            reason: "FILE_TOO_LARGE",
            message: format!(
                "{size} bytes, but the server takes messages of at most {limit} bytes"
            ),
        }
    }

    /// An example of a class whose index the protocol cannot express.
    pub(crate) fn class_index(index: usize) -> Self {
        Self {
            code: Code::OutOfRange,
            reason: "CLASS_INDEX_TOO_LARGE",
            message: format!("class {index}, but indices go up to {}", i32::MAX),
        }
    }

    fn unreadable(error: &io::Error) -> Self {
        Self {
            code: if error.kind() == io::ErrorKind::NotFound {
                Code::NotFound
            } else {
                Code::InvalidArgument
            },
            reason: "FILE_UNREADABLE",
            message: format!("cannot be read: {error}"),
        }
    }
}

/// The regular files under `root` that count, each folder sorted by name (byte
/// order). Links are followed, but not in circles. A folder that cannot be
/// read is an error in its place.
pub fn walk(root: &Path) -> impl Iterator<Item = Result<PathBuf, Failure>> + Send + use<> {
    WalkDir::new(root)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| {
            let counts = counts(entry.file_name(), entry.file_type().is_dir());
            entry.depth() == 0 || (counts && !leads_up(entry))
        })
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

/// The folders in `root` that count, by name (byte order), and how many files
/// that count lie beside them.
pub(crate) fn subfolders(root: &Path) -> Result<(Vec<PathBuf>, usize), Failure> {
    let failed = |error| {
        Failure::Input(format!(
            "cannot read the folder {}: {error}",
            readable(root)
        ))
    };
    let (mut folders, mut loose) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let is_folder = path.is_dir();
        if !counts(&entry.file_name(), is_folder) {
            continue;
        }
        if is_folder {
            folders.push(path);
        } else {
            loose += 1;
        }
    }
    folders.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok((folders, loose))
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
///
/// # Errors
/// Why it cannot be sent.
pub fn read(path: &Path, limit: usize) -> Result<Input, Unusable> {
    let mut file = File::open(path).map_err(|error| Unusable::unreadable(&error))?;
    let metadata = file.metadata();
    let size = metadata
        .map_err(|error| Unusable::unreadable(&error))?
        .len();
    let most = most_bytes(limit);
    if size > most {
        return Err(Unusable::too_large(size, limit));
    }
    // A pipe tells no size, and a file may grow: never read more than fits.
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.by_ref()
        .take(most + 1)
        .read_to_end(&mut content)
        .map_err(|error| Unusable::unreadable(&error))?;
    picture(content, limit)
}

/// Most bytes of a picture that a message of `limit` bytes carries.
pub(crate) fn most_bytes(limit: usize) -> u64 {
    limit.saturating_sub(MESSAGE_OVERHEAD) as u64
}

/// A picture file's bytes as an input, if a message of `limit` bytes can carry it.
///
/// # Errors
/// It cannot.
pub(crate) fn picture(content: Vec<u8>, limit: usize) -> Result<Input, Unusable> {
    let size = content.len() as u64;
    if size > most_bytes(limit) {
        return Err(Unusable::too_large(size, limit));
    }
    Ok(Input {
        content: Some(Content::EncodedImage(Bytes::from(content))),
    })
}

/// The path from `root`, with '/' between its parts, as an id.
pub(crate) fn relative_id(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.iter().map(readable).collect();
    parts.join("/")
}

/// What lies at the path that `flag` names.
///
/// # Errors
/// [`Failure::NotFound`] if there is nothing.
pub fn existing(path: &Path, flag: &str) -> Result<Metadata, Failure> {
    std::fs::metadata(path).map_err(|error| {
        let text = format!("{flag} {}: {error}", readable(path));
        match error.kind() {
            io::ErrorKind::NotFound => Failure::NotFound(text),
            _ => Failure::Input(text),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_leave_behind_does_not_count() {
        for name in [
            "Thumbs.db",
            "desktop.ini",
            "labels.txt",
            "meta.JSON",
            ".DS_Store",
            "Icon\r",
        ] {
            assert!(!counts(OsStr::new(name), false), "{name}");
        }
        for name in ["__MACOSX", "@eaDir", "lost+found", ".git"] {
            assert!(!counts(OsStr::new(name), true), "{name}");
        }
        // A picture may have any other name, or none that says so.
        for name in ["a.jpg", "noext", "txt", "a.txt.png", "__MACOSX"] {
            assert!(counts(OsStr::new(name), false), "{name}");
        }
        assert!(counts(OsStr::new("Thumbs.db"), true));
    }

    #[test]
    fn names_that_are_not_utf8_stay_apart() {
        let name = |bytes: &'static [u8]| readable(OsStr::from_bytes(bytes));
        assert_eq!(name(b"a\xff.jpg"), "a\\xff.jpg");
        assert_eq!(name(b"caf\xe9/\xf0\x9f"), "caf\\xe9/\\xf0\\x9f");
        assert_eq!(name("漢.png".as_bytes()), "漢.png");
    }
}
