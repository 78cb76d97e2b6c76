//! A bucket in memory: consistent, create-if-absent, and at the scheduler's
//! mercy before and after each request.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, path::Path,
};

use super::executor::{Sim, Verdict};

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    modified: DateTime<Utc>,
    etag: u64,
}

#[derive(Clone, Default)]
pub struct Bucket {
    objects: Arc<Mutex<BTreeMap<Path, Object>>>,
}

impl Bucket {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Path, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn paths(&self) -> Vec<String> {
        self.lock().keys().map(ToString::to_string).collect()
    }
}

/// One client's connection to the bucket.
#[derive(Clone)]
pub struct Connection {
    pub sim: Sim,
    pub bucket: Bucket,
    pub client: usize,
    /// The client is never suspended.
    pub wakeful: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.client)
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.client)
    }
}

fn broken(what: &str) -> Error {
    Error::Generic {
        store: "simulated",
        source: what.into(),
    }
}

fn not_found(path: &Path) -> Error {
    Error::NotFound {
        path: path.to_string(),
        source: "no such object".into(),
    }
}

impl Connection {
    /// One request: asked for, done at one moment, answered later.
    async fn request<T>(
        &self,
        what: &str,
        path: &Path,
        effect: impl FnOnce(&mut BTreeMap<Path, Object>) -> Result<T>,
    ) -> Result<T> {
        let verdict = self.sim.turn(true, self.wakeful).await;
        let note = |how: &str| {
            self.sim
                .note(|| format!("client {} {what} {path}: {how}", self.client));
        };
        if verdict == Verdict::Failed {
            note("fails");
            return Err(broken("input/output error"));
        }
        let answer = effect(&mut self.bucket.lock());
        note(match (&answer, verdict) {
            (_, Verdict::AnswerLost) => "done, and the answer is lost",
            (Ok(_), _) => "done",
            (Err(_), _) => "refused",
        });
        self.sim.turn(false, self.wakeful).await;
        match verdict {
            Verdict::AnswerLost => Err(broken("connection reset")),
            _ => answer,
        }
    }

    fn object(&self, bytes: Bytes) -> Object {
        Object {
            bytes,
            modified: self.sim.storage_time(),
            etag: self.sim.moment(),
        }
    }
}

fn meta(path: &Path, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: object.modified,
        size: object.bytes.len() as u64,
        e_tag: Some(object.etag.to_string()),
        version: None,
    }
}

#[async_trait::async_trait]
impl ObjectStore for Connection {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let bytes = Bytes::from(payload);
        self.request("puts", location, |objects| {
            if opts.mode == PutMode::Create && objects.contains_key(location) {
                return Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: "there already".into(),
                });
            }
            objects.insert(location.clone(), self.object(bytes));
            Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Default::default(),
            })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(broken("no multipart uploads"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "heads" } else { "gets" };
        let object = self
            .request(what, location, |objects| {
                let found = objects.get(location).cloned();
                found.ok_or_else(|| not_found(location))
            })
            .await?;
        let meta = meta(location, &object);
        let range = match options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|e| broken(&e.to_string()))?,
            None => 0..meta.size,
        };
        let Range { start, end } = range.clone();
        let bytes = object.bytes.slice(start as usize..end as usize);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
            meta,
            range,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .and_then(move |path| {
                let this = this.clone();
                async move {
                    this.request("deletes", &path, |objects| {
                        objects.remove(&path);
                        Ok(())
                    })
                    .await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            this.request("lists", &prefix, |objects| {
                let below = |path: &Path| path.prefix_match(&prefix).is_some() && *path != prefix;
                let found = objects.iter().filter(|(path, _)| below(path));
                Ok(found.map(|(path, object)| Ok(meta(path, object))).collect())
            })
            .await
            .unwrap_or_else(|e| vec![Err(e)])
        };
        stream::once(listed).flat_map(stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.request("lists", &prefix, |objects| {
            let mut result = ListResult {
                common_prefixes: Vec::new(),
                objects: Vec::new(),
                extensions: Default::default(),
            };
            for (path, object) in objects.iter() {
                let Some(mut rest) = path.prefix_match(&prefix) else {
                    continue;
                };
                let (first, more) = (rest.next(), rest.next().is_some());
                match first {
                    Some(part) if more => {
                        let folder = prefix.clone().join(part);
                        if result.common_prefixes.last() != Some(&folder) {
                            result.common_prefixes.push(folder);
                        }
                    }
                    Some(_) => result.objects.push(meta(path, object)),
                    None => {}
                }
            }
            Ok(result)
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request("copies", from, |objects| {
            let object = objects.get(from).cloned().ok_or_else(|| not_found(from))?;
            if options.mode == CopyMode::Create && objects.contains_key(to) {
                return Err(Error::AlreadyExists {
                    path: to.to_string(),
                    source: "there already".into(),
                });
            }
            objects.insert(to.clone(), self.object(object.bytes));
            Ok(())
        })
        .await
    }
}
