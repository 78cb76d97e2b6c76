//! Values read from files, and read again when the files' bytes change.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::OpenError;
use crate::telemetry;

/// A value made of files' bytes.
pub trait FromFiles: Sized {
    /// The paths of the files that it is read from.
    type Files;
    /// What it is, as metrics and logs name it.
    const KIND: &'static str;

    /// The files, each with a description.
    fn files(files: &Self::Files) -> Vec<(&'static str, PathBuf)>;

    /// The value. `bytes` are the files', in the order of [`FromFiles::files`];
    /// `previous` is the value in force.
    ///
    /// # Errors
    /// Bytes that do not make a value.
    fn make(
        files: &Self::Files,
        bytes: &[Vec<u8>],
        previous: Option<&Self>,
    ) -> Result<Self, OpenError>;

    /// It is in force now.
    fn took_effect(&self);
}

/// The value in force, and the files it is read from.
pub struct Reloaded<T: FromFiles> {
    files: T::Files,
    now: ArcSwap<T>,
    /// Hash of the bytes last tried, and of the error last told.
    tried: Mutex<(blake3::Hash, Option<OpenError>)>,
}

fn read<T: FromFiles>(files: &T::Files) -> Result<(Vec<Vec<u8>>, blake3::Hash), OpenError> {
    let mut hasher = blake3::Hasher::new();
    let mut contents = Vec::new();
    for (what, path) in T::files(files) {
        let bytes = std::fs::read(&path).map_err(|error| OpenError::Read {
            what,
            path,
            reason: error.to_string(),
        })?;
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
        contents.push(bytes);
    }
    Ok((contents, hasher.finalize()))
}

impl<T: FromFiles> Reloaded<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn open(files: T::Files) -> Result<Reloaded<T>, OpenError> {
        let (bytes, hash) = read::<T>(&files)?;
        let value = T::make(&files, &bytes, None)?;
        value.took_effect();
        Ok(Reloaded {
            files,
            now: ArcSwap::from_pointee(value),
            tried: Mutex::new((hash, None)),
        })
    }

    /// The value in force: the last that was read whole and valid.
    pub fn now(&self) -> Arc<T> {
        self.now.load_full()
    }

    /// Reads the files again. If their bytes have changed and are valid, the
    /// new value takes effect; if they are invalid, the old one stays, and the
    /// reason is logged once. (A certificate and its key are two files: between
    /// the writing of the one and of the other they do not fit.)
    ///
    /// Returns whether a new value is in force.
    pub fn refresh(&self) -> bool {
        let mut tried = self.tried.lock();
        let attempt = read::<T>(&self.files).and_then(|(bytes, hash)| {
            if hash == tried.0 && tried.1.is_none() {
                return Ok(None);
            }
            tried.0 = hash;
            T::make(&self.files, &bytes, Some(&self.now.load())).map(Some)
        });
        match attempt {
            Ok(None) => false,
            Ok(Some(value)) => {
                value.took_effect();
                self.now.store(Arc::new(value));
                tried.1 = None;
                telemetry::auth_reloaded(T::KIND, true);
                tracing::info!(kind = T::KIND, "read anew; in force from now on");
                true
            }
            Err(error) => {
                if tried.1.as_ref() != Some(&error) {
                    telemetry::auth_reloaded(T::KIND, false);
                    tracing::error!(
                        kind = T::KIND, %error,
                        "cannot be used; what was in force before stays"
                    );
                }
                tried.1 = Some(error);
                false
            }
        }
    }
}
