//! `ExportVersion` and `ImportVersion`: a version as one file, in pieces.

use std::{sync::Arc, time::Instant};

use tokio_stream::{StreamExt as _, iter, once};
use tonic::{Code, Response, Status, Streaming, codegen::BoxStream};

use super::Caches;
use crate::{
    auth::Caller,
    catalog::ImportBounds,
    rpc::{
        cache_id,
        change::{Change, to_its_end, unless_reset},
        convert,
        error::ApiError,
        idempotency::request_key,
        observe::Call,
        reference,
        request::RequestError,
        uploads::Upload,
    },
};
use tipserve_api::v1::{self as pb, export_version_response, import_version_request::Payload};
use tipserve_store::{Condition, Needs};

/// Bytes of the file in one message.
const CHUNK: usize = 1 << 20;

fn order(problem: &'static str) -> ApiError {
    RequestError::Order { problem }.into()
}

fn part(payload: export_version_response::Payload) -> pb::ExportVersionResponse {
    pb::ExportVersionResponse {
        payload: Some(payload),
    }
}

impl Caches {
    pub(super) async fn export(
        &self,
        Change { caller, audit }: &Change,
        request: pb::ExportVersionRequest,
        deadline: Option<Instant>,
        call: &Call,
    ) -> Result<Response<BoxStream<pb::ExportVersionResponse>>, ApiError> {
        let catalog = &self.context.catalog;
        audit.resource(&request.name);
        let reference = reference(caller, &request.name)?;
        let (id, number) = catalog.store().resolve(&reference).await?;
        let caller = caller.quota();
        let (export, memory) = catalog.export(&id, number, caller.as_deref()).await?;
        let header = pb::ExportHeader {
            version: Some(convert::version(&export.manifest)),
            size_bytes: i64::try_from(export.size).unwrap_or(i64::MAX),
        };
        // The pieces are made as the client takes them; the call is counted
        // until its stream ends.
        let chunks = export.chunks(CHUNK);
        let parts = once(part(export_version_response::Payload::Header(header)))
            .chain(iter(chunks).map(|chunk| part(export_version_response::Payload::Chunk(chunk))))
            .map(Some)
            .chain(once(None));
        let call = call.clone();
        let parts = parts.filter_map(move |part| {
            // Kept until the client has taken all of it, or goes away.
            let _memory = &memory;
            match part {
                None => {
                    call.ended(Code::Ok);
                    None
                }
                Some(_) if deadline.is_some_and(|deadline| Instant::now() > deadline) => {
                    call.ended(Code::DeadlineExceeded);
                    let late = ApiError::from(RequestError::DeadlineExceeded);
                    Some(Err(Status::from(late)))
                }
                Some(part) => Some(Ok(part)),
            }
        });
        Ok(Response::new(Box::pin(parts)))
    }

    pub(super) async fn import(
        &self,
        Change { caller, audit }: &Change,
        mut incoming: Streaming<pb::ImportVersionRequest>,
    ) -> Result<Response<pb::Version>, ApiError> {
        let mut spec = match self.next(&mut incoming).await?.map(|m| m.payload) {
            Some(Some(Payload::Spec(spec))) => spec,
            Some(Some(Payload::Chunk(_))) => {
                return Err(order(
                    "the first message of ImportVersion must be its spec, not a chunk",
                ));
            }
            Some(None) | None => return Err(RequestError::missing("spec").into()),
        };
        audit.resource(&spec.cache_id);
        let id = cache_id(caller, &spec.cache_id).map_err(|error| error.field("spec.cache_id"))?;
        audit.resource(id.resource_name());
        let catalog = Arc::clone(&self.context.catalog);
        let key = request_key(&mut spec)?;
        if let Some(key) = &key
            && let Some(made) = catalog.store().made_by(&id, key).await?
        {
            audit.resource(made.resource_name());
            audit.result(Code::Ok);
            return Ok(Response::new(convert::version(&made)));
        }
        let (bounds, condition, size) = self.bounds(caller, spec)?;
        // Checked now as well, so that nothing is sent in vain.
        catalog.store().check(&id, &condition).await?;
        let mut upload = self.context.uploads.begin(caller);
        let file = match self.receive(incoming, size, &mut upload).await {
            Ok(file) => file,
            Err(error) => {
                unless_reset().await;
                return Err(error);
            }
        };
        caller.standing(Some(&id))?;
        let line = audit.clone();
        let imported = to_its_end(audit.clone(), async move {
            let _held = upload;
            let manifest = catalog
                .import(&id, file.into(), bounds, &condition, key)
                .await?;
            line.resource(manifest.resource_name());
            Ok(convert::version(&manifest))
        });
        imported.await.map(Response::new)
    }

    /// An announced file: its size, and the condition on which it is imported.
    fn bounds(
        &self,
        caller: &Caller,
        spec: pb::ImportSpec,
    ) -> Result<(ImportBounds, Condition, usize), ApiError> {
        let limits = &self.context.limits;
        let size = usize::try_from(spec.size_bytes)
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| {
                let problem = format!("{} is not over 0", spec.size_bytes);
                RequestError::invalid("spec.size_bytes", problem)
            })?;
        RequestError::check(
            "spec.size_bytes",
            "max_import_bytes",
            limits.max_import_bytes,
            size,
        )?;
        let condition = Condition {
            etag: (!spec.etag.is_empty()).then_some(spec.etag),
            needs: Needs::Nothing,
        };
        let bounds = ImportBounds {
            classes: limits.max_classes,
            examples: limits.max_examples,
            other_bundle: spec.allow_other_bundle,
            created_by: caller.created_by(String::new()),
        };
        Ok((bounds, condition, size))
    }

    async fn next(
        &self,
        incoming: &mut Streaming<pb::ImportVersionRequest>,
    ) -> Result<Option<pb::ImportVersionRequest>, ApiError> {
        tokio::select! {
            message = incoming.message() => {
                message.map_err(|status| ApiError::from_status(&status))
            }
            () = self.context.shutdown.cancelled() => Err(ApiError::shutting_down()),
        }
    }

    /// The file: exactly as many bytes as were announced.
    async fn receive(
        &self,
        mut incoming: Streaming<pb::ImportVersionRequest>,
        size: usize,
        upload: &mut Upload,
    ) -> Result<Vec<u8>, ApiError> {
        let mut file = Vec::new();
        // Reserves address space; memory is used only as it is filled.
        file.try_reserve_exact(size).map_err(|_| {
            ApiError::new(
                Code::ResourceExhausted,
                "OUT_OF_MEMORY",
                format!("there is no memory for a file of {size} bytes"),
            )
        })?;
        let wrong = |found: usize, end: &str| {
            let problem = format!("the file has {found} bytes{end}, {size} were announced");
            ApiError::from(RequestError::invalid("spec.size_bytes", problem))
        };
        while let Some(message) = self.next(&mut incoming).await? {
            let Some(Payload::Chunk(chunk)) = message.payload else {
                return Err(order(
                    "every message of ImportVersion but the first must carry a chunk",
                ));
            };
            if chunk.len() > size - file.len() {
                return Err(wrong(file.len() + chunk.len(), " or more"));
            }
            upload.add(chunk.len())?;
            file.extend_from_slice(&chunk);
        }
        if file.len() < size {
            return Err(wrong(file.len(), ""));
        }
        Ok(file)
    }
}
