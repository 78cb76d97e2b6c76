//! A bucket in memory that counts what is asked of it, and does something
//! wrong once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};

/// What the bucket does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A version's tensors are gone once its manifest is there.
    TensorsVanish,
    /// They are shorter than they were.
    TensorsCut,
    /// The answer to the making of a manifest is lost, and the manifest cannot
    /// be looked at.
    ManifestUnanswered,
}

#[derive(Clone)]
pub struct Faulty {
    objects: Arc<InMemory>,
    fault: Fault,
    armed: Arc<AtomicBool>,
    blind: Arc<AtomicBool>,
    pub lists: Arc<AtomicUsize>,
}

impl Faulty {
    pub fn new(fault: Fault) -> Self {
        Self {
            objects: Arc::default(),
            fault,
            armed: Arc::default(),
            blind: Arc::default(),
            lists: Arc::default(),
        }
    }

    /// The fault happens at the next chance, once.
    pub fn arm(&self) {
        self.armed.store(true, SeqCst);
    }

    /// Makes the bucket work again from now on.
    pub fn heal(&self) {
        self.blind.store(false, SeqCst);
    }

    fn lost() -> object_store::Error {
        object_store::Error::Generic {
            store: "faulty",
            source: "connection reset".into(),
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let put = self.objects.put_opts(location, payload, opts).await?;
        let is_manifest = location.filename() == Some("manifest.json");
        if is_manifest && self.armed.swap(false, SeqCst) {
            let folder: Path = location.parts().take(4).collect();
            let beside = self
                .objects
                .list_with_delimiter(Some(&folder))
                .await?
                .objects;
            let tensors = beside.iter().find(|o| o.location != *location);
            let tensors = &tensors.expect("tensors").location;
            match self.fault {
                Fault::None => {}
                Fault::TensorsVanish => self.objects.delete(tensors).await?,
                Fault::TensorsCut => {
                    self.objects.put(tensors, "short".into()).await?;
                }
                Fault::ManifestUnanswered => {
                    self.blind.store(true, SeqCst);
                    return Err(Self::lost());
                }
            }
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.blind.load(SeqCst) {
            return Err(Self::lost());
        }
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, SeqCst);
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.lists.fetch_add(1, SeqCst);
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
