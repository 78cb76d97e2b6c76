//! Caches, their versions and aliases, in memory.

use std::sync::Arc;

use tipserve_api::v1::{self as pb, cache_service_server::CacheService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Events, Service, Unfinished, seen,
    state::{check_cache_id, count_labels, no_cache, rejection},
};

impl Service {
    async fn silence(&self) {
        if self.behaviour.silent {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl CacheService for Service {
    type CreateCacheStream = Events<pb::CreateCacheResponse>;

    async fn create_cache(
        &self,
        request: Request<Streaming<pb::CreateCacheRequest>>,
    ) -> Result<Response<Self::CreateCacheStream>, Status> {
        use pb::{create_cache_request::Payload, create_cache_response::Event};
        let mut incoming = request.into_inner();
        let Some(Payload::Spec(spec)) = incoming.message().await?.and_then(|it| it.payload) else {
            return Err(Status::invalid_argument("the spec must come first"));
        };
        check_cache_id(&spec.cache_id)?;
        self.locked().check(&spec.cache_id, &spec.etag)?;
        let mut gate = self.gate.subscribe();
        let gated = self.behaviour.gated;
        let this = self.arc();
        let (events, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut unfinished = Unfinished(Arc::clone(&this), true);
            this.creating.notify_one();
            if gated {
                let _ = gate.wait_for(|open| *open).await;
            }
            let mut counts = vec![0; spec.classes.len()];
            loop {
                let message = match incoming.message().await {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(_) => return,
                };
                let size = prost::Message::encoded_len(&message);
                let Some(Payload::Examples(batch)) = message.payload else {
                    return;
                };
                for example in batch.examples {
                    if let Err(message) = seen(example.input.as_ref()) {
                        let event = Some(Event::Rejected(rejection(example, message)));
                        let _ = events.send(Ok(pb::CreateCacheResponse { event })).await;
                        continue;
                    }
                    count_labels(&mut counts, &spec, &example);
                    this.state.lock().unwrap().examples.push(example);
                }
                let mut state = this.state.lock().unwrap();
                state.largest_message = state.largest_message.max(size);
            }
            // tonic shows a cancelled request stream as one that has ended; the
            // side that answers learns of it a moment later.
            tokio::select! {
                () = events.closed() => return,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            let version = {
                let mut state = this.state.lock().unwrap();
                let names = spec.classes.iter().map(|class| class.display_name.clone());
                let version = state.add(&spec.cache_id, names.zip(counts).collect(), spec.method);
                state.specs.push(spec);
                version
            };
            unfinished.1 = false;
            let progress = pb::CreateProgress {
                stage: 3,
                ..Default::default()
            };
            let event = Some(Event::Progress(progress));
            let _ = events.send(Ok(pb::CreateCacheResponse { event })).await;
            let event = Some(Event::Version(version));
            let _ = events.send(Ok(pb::CreateCacheResponse { event })).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_cache(
        &self,
        request: Request<pb::GetCacheRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        self.silence().await;
        self.locked()
            .cache(&request.get_ref().name)
            .map(Response::new)
    }

    /// Pages of one, so that paging is seen to work.
    async fn list_caches(
        &self,
        request: Request<pb::ListCachesRequest>,
    ) -> Result<Response<pb::ListCachesResponse>, Status> {
        let mut state = self.locked();
        state.filters.push(request.get_ref().filter.clone());
        let at: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let ids: Vec<_> = state.caches.keys().cloned().collect();
        let caches = ids
            .get(at)
            .map(|id| state.cache(id))
            .transpose()?
            .into_iter()
            .collect();
        let next_page_token = if at + 1 < ids.len() {
            (at + 1).to_string()
        } else {
            String::new()
        };
        Ok(Response::new(pb::ListCachesResponse {
            caches,
            next_page_token,
        }))
    }

    async fn delete_cache(
        &self,
        request: Request<pb::DeleteCacheRequest>,
    ) -> Result<Response<()>, Status> {
        self.silence().await;
        let pb::DeleteCacheRequest { name: id, etag } = request.into_inner();
        let mut state = self.locked();
        state.check(&id, &etag)?;
        state
            .caches
            .remove(&id)
            .map(|_| Response::new(()))
            .ok_or_else(|| no_cache(&id))
    }

    async fn get_version(
        &self,
        request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::Version>, Status> {
        self.locked()
            .version(&request.get_ref().name)
            .cloned()
            .map(Response::new)
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let state = self.locked();
        let id = request.into_inner().parent;
        let mut versions = state
            .caches
            .get(&id)
            .cloned()
            .ok_or_else(|| no_cache(&id))?;
        versions.reverse();
        Ok(Response::new(pb::ListVersionsResponse {
            versions,
            next_page_token: String::new(),
        }))
    }

    async fn set_alias(
        &self,
        request: Request<pb::SetAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        self.silence().await;
        let pb::SetAliasRequest {
            cache,
            alias,
            version,
            etag,
        } = request.into_inner();
        let mut state = self.locked();
        state.check(&cache, &etag)?;
        state.version(&format!("{cache}@{version}"))?;
        state
            .aliases
            .entry(cache.clone())
            .or_default()
            .insert(alias, version);
        state.changed(&cache);
        state.cache(&cache).map(Response::new)
    }

    async fn delete_alias(
        &self,
        request: Request<pb::DeleteAliasRequest>,
    ) -> Result<Response<pb::Cache>, Status> {
        let pb::DeleteAliasRequest { cache, alias, etag } = request.into_inner();
        let mut state = self.locked();
        state.check(&cache, &etag)?;
        let removed = state
            .aliases
            .entry(cache.clone())
            .or_default()
            .remove(&alias);
        removed.ok_or_else(|| Status::not_found(format!("{cache} has no alias {alias:?}")))?;
        state.changed(&cache);
        state.cache(&cache).map(Response::new)
    }

    type AddExamplesStream = Events<pb::AddExamplesResponse>;

    async fn add_examples(
        &self,
        request: Request<Streaming<pb::AddExamplesRequest>>,
    ) -> Result<Response<Self::AddExamplesStream>, Status> {
        use pb::{add_examples_request::Payload, add_examples_response::Event};
        let mut incoming = request.into_inner();
        let Some(Payload::Spec(spec)) = incoming.message().await?.and_then(|it| it.payload) else {
            return Err(Status::invalid_argument("the spec must come first"));
        };
        let base = self.locked().version(&spec.base)?.clone();
        let id = base.name.split('/').nth(1).unwrap_or_default().to_owned();
        self.locked().check(&id, &spec.etag)?;
        let mut classes: Vec<_> = base
            .classes
            .iter()
            .map(|class| (class.display_name.clone(), class.example_count))
            .collect();
        let new = spec.new_classes.iter();
        classes.extend(new.map(|class| (class.display_name.clone(), 0)));
        let mut events = Vec::new();
        let mut received = 0;
        while let Some(message) = incoming.message().await? {
            let Some(Payload::Examples(batch)) = message.payload else {
                return Err(Status::invalid_argument("the spec must come first alone"));
            };
            for example in batch.examples {
                received += 1;
                if let Err(message) = seen(example.input.as_ref()) {
                    events.push(Event::Rejected(pb::RejectedExample {
                        example_id: example.example_id,
                        code: 3,
                        message,
                        reason: "PICTURE_UNDECODABLE".into(),
                    }));
                    continue;
                }
                if !example.validation {
                    classes[example.class_index as usize].1 += 1;
                }
                self.locked().examples.push(example);
            }
        }
        let mut state = self.locked();
        let mut version = state.add(&id, classes, spec.method);
        version.parent = base.name;
        version.source = Some(pb::SourceCounts {
            received,
            rejected: events.len() as i64,
            inherited: base.key_count - spec.remove_example_ids.len() as i64,
            removed: spec.remove_example_ids.len() as i64,
            without_end_mark: 0,
        });
        state.additions.push(spec);
        events.push(Event::Version(version));
        let events = events.into_iter().map(|event| {
            let event = Some(event);
            Ok(pb::AddExamplesResponse { event })
        });
        let events: Vec<_> = events.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn get_example_picture(
        &self,
        _: Request<pb::GetExamplePictureRequest>,
    ) -> Result<Response<pb::ExamplePicture>, Status> {
        Err(Status::not_found("no pictures are kept here"))
    }

    /// Three examples on two pages.
    async fn list_examples(
        &self,
        request: Request<pb::ListExamplesRequest>,
    ) -> Result<Response<pb::ListExamplesResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.locked();
        let version = state.version(&request.parent)?.clone();
        state.filters.push(request.filter);
        let one = |at: i32| pb::ExampleInfo {
            example_id: format!("x/{at}.jpg"),
            class_index: at % version.classes.len() as i32,
            display_name: version.classes[at as usize % version.classes.len()]
                .display_name
                .clone(),
            validation: at == 2,
            ..pb::ExampleInfo::default()
        };
        let (numbers, next) = match request.page_token.as_str() {
            "" => (0..2, "2"),
            _ => (2..3, ""),
        };
        Ok(Response::new(pb::ListExamplesResponse {
            examples: numbers.map(one).collect(),
            next_page_token: next.to_owned(),
        }))
    }

    async fn delete_version(
        &self,
        request: Request<pb::DeleteVersionRequest>,
    ) -> Result<Response<()>, Status> {
        let pb::DeleteVersionRequest { name, etag } = request.into_inner();
        let mut state = self.locked();
        let version = state.version(&name)?.clone();
        let id = version.name.split('/').nth(1).unwrap_or_default();
        state.check(id, &etag)?;
        let aliases = state.aliases.get(id);
        if aliases.is_some_and(|aliases| aliases.values().any(|it| *it == version.version)) {
            return Err(Status::failed_precondition("an alias points at it"));
        }
        state.changed(id);
        let versions = state.caches.get_mut(id).unwrap();
        versions.retain(|it| it.version != version.version);
        Ok(Response::new(()))
    }

    async fn prune_versions(
        &self,
        request: Request<pb::PruneVersionsRequest>,
    ) -> Result<Response<pb::PruneVersionsResponse>, Status> {
        self.silence().await;
        let request = request.into_inner();
        let mut state = self.locked();
        let versions = state.caches.get(&request.name);
        let versions = versions.ok_or_else(|| no_cache(&request.name))?;
        let aliased: Vec<_> = state
            .aliases
            .get(&request.name)
            .map(|aliases| aliases.values().copied().collect())
            .unwrap_or_default();
        let deleted_versions: Vec<_> = versions
            .iter()
            .rev()
            .skip(request.keep as usize)
            .map(|version| version.version)
            .filter(|version| !aliased.contains(version))
            .collect();
        state.check(&request.name, &request.etag)?;
        if !request.validate_only {
            let versions = state.caches.get_mut(&request.name).unwrap();
            versions.retain(|version| !deleted_versions.contains(&version.version));
            state.changed(&request.name);
        }
        Ok(Response::new(pb::PruneVersionsResponse {
            deleted_versions,
        }))
    }

    type ExportVersionStream = Events<pb::ExportVersionResponse>;

    async fn export_version(
        &self,
        request: Request<pb::ExportVersionRequest>,
    ) -> Result<Response<Self::ExportVersionStream>, Status> {
        use pb::export_version_response::Payload;
        let version = self.locked().version(&request.get_ref().name)?.clone();
        let file = &self.behaviour.export;
        let header = Payload::Header(pb::ExportHeader {
            version: Some(version),
            size_bytes: file.len() as i64,
        });
        let sent = &file[..file.len() - self.behaviour.export_lacks];
        let chunks = sent
            .chunks(1 << 20)
            .map(|chunk| Payload::Chunk(chunk.to_vec().into()));
        let answers: Vec<_> = std::iter::once(header)
            .chain(chunks)
            .map(|payload| {
                let payload = Some(payload);
                Ok(pb::ExportVersionResponse { payload })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn import_version(
        &self,
        request: Request<Streaming<pb::ImportVersionRequest>>,
    ) -> Result<Response<pb::Version>, Status> {
        use pb::import_version_request::Payload;
        let mut incoming = request.into_inner();
        let Some(Payload::Spec(spec)) = incoming.message().await?.and_then(|it| it.payload) else {
            return Err(Status::invalid_argument("the spec must come first"));
        };
        if self.behaviour.refuses_imports {
            return Err(Status::failed_precondition("another bundle made it"));
        }
        self.locked().check(&spec.cache_id, &spec.etag)?;
        let mut file = Vec::new();
        while let Some(message) = incoming.message().await? {
            if let Some(Payload::Chunk(chunk)) = message.payload {
                file.extend_from_slice(&chunk);
            }
        }
        if file.len() as i64 != spec.size_bytes {
            return Err(Status::invalid_argument("cut off"));
        }
        let mut state = self.locked();
        let version = state.add(&spec.cache_id, vec![("x".to_owned(), 1)], 1);
        state.imports.push((spec, file));
        Ok(Response::new(version))
    }
}
