//! The objects under the store: a local folder, S3, Google Cloud Storage or
//! Azure Blob Storage, with the few operations that the store's rules rest on.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    BackoffConfig, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig, WriteMultipart, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};

use super::{
    StoreError,
    mapped::read_file,
    wire::{Observed, RequestObserver},
};

/// Bytes of one part of a large transfer to or from a bucket.
const PART_BYTES: usize = 16 << 20;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Objects up to this size are sent to a bucket in one request.
const SINGLE_PUT_BYTES: u64 = 64 << 20;
/// When a caller should try again after an outage.
const RETRY_AFTER: Duration = Duration::from_secs(2);

pub(crate) struct Backend {
    objects: Arc<dyn ObjectStore>,
    /// The folder, where the store is a local one.
    folder: Option<PathBuf>,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}

impl Backend {
    /// Opens the storage at `url`: a path, `file://`, `s3://`, `gs://` or
    /// `az://`. `settings` overrules what the environment says, by
    /// object_store's own keys ("aws_endpoint").
    pub(crate) async fn open(
        url: &str,
        settings: &[(String, String)],
        observer: &Arc<dyn RequestObserver>,
    ) -> Result<Self, StoreError> {
        let shown = shown(url);
        let fail = |e: &dyn std::error::Error| StoreError::Open {
            url: shown.clone(),
            detail: chain(e),
        };
        let backend = match url.split_once("://") {
            None => Self::open_folder(url.into()).map_err(|e| fail(&e))?,
            Some(("file", path)) => Self::open_folder(path.into()).map_err(|e| fail(&e))?,
            Some((scheme, rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let objects = open_bucket(scheme, bucket, settings, observer)
                    .ok_or_else(|| StoreError::Open {
                        url: shown.clone(),
                        detail: "a store is a folder, or file://, s3://, gs:// or az:// with \
                                 a bucket"
                            .into(),
                    })?
                    .map_err(|e| fail(&e))?;
                let prefix = Path::parse(prefix.trim_matches('/')).map_err(|e| fail(&e))?;
                let objects: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
                    objects
                } else {
                    Arc::new(PrefixStore::new(objects, prefix))
                };
                // Says now, not at the first request, that the bucket is
                // missing or refuses us.
                let probe = objects.list(Some(&Path::from("caches"))).next().await;
                if let Some(Err(e)) = probe {
                    return Err(fail(&e));
                }
                Self {
                    objects,
                    folder: None,
                }
            }
        };
        Ok(backend)
    }

    fn open_folder(path: PathBuf) -> Result<Self, object_store::Error> {
        let generic = |e: io::Error| object_store::Error::Generic {
            store: "folder",
            source: format!("{}: {e}", path.display()).into(),
        };
        std::fs::create_dir_all(&path).map_err(generic)?;
        let folder = path.canonicalize().map_err(generic)?;
        if let Some(parent) = folder.parent() {
            // The folder itself must survive, too; a parent that cannot be
            // opened is none of ours.
            let _ = File::open(parent).and_then(|f| f.sync_all());
        }
        let objects = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            folder: Some(folder),
        })
    }

    /// The folder, where the store is a local one.
    pub(crate) fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    fn error(&self, doing: &str, error: &object_store::Error) -> StoreError {
        let (doing, detail) = (doing.to_owned(), chain(error));
        use object_store::Error as E;
        match (error, io_kind(error)) {
            (_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => {
                StoreError::Full { doing, detail }
            }
            (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _)
            | (_, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)) => {
                StoreError::Refused { doing, detail }
            }
            // object_store gives a refused listing no kind of its own, and the
            // error that holds the status is not public.
            (E::Generic { .. }, _)
                if self.folder.is_none()
                    && ["status code: 401", "status code: 403"]
                        .iter()
                        .any(|status| detail.contains(status)) =>
            {
                StoreError::Refused { doing, detail }
            }
            (E::Generic { .. }, _) if self.folder.is_none() => StoreError::Unavailable {
                doing,
                detail,
                retry_after: RETRY_AFTER,
            },
            _ => StoreError::Storage { doing, detail },
        }
    }

    /// Makes a new object, durably, if there is none of that path; returns
    /// whether it is ours. `body` must be unlike any other writer's (it holds a
    /// nonce), so that an answer lost on the way is told from a lost race.
    pub(crate) async fn create(&self, path: &Path, body: Bytes) -> Result<bool, StoreError> {
        let doing = format!("writing {path}");
        let mut tries = 0;
        let ours = loop {
            let options = PutOptions::from(PutMode::Create);
            let put = self
                .objects
                .put_opts(path, PutPayload::from(body.clone()), options)
                .await;
            let error = match put {
                Ok(_) => break true,
                Err(e) => e,
            };
            let lost = matches!(error, object_store::Error::AlreadyExists { .. });
            match self.read(path, body.len() as u64).await {
                Ok(Some(there)) if there == body => break true,
                Ok(Some(_)) | Err(StoreError::TooLarge { .. }) if lost => break false,
                // S3 answers 409 to both of two writers at once.
                Ok(None) if lost && tries < 5 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20 << tries)).await;
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
        .map_err(|source| {
            let error = object_store::Error::Generic {
                store: "folder",
                source: source.into(),
            };
            self.error(&doing, &error)
        })
    }

    /// Writes a large object, durably. Its path must be nobody else's.
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
                .map_err(|e| self.error(&doing, &e))?;
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

    /// A small object; none where it is absent.
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

    /// A large object of `size` bytes: mapped where it is a local file, else
    /// fetched in parts. None where it is absent.
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

    /// Size, time and etag of an object; none where it is absent.
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
            .map_err(|e| self.error(&format!("copying {from} to {to}"), &e))
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

    /// Every object under `prefix`.
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
}

/// The address without anything that could be a secret.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{rest}")
        }
        None => url.to_owned(),
    }
}

type Opened = Result<Arc<dyn ObjectStore>, object_store::Error>;

fn open_bucket(
    scheme: &str,
    bucket: &str,
    settings: &[(String, String)],
    observer: &Arc<dyn RequestObserver>,
) -> Option<Opened> {
    if bucket.is_empty() {
        return None;
    }
    // Bounded, so that a bucket that is away is an error within seconds; the
    // caller decides about trying again.
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(15),
    };
    macro_rules! build {
        ($builder:expr) => {{
            let mut builder = $builder
                .with_retry(retry)
                .with_http_connector(Observed(Arc::clone(observer)));
            for (key, value) in settings {
                match key.parse() {
                    Ok(key) => builder = builder.with_config(key, value),
                    Err(e) => return Some(Err(e)),
                }
            }
            Some(builder.build().map(|b| Arc::new(b) as Arc<dyn ObjectStore>))
        }};
    }
    match scheme {
        "s3" | "s3a" => build!(AmazonS3Builder::from_env().with_bucket_name(bucket)),
        "gs" => build!(GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket)),
        "az" | "azure" => build!(MicrosoftAzureBuilder::from_env().with_container_name(bucket)),
        _ => None,
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
