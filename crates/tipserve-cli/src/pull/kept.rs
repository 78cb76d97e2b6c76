//! What was fetched, kept by its content.
//!
//! ```text
//! files/SHA256         a file, whole and checked
//! files/SHA256.part    its beginning
//! files/SHA256.lock    locked while it is fetched
//! bundles/NAME-SHA256/ a bundle: hard links to its files, and its bundle.toml
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

use super::{Downloader, File, Listing, PullError};

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

    /// Fetches a file unless it is here. Returns the bytes that were fetched.
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
        if let Ok(found) = path.metadata() {
            bar.inc(found.len());
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
        if !own.exists() {
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
        if folder.join("bundle.toml").is_file() {
            return Ok((folder, size));
        }
        // Under another name until it is whole.
        let made = tempfile::TempDir::with_prefix_in(".new-", &bundles)
            .map_err(PullError::disk(&bundles))?;
        for (name, path) in files().chain([("bundle.toml", own.clone())]) {
            link(&path, &made.path().join(name))?;
        }
        let made = made.keep();
        match fs::rename(&made, &folder) {
            Ok(()) => {}
            // Somebody else was faster.
            Err(_) if folder.join("bundle.toml").is_file() => {
                let _ = fs::remove_dir_all(&made);
            }
            Err(error) => return Err(PullError::disk(folder)(error)),
        }
        Ok((folder, size))
    }

    /// A bundle's folder once more, at a place of its own.
    ///
    /// # Errors
    /// There is something at that place; [`PullError::Disk`].
    pub fn copy_to(&self, bundle: &Path, folder: &Path) -> Result<PathBuf, PullError> {
        fs::create_dir(folder).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => PullError::Exists {
                path: folder.to_owned(),
            },
            _ => PullError::disk(folder)(error),
        })?;
        for entry in fs::read_dir(bundle).map_err(PullError::disk(bundle))? {
            let entry = entry.map_err(PullError::disk(bundle))?;
            link(&entry.path(), &folder.join(entry.file_name()))?;
        }
        Ok(folder.to_owned())
    }
}

/// A hard link, or a copy if there can be none.
fn link(from: &Path, to: &Path) -> Result<(), PullError> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .map_err(PullError::disk(to))
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(file.path(), text)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
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
