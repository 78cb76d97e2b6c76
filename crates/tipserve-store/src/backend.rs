//! The objects under the store: a local folder, S3, Google Cloud Storage or
//! Azure Blob Storage, with the few operations that the store's rules rest on.

use std::{fs::File, io, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, WriteMultipart,
    local::LocalFileSystem, path::Path,
};

pub(crate) use super::failures::chain;
use super::{
    StoreError, environment::Environment, failures, layout, mapped::read_file,
    wire::RequestObserver,
};

/// Bytes of one part of a large transfer to or from a bucket.
const PART_BYTES: usize = 16 << 20;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Objects up to this size are sent to a bucket in one request.
const SINGLE_PUT_BYTES: u64 = 64 << 20;
/// Work on up to this many bytes is done on the calling thread; more goes to
/// one that may block.
const SMALL_WORK_BYTES: usize = 64 << 10;

/// What a store needs besides its objects.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) observer: Arc<dyn RequestObserver>,
}

pub(crate) struct Backend {
    objects: Arc<dyn ObjectStore>,
    /// The folder of a local store.
    folder: Option<PathBuf>,
    surroundings: Surroundings,
}

impl Backend {
    /// The storage `objects`, one of a bucket's kind: what it acknowledges is
    /// durable.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>, surroundings: Surroundings) -> Self {
        Self {
            objects,
            folder: None,
            surroundings,
        }
    }

    /// A backend in a local folder, which exists.
    pub(crate) fn in_folder(
        objects: LocalFileSystem,
        folder: PathBuf,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            objects: Arc::new(objects),
            folder: Some(folder),
            surroundings,
        }
    }

    /// Where the store gets its time, randomness and background tasks.
    pub(crate) fn environment(&self) -> &dyn Environment {
        &*self.surroundings.environment
    }

    /// The folder of a local store.
    pub(crate) fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    fn error(&self, doing: &str, error: &object_store::Error) -> StoreError {
        failures::of(doing, error, self.folder.is_some())
    }

    /// An error of a write. Once the disk has failed to take it, nothing of it
    /// is trusted: the kernel may show bytes that never reached the disk.
    fn write_error(&self, doing: &str, error: &object_store::Error) -> StoreError {
        if self.folder.is_some() && failures::is_of_the_disk(error) {
            return self.not_durable(doing, chain(error));
        }
        self.error(doing, error)
    }

    fn not_durable(&self, doing: &str, detail: String) -> StoreError {
        self.surroundings.observer.write_distrusted();
        let doing = doing.to_owned();
        let error = StoreError::NotDurable { doing, detail };
        tracing::error!(%error, "a write is not trusted");
        error
    }

    /// Makes a new object, durably, if there is none of that path; returns
    /// whether it is ours. `body` must be unlike any other writer's (it holds a
    /// nonce), so that an answer lost on the way is told from a lost race.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] where the object may be there and may be gone
    /// after a power loss; else those of the storage.
    pub(crate) async fn create(&self, path: &Path, body: Bytes) -> Result<bool, StoreError> {
        let doing = format!("writing {path}");
        let mut tries = 0;
        let ours = loop {
            let options = PutOptions::from(PutMode::Create);
            let put = self
                .objects
                .put_opts(path, PutPayload::from(body.clone()), options)
                .await;
            let Err(error) = put else { break true };
            let lost = matches!(error, object_store::Error::AlreadyExists { .. });
            let there = self.read(path, body.len() as u64).await;
            let is_ours = matches!(&there, Ok(Some(there)) if *there == body);
            if self.folder.is_some() && !lost {
                // The name appeared, and what should have made it durable
                // failed. (A bucket's answer that was lost is another matter:
                // what can be read from a bucket is durable.)
                return Err(match is_ours {
                    true => self.not_durable(&doing, chain(&error)),
                    false => self.write_error(&doing, &error),
                });
            }
            match there {
                _ if is_ours => break true,
                Ok(Some(_)) | Err(StoreError::TooLarge { .. }) if lost => break false,
                // S3 answers 409 to both of two writers at once.
                Ok(None) if lost && tries < 5 => {
                    tries += 1;
                    let pause = Duration::from_millis(20 << tries);
                    self.environment().sleep(pause).await;
                }
                _ => return Err(self.error(&doing, &error)),
            }
        };
        if ours {
            self.sync_folders(path).await?;
        }
        Ok(ours)
    }

    /// Makes every folder above a local object durable. `object_store` syncs
    /// those that it makes; this covers those that another writer had made a
    /// moment before and not yet synced.
    async fn sync_folders(&self, path: &Path) -> Result<(), StoreError> {
        let Some(root) = self.folder.clone() else {
            return Ok(());
        };
        let mut folders = vec![root.clone()];
        let mut folder = root;
        let depth = path.parts().count();
        for part in path.parts().take(depth.saturating_sub(1)) {
            folder.push(part.as_ref());
            folders.push(folder.clone());
        }
        let doing = format!("syncing the folders of {path}");
        blocking(&doing, move || {
            folders.iter().rev().try_for_each(|folder| {
                File::open(folder)
                    .and_then(|f| f.sync_all())
                    .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))
            })
        })
        .await?
        .map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
                doing: doing.clone(),
                detail: error.to_string(),
            },
            _ => self.not_durable(&doing, error.to_string()),
        })
    }

    /// Writes a large object, durably. No other writer may use its path.
    pub(crate) async fn put(
        &self,
        path: &Path,
        chunks: Vec<Bytes>,
        size: u64,
    ) -> Result<(), StoreError> {
        let doing = format!("writing {path}");
        if self.folder.is_some() || size <= SINGLE_PUT_BYTES {
            let payload: PutPayload = chunks.into_iter().collect();
            self.objects
                .put(path, payload)
                .await
                .map_err(|e| self.write_error(&doing, &e))?;
            return Ok(());
        }
        let upload = self
            .objects
            .put_multipart(path)
            .await
            .map_err(|e| self.error(&doing, &e))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part_bytes(size));
        let mut outcome = Ok(());
        for part in chunks.iter().flat_map(|chunk| slices(chunk, PART_BYTES)) {
            outcome = writer.wait_for_capacity(PARTS_AT_ONCE).await;
            if outcome.is_err() {
                break;
            }
            writer.put(part);
        }
        let outcome = match outcome {
            Ok(()) => writer.finish().await.map(|_| ()),
            Err(e) => {
                // Parts that cannot be taken back now expire with the bucket's
                // own rule for unfinished uploads.
                let _ = writer.abort().await;
                Err(e)
            }
        };
        outcome.map_err(|e| self.error(&doing, &e))
    }

    /// A small object; none if it is absent.
    pub(crate) async fn read(&self, path: &Path, limit: u64) -> Result<Option<Bytes>, StoreError> {
        let doing = format!("reading {path}");
        let got = match self.objects.get(path).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(self.error(&doing, &e)),
        };
        if got.meta.size > limit {
            return Err(StoreError::TooLarge {
                what: path.to_string(),
                size: got.meta.size,
                limit,
            });
        }
        let bytes = got.bytes().await.map_err(|e| self.error(&doing, &e))?;
        Ok(Some(bytes))
    }

    /// A large object of `size` bytes: a local file is mapped, others are
    /// fetched in parts. None if it is absent.
    pub(crate) async fn read_large(
        &self,
        path: &Path,
        size: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let doing = format!("reading {path}");
        if let Some(folder) = &self.folder {
            let file = path
                .parts()
                .fold(folder.clone(), |at, part| at.join(part.as_ref()));
            let read = blocking(&doing, move || read_file(&file)).await?;
            return match read {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => {
                    let error = object_store::Error::Generic {
                        store: "folder",
                        source: source.into(),
                    };
                    Err(self.error(&doing, &error))
                }
            };
        }
        let step = PART_BYTES as u64;
        let starts = (0..size.div_ceil(step)).map(|i| i * step);
        let mut parts = stream::iter(starts)
            .map(|start| async move {
                let range = start..(start + step).min(size);
                self.objects.get_range(path, range).await
            })
            .buffered(PARTS_AT_ONCE);
        let mut whole = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        loop {
            match parts.try_next().await {
                Ok(Some(part)) => whole.extend_from_slice(&part),
                Ok(None) => break,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(e) => return Err(self.error(&doing, &e)),
            }
        }
        Ok(Some(whole.into()))
    }

    /// Some bytes of an object, fewer if it ends earlier; none if it is absent.
    pub(crate) async fn read_range(
        &self,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.objects.get_range(path, range).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(&format!("reading {path}"), &e)),
        }
    }

    /// Size, time and etag of an object; none if it is absent.
    pub(crate) async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, StoreError> {
        match self.objects.head(path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(&format!("looking at {path}"), &e)),
        }
    }

    /// Copies an object within the storage, durably.
    pub(crate) async fn copy(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.objects
            .copy(from, to)
            .await
            .map_err(|e| self.write_error(&format!("copying {from} to {to}"), &e))
    }

    /// Removes objects; those already gone are fine. Tries all before it
    /// reports the first failure.
    pub(crate) async fn delete(&self, paths: Vec<Path>) -> Result<(), StoreError> {
        let mut first = Ok(());
        for path in paths {
            match self.objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => first = first.and(Err(self.error(&format!("removing {path}"), &e))),
            }
        }
        first
    }

    /// Every object under `prefix`, at any depth; none if there is no such
    /// folder.
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let found = self.objects.list(Some(prefix)).try_collect().await;
        match found {
            Ok(found) => Ok(found),
            Err(object_store::Error::NotFound { .. }) if self.folder.is_some() => Ok(Vec::new()),
            Err(e) => Err(self.error(&format!("listing {prefix}"), &e)),
        }
    }

    /// Names of the folders directly under `prefix`.
    pub(crate) async fn folders(&self, prefix: &Path) -> Result<Vec<String>, StoreError> {
        match self.objects.list_with_delimiter(Some(prefix)).await {
            Ok(found) => Ok(found
                .common_prefixes
                .iter()
                .filter_map(|path| path.filename().map(str::to_owned))
                .collect()),
            Err(object_store::Error::NotFound { .. }) if self.folder.is_some() => Ok(Vec::new()),
            Err(e) => Err(self.error(&format!("listing {prefix}"), &e)),
        }
    }

    /// The time by the clock that dates this storage's objects.
    pub(crate) async fn clock(&self) -> Result<DateTime<Utc>, StoreError> {
        let nonce = layout::nonce(self.environment().random());
        let path = layout::clock_probe(&nonce);
        let doing = "asking the store for its time";
        self.objects
            .put(&path, PutPayload::from(nonce))
            .await
            .map_err(|e| self.error(doing, &e))?;
        let head = self.head(&path).await;
        // If it stays behind, it is swept like other leftovers.
        let _ = self.delete(vec![path]).await;
        let meta = head?.ok_or_else(|| StoreError::Storage {
            doing: doing.to_owned(),
            detail: "what was just written is not there".to_owned(),
        })?;
        Ok(meta.last_modified)
    }
}

/// S3 takes at most 10,000 parts.
fn part_bytes(size: u64) -> usize {
    PART_BYTES.max(usize::try_from(size.div_ceil(9_000)).unwrap_or(usize::MAX))
}

fn slices(chunk: &Bytes, step: usize) -> impl Iterator<Item = Bytes> + '_ {
    (0..chunk.len())
        .step_by(step)
        .map(move |start| chunk.slice(start..(start + step).min(chunk.len())))
}

/// Runs work on `bytes` bytes: on the calling thread if they are few, else on
/// one that may block.
pub(crate) async fn working<T: Send + 'static>(
    doing: &str,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    match bytes <= SMALL_WORK_BYTES {
        true => Ok(work()),
        false => blocking(doing, work).await,
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| StoreError::Storage {
            doing: doing.to_owned(),
            detail: e.to_string(),
        })
}
