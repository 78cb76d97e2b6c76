//! What was fetched, kept by its content.
//!
//! ```text
//! files/SHA256         a file, whole and checked
//! files/SHA256.part    its beginning
//! files/SHA256.lock    locked while it is fetched
//! files/SHA256.minisig a signature of that file, a bundle.toml
//! bundles/NAME-SHA256/ a bundle: hard links to its files, and its bundle.toml
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

use super::{Downloader, File, Listing, PullError, listing::LISTING};

/// Digits of the fingerprint in a bundle's folder.
const SHORT: usize = 16;

/// The folder of what was fetched.
pub(super) struct Kept(PathBuf);

impl Kept {
    /// Opens it, and makes it if it is not there.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn open() -> Result<Kept, PullError> {
        let given = |name: &str| {
            let value = std::env::var_os(name)?;
            (!value.is_empty()).then(|| PathBuf::from(value))
        };
        let root = given("TIPSERVE_CACHE")
            .or_else(|| Some(given("XDG_CACHE_HOME")?.join("tipserve")))
            .or_else(|| Some(given("HOME")?.join(".cache/tipserve")))
            .ok_or(PullError::NoCacheFolder)?;
        for part in ["files", "bundles"] {
            let folder = root.join(part);
            fs::create_dir_all(&folder).map_err(PullError::disk(folder))?;
        }
        Ok(Kept(root))
    }

    fn file(&self, sha256: &str) -> PathBuf {
        self.0.join("files").join(sha256)
    }

    /// The bundle.toml of this digest, if it is here.
    ///
    /// # Errors
    /// It is here and cannot be read.
    pub fn listing(&self, sha256: &str) -> Result<Option<Vec<u8>>, PullError> {
        let path = self.file(sha256);
        match fs::read(&path) {
            Ok(text) => Ok((digest(&text) == sha256).then_some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PullError::disk(path)(error)),
        }
    }

    /// The signature of the bundle.toml of this digest, if it is here.
    pub fn signature(&self, sha256: &str) -> Option<Vec<u8>> {
        fs::read(self.file(sha256).with_extension("minisig")).ok()
    }

    /// Keeps a signature that was checked.
    ///
    /// # Errors
    /// [`PullError::Disk`].
    pub fn keep_signature(&self, sha256: &str, signature: &[u8]) -> Result<(), PullError> {
        let path = self.file(sha256).with_extension("minisig");
        write_whole(&path, signature).map_err(PullError::disk(path))
    }

    /// Fetches a file unless it is here, whole. Returns the bytes that were fetched.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn fetch(
        &self,
        downloader: &Downloader,
        file: &File,
        bar: &ProgressBar,
    ) -> Result<u64, PullError> {
        let path = self.file(&file.sha256);
        // Two at once: one fetches, the other waits and finds it here. The lock
        // goes with the process that holds it.
        let lock = locked(path.with_extension("lock"))?;
        if let Some(length) = whole(&path, &file.sha256).map_err(PullError::disk(&path))? {
            bar.inc(length);
            return Ok(0);
        }
        let part = path.with_extension("part");
        let fetched = downloader.fetch(file, &part, bar).await?;
        fs::rename(&part, &path).map_err(PullError::disk(&path))?;
        drop(lock);
        Ok(fetched)
    }

    /// The bundle's folder, and the bytes of its files.
    ///
    /// # Errors
    /// [`PullError::Disk`].
    pub fn assemble(
        &self,
        listing: &Listing,
        sha256: &str,
        text: &[u8],
    ) -> Result<(PathBuf, u64), PullError> {
        let bundles = self.0.join("bundles");
        let own = self.file(sha256);
        if fs::read(&own).ok().as_deref() != Some(text) {
            write_whole(&own, text).map_err(PullError::disk(&own))?;
        }
        let files = || {
            listing
                .files
                .iter()
                .map(|(name, sha256)| (name.as_str(), self.file(sha256)))
        };
        let mut size = text.len() as u64;
        for (_, path) in files() {
            size += path.metadata().map_err(PullError::disk(&path))?.len();
        }
        let plain = |c: char| match c {
            c if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
            _ => '-',
        };
        let name: String = listing.name.chars().map(plain).take(64).collect();
        let short = sha256.get(..SHORT).unwrap_or(sha256);
        let folder = bundles.join(format!("{}-{short}", name.trim_start_matches('.')));
        let all = || files().chain([(LISTING, own.clone())]);
        let is_whole = || all().all(|(name, path)| is_same(&path, &folder.join(name)));
        if is_whole() {
            return Ok((folder, size));
        }
        // Under another name until it is whole.
        let made = new_folder(&bundles)?;
        for (name, path) in all() {
            link(&path, &made.path().join(name))?;
        }
        if folder.exists() {
            // It has a file that was damaged. A server that reads it keeps what it has open.
            let old = new_folder(&bundles)?;
            fs::rename(&folder, old.path().join("old")).map_err(PullError::disk(&folder))?;
        }
        match fs::rename(made.path(), &folder) {
            Ok(()) => drop(made.keep()),
            // Somebody else was faster.
            Err(_) if is_whole() => {}
            Err(error) => return Err(PullError::disk(folder)(error)),
        }
        Ok((folder, size))
    }

    /// A bundle's folder once more, at a place of its own.
    ///
    /// # Errors
    /// There is something at that place; [`PullError::Disk`].
    pub fn copy_to(&self, bundle: &Path, folder: &Path) -> Result<PathBuf, PullError> {
        is_new(folder)?;
        let beside = match folder.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(beside).map_err(PullError::disk(beside))?;
        // There whole, or not at all.
        let made = new_folder(beside)?;
        for entry in fs::read_dir(bundle).map_err(PullError::disk(bundle))? {
            let entry = entry.map_err(PullError::disk(bundle))?;
            link(&entry.path(), &made.path().join(entry.file_name()))?;
        }
        fs::rename(made.path(), folder).map_err(PullError::disk(folder))?;
        drop(made.keep());
        Ok(folder.to_owned())
    }
}

