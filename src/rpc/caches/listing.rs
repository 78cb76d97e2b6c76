//! Lists of caches, versions and examples, and getting one.

use futures::{StreamExt as _, stream};
use prost::Message as _;
use prost_types::FieldMask;
use tonic::Response;

use super::Caches;
use crate::{
    auth::Caller,
    catalog::{CatalogError, ExampleEntry, Purpose, compute},
    rpc::{
        cache_id, convert,
        error::ApiError,
        filter::{Filter, Kind, Schema, Value},
        paging, reference,
        request::{RequestError, check_id},
    },
};
use tipserve_api::v1 as pb;
use tipserve_store::{CacheId, CacheInfo, Manifest, VersionNumber, VersionSelector};

/// The fields that caches can be filtered by; all but the first two are those
/// of the newest version.
pub const CACHE_FIELDS: &Schema = &[
    ("cache_id", Kind::Text),
    ("create_time", Kind::Time),
    ("description", Kind::Text),
    ("created_by", Kind::Text),
    ("method", Kind::Method),
    ("bundle_fingerprint", Kind::Text),
    ("class_count", Kind::Number),
    ("key_count", Kind::Number),
    ("labels", Kind::Labels),
];

/// What examples can be filtered by.
pub const EXAMPLE_FIELDS: &Schema = &[
    ("example_id", Kind::Text),
    ("class_index", Kind::Number),
    ("display_name", Kind::Text),
    ("validation", Kind::Flag),
    ("unknown", Kind::Flag),
];

/// Caches examined in one go by a list with a filter.
const SCAN: usize = 256;
/// Manifests read from the store at once.
const READS: usize = 16;
fn bad_token(list: &str) -> RequestError {
    RequestError::invalid("page_token", format!("it is not one that {list} returned"))
}

/// A cache as the API has it. `latest` is the newest version, if that can
/// be read.
fn message(info: &CacheInfo, latest: Option<&Manifest>) -> pb::Cache {
    let aliases = info
        .aliases
        .iter()
        .map(|(alias, to)| (alias.to_string(), to.version.as_i64()))
        .collect();
    pb::Cache {
        name: info.id.resource_name(),
        create_time: Some(convert::timestamp(info.create_time)),
        latest: latest.map(convert::listed_version),
        aliases,
        version_count: i32::try_from(info.versions.len()).unwrap_or(i32::MAX),
        etag: info.etag.clone(),
    }
}

/// A cache's value of a field.
fn value_of<'a>(
    info: &'a CacheInfo,
    latest: Option<&'a Manifest>,
    field: &'static str,
    key: Option<&str>,
) -> Option<Value<'a>> {
    let count = |n: u64| Value::Number(i64::try_from(n).unwrap_or(i64::MAX));
    match field {
        "cache_id" => return Some(Value::Text(info.id.as_str())),
        "create_time" => return Some(Value::Time(info.create_time)),
        _ => {}
    }
    // A version that cannot be read matches no filter.
    let details = &latest?.details;
    Some(match field {
        "description" => Value::Text(&details.description),
        "created_by" => Value::Text(&details.created_by),
        "method" => Value::Text(details.head.method.api_name()),
        "bundle_fingerprint" => Value::Text(&details.bundle_fingerprint),
        "class_count" => count(details.classes.len() as u64),
        "key_count" => count(details.key_count),
        "labels" => match details.labels.get(key?) {
            Some(label) => Value::Text(label),
            None => Value::Absent,
        },
        _ => return None,
    })
}

fn value_of_example<'a>(entry: &ExampleEntry<'a>, field: &'static str) -> Option<Value<'a>> {
    Some(match field {
        "example_id" => Value::Text(entry.id),
        "class_index" => match entry.classes.first() {
            Some(class) => Value::Number(i64::try_from(*class).unwrap_or(i64::MAX)),
            None => Value::Absent,
        },
        "display_name" => Value::Text(entry.class_name),
        "validation" => Value::Flag(entry.purpose == Purpose::Validation),
        "unknown" => Value::Flag(entry.purpose == Purpose::Unknown),
        _ => return None,
    })
}

