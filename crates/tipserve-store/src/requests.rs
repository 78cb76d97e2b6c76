//! Finds what earlier attempts of a request made, so that retries are safe.

use super::{
    Manifest, RequestKey, Store, StoreError, layout,
    name::{CacheId, VersionNumber},
    view::View,
};

/// Most bytes of a request id.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

impl Store {
    /// The live version that a request has made, if any.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::InvalidDraft`] for an invalid
    /// id; [`StoreError::RequestReused`]; those of the storage.
    pub async fn made_by(
        &self,
        id: &CacheId,
        request: &RequestKey,
    ) -> Result<Option<Manifest>, StoreError> {
        check_request_id(&request.id)?;
        let view = self.views.fresh(id).await?;
        let digest = Some(request.digest.as_str());
        self.version_of_request(&view, &request.id, digest, None)
            .await
    }

    /// The live version that a request has made; of several, the first. With
    /// `below`, only one of a lower number.
    pub(super) async fn version_of_request(
        &self,
        view: &View,
        request_id: &str,
        digest: Option<&str>,
        below: Option<VersionNumber>,
    ) -> Result<Option<Manifest>, StoreError> {
        let mut candidates: Vec<_> = view
            .tensors()
            .iter()
            .filter(|file| layout::is_of_request(&file.name, request_id))
            .filter(|file| below.is_none_or(|below| file.version < below))
            .collect();
        candidates.sort_by_key(|file| file.version);
        for file in candidates {
            if !view.has(file.version)? || !view.has_manifest(file.version) {
                continue;
            }
            let manifest = match self.manifest(&view.id, file.version).await {
                Ok(manifest) => manifest,
                Err(StoreError::NotFound { .. }) => continue,
                Err(e) => return Err(e),
            };
            let same = manifest.request_id.as_deref() == Some(request_id);
            if !same || manifest.tensors.name != file.name {
                continue;
            }
            if manifest.request_digest.as_deref() != digest {
                return Err(StoreError::RequestReused {
                    what: manifest.resource_name(),
                    request_id: request_id.to_owned(),
                });
            }
            return Ok(Some(manifest));
        }
        Ok(None)
    }
}

fn check_request_id(id: &str) -> Result<(), StoreError> {
    if id.is_empty() {
        return Err(StoreError::invalid("the request id", "it is empty"));
    }
    if id.len() > MAX_REQUEST_ID_BYTES {
        return Err(StoreError::TooLarge {
            what: "the request id".to_owned(),
            size: id.len() as u64,
            limit: MAX_REQUEST_ID_BYTES as u64,
        });
    }
    match id.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(StoreError::invalid(
            "the request id",
            "it may have visible ASCII characters only",
        )),
    }
}