/// Whether a bundle can be put there.
///
/// # Errors
/// [`PullError::Exists`].
pub(super) fn is_new(folder: &Path) -> Result<(), PullError> {
    match folder.symlink_metadata() {
        Ok(_) => Err(PullError::Exists {
            path: folder.to_owned(),
        }),
        Err(_) => Ok(()),
    }
}

/// A folder that goes unless it is kept.
fn new_folder(within: &Path) -> Result<tempfile::TempDir, PullError> {
    let made = readable(0o777).tempdir_in(within);
    made.map_err(PullError::disk(within))
}

/// Temporary files and folders with the permissions of others: a server that runs
/// as somebody else, as in a container, may read what was pulled.
fn readable(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".new-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    builder
}

/// A hard link, or a copy if there can be none. Never writes to what is there:
/// that may be another file's link.
fn link(from: &Path, to: &Path) -> Result<(), PullError> {
    let copy = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        let mut new = fs::File::create_new(to)?;
        io::copy(&mut fs::File::open(from)?, &mut new).map(drop)
    };
    fs::hard_link(from, to)
        .or_else(copy)
        .map_err(PullError::disk(to))
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = readable(0o666).tempfile_in(folder)?;
    fs::write(file.path(), text)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The length of a file, if it is there and has this digest.
fn whole(path: &Path, sha256: &str) -> io::Result<Option<u64>> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hasher = Sha256::new();
    let length = io::copy(&mut file, &mut hasher)?;
    Ok((hex(&hasher.finalize()) == sha256).then_some(length))
}

/// Whether a file of a bundle is the kept one, whose bytes were checked: a link to
/// it, or a copy.
fn is_same(kept: &Path, linked: &Path) -> bool {
    let digest = kept.file_name().and_then(|name| name.to_str());
    same_file::is_same_file(kept, linked).unwrap_or(false)
        || digest.is_some_and(|digest| matches!(whole(linked, digest), Ok(Some(_))))
}

/// A lock that ends with its file.
fn locked(path: PathBuf) -> Result<fs::File, PullError> {
    let open = || {
        let file = fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    let opened: io::Result<fs::File> = match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::task::block_in_place(open),
        Err(_) => open(),
    };
    opened.map_err(PullError::disk(&path))
}

/// The sha256 of some bytes, lower-case hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