impl Caches {
    /// A cache's newest version. One that cannot be read is left out, so that
    /// one damaged file hides nothing else.
    async fn latest(&self, info: &CacheInfo) -> Option<Manifest> {
        let newest = info.versions.first()?;
        let store = self.context.catalog.store();
        match store.manifest(&info.id, newest.number).await {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                tracing::warn!(cache = %info.id, %error, "its latest version cannot be read");
                None
            }
        }
    }

    /// A cache as the API has it.
    pub(super) async fn describe(&self, info: &CacheInfo) -> pb::Cache {
        message(info, self.latest(info).await.as_ref())
    }

    pub(super) async fn get(
        &self,
        caller: &Caller,
        request: pb::GetCacheRequest,
    ) -> Result<Response<pb::Cache>, ApiError> {
        let id = cache_id(caller, &request.name)?;
        let info = self.context.catalog.store().cache(&id).await?;
        let mut cache = self.describe(&info).await;
        paging::mask(&mut cache, request.read_mask.as_ref())?;
        Ok(Response::new(cache))
    }

    pub(super) async fn list(
        &self,
        caller: &Caller,
        request: pb::ListCachesRequest,
    ) -> Result<Response<pb::ListCachesResponse>, ApiError> {
        let size = paging::size(request.page_size)?;
        let filter = Filter::parse(&request.filter, CACHE_FIELDS)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| bad_token("ListCaches"))?),
        };
        let mask = request.read_mask.as_ref();
        // Checked here so that an invalid mask is an error even if there is no
        // cache.
        paging::mask(&mut pb::Cache::default(), mask)?;
        let (caches, next) = self
            .page(caller.prefix(), size, &filter, mask, after)
            .await?;
        Ok(Response::new(pb::ListCachesResponse {
            caches,
            next_page_token: next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    /// Up to `size` caches of a prefix that match a filter, and the one after
    /// which the next page begins, if there is one.
    async fn page(
        &self,
        prefix: &str,
        size: usize,
        filter: &Filter,
        mask: Option<&FieldMask>,
        mut after: Option<CacheId>,
    ) -> Result<(Vec<pb::Cache>, Option<CacheId>), ApiError> {
        let store = self.context.catalog.store();
        let scan = if filter.is_empty() { size } else { SCAN };
        let mut caches: Vec<pb::Cache> = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        loop {
            let page = store.list_caches_of(prefix, scan, after.as_ref()).await?;
            for (id, error) in &page.damaged {
                tracing::warn!(cache = %id, %error, "a cache cannot be listed");
            }
            let mut read = stream::iter(page.caches)
                .map(|info| async move {
                    let latest = self.latest(&info).await;
                    (info, latest)
                })
                .buffered(READS);
            while let Some((info, latest)) = read.next().await {
                let latest = latest.as_ref();
                if !filter.lets_through(|field, key| value_of(&info, latest, field, key)) {
                    continue;
                }
                if caches.len() == size || bytes >= paging::PAGE_BYTES {
                    return Ok((caches, last));
                }
                let mut cache = message(&info, latest);
                paging::mask(&mut cache, mask)?;
                bytes += cache.encoded_len();
                caches.push(cache);
                last = Some(info.id);
            }
            drop(read);
            match page.next {
                None => return Ok((caches, None)),
                Some(next) if filter.is_empty() && caches.len() == size => {
                    return Ok((caches, Some(next)));
                }
                next => after = next,
            }
        }
    }

    pub(super) async fn version(
        &self,
        caller: &Caller,
        request: pb::GetVersionRequest,
    ) -> Result<Response<pb::Version>, ApiError> {
        let store = self.context.catalog.store();
        let reference = reference(caller, &request.name)?;
        let (id, number) = store.resolve(&reference).await?;
        let mut version = convert::version(&store.manifest(&id, number).await?);
        paging::mask(&mut version, request.read_mask.as_ref())?;
        Ok(Response::new(version))
    }

    pub(super) async fn versions(
        &self,
        caller: &Caller,
        request: pb::ListVersionsRequest,
    ) -> Result<Response<pb::ListVersionsResponse>, ApiError> {
        let store = self.context.catalog.store();
        let id = cache_id(caller, &request.parent)?;
        let size = paging::size(request.page_size)?;
        // Newest first: the token is the last number that was returned.
        let below = match request.page_token.as_str() {
            "" => u64::MAX,
            token => token.parse().map_err(|_| bad_token("ListVersions"))?,
        };
        let numbers: Vec<VersionNumber> = store
            .versions(&id)
            .await?
            .iter()
            .map(|version| version.number)
            .filter(|number| number.get() < below)
            .collect();
        let mut versions = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for number in numbers.iter().take(size) {
            if bytes >= paging::PAGE_BYTES {
                break;
            }
            last = Some(*number);
            match store.manifest(&id, *number).await {
                Ok(manifest) => {
                    let mut version = convert::listed_version(&manifest);
                    paging::mask(&mut version, request.read_mask.as_ref())?;
                    bytes += version.encoded_len();
                    versions.push(version);
                }
                Err(error) => {
                    tracing::warn!(cache = %id, version = %number, %error, "cannot be listed");
                }
            }
        }
        let next_page_token = match last {
            Some(last) if numbers.last() != Some(&last) => last.get().to_string(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListVersionsResponse {
            versions,
            next_page_token,
        }))
    }

    pub(super) async fn examples(
        &self,
        caller: &Caller,
        request: pb::ListExamplesRequest,
    ) -> Result<Response<pb::ListExamplesResponse>, ApiError> {
        let size = paging::size_of_examples(request.page_size)?;
        let filter = Filter::parse(&request.filter, EXAMPLE_FIELDS)?;
        let mut reference = reference(caller, &request.parent)?;
        // The token names the version: an alias that moves between two pages
        // does not mix two lists.
        let start = match request.page_token.as_str() {
            "" => 0,
            token => {
                let (number, at) = token
                    .split_once('.')
                    .and_then(|(number, at)| Some((number.parse().ok()?, at.parse().ok()?)))
                    .ok_or_else(|| bad_token("ListExamples"))?;
                reference.version = VersionSelector::Number(number);
                at
            }
        };
        let catalog = &self.context.catalog;
        let (id, number) = catalog.store().resolve(&reference).await?;
        let list = catalog.examples(&id, number).await?;
        let multi_label = list.is_multi_label();
        if let Some(field) = ["class_index", "display_name"]
            .into_iter()
            .find(|field| multi_label && filter.restricts(field))
        {
            let problem = format!("{field} is of examples with one class each, these have several");
            return Err(RequestError::invalid("filter", problem).into());
        }
        let index = |class: &usize| i32::try_from(*class).unwrap_or(i32::MAX);
        // Millions of rows may have to be read.
        let page = compute(move || -> Result<_, CatalogError> {
            let mut examples = Vec::new();
            let mut bytes = 0;
            for at in start..list.len() {
                let Some(entry) = list.get(at) else { break };
                if !filter.lets_through(|field, _| value_of_example(&entry, field)) {
                    continue;
                }
                if examples.len() == size || bytes >= paging::PAGE_BYTES {
                    return Ok((examples, format!("{number}.{at}")));
                }
                let info = pb::ExampleInfo {
                    example_id: entry.id.to_owned(),
                    class_index: match (multi_label, entry.classes.first()) {
                        (false, Some(class)) => index(class),
                        _ => 0,
                    },
                    class_indices: match multi_label {
                        true => entry.classes.iter().map(index).collect(),
                        false => Vec::new(),
                    },
                    display_name: match multi_label {
                        true => String::new(),
                        false => entry.class_name.to_owned(),
                    },
                    validation: entry.purpose == Purpose::Validation,
                    unknown: entry.purpose == Purpose::Unknown,
                    uri: entry.uri.to_owned(),
                    metadata: list.metadata(at)?.into_iter().collect(),
                    has_picture: entry.has_picture,
                };
                bytes += info.encoded_len();
                examples.push(info);
            }
            Ok((examples, String::new()))
        });
        let (examples, next_page_token) = page.await??;
        Ok(Response::new(pb::ListExamplesResponse {
            examples,
            next_page_token,
        }))
    }

    pub(super) async fn example_picture(
        &self,
        caller: &Caller,
        request: pb::GetExamplePictureRequest,
    ) -> Result<Response<pb::ExamplePicture>, ApiError> {
        check_id("example_id", &request.example_id)?;
        let reference = reference(caller, &request.parent)?;
        let catalog = &self.context.catalog;
        let (id, number) = catalog.store().resolve(&reference).await?;
        let picture = catalog.example_picture(&id, number, &request.example_id);
        Ok(Response::new(pb::ExamplePicture {
            data: picture.await?,
            content_type: "image/jpeg".to_owned(),
        }))
    }
}
