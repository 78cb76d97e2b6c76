//! One listing of a cache's folder, by what the objects' names say.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;

use super::{
    StoreError,
    backend::Backend,
    layout::{self, Mark, Object},
    name::{CacheId, VersionNumber},
};

/// Tells an object from any other that ever had its name, as far as the
/// storage does: its etag, or its size and time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    fn of(meta: &ObjectMeta) -> Self {
        Self(match &meta.e_tag {
            Some(etag) => etag.clone(),
            None => format!("{}-{}", meta.size, meta.last_modified.timestamp_micros()),
        })
    }
}

/// A version's tensors file, as listed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorsObject {
    pub(crate) version: VersionNumber,
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) time: DateTime<Utc>,
}

/// Everything in a cache's folder, by what it is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Listing {
    pub(crate) manifests: BTreeMap<VersionNumber, (DateTime<Utc>, Identity)>,
    pub(crate) tensors: Vec<TensorsObject>,
    pub(crate) notices: Vec<(VersionNumber, String, ObjectMeta)>,
    pub(crate) states: BTreeMap<u64, (DateTime<Utc>, Identity)>,
    pub(crate) marks: Vec<(Mark, DateTime<Utc>)>,
}

impl Listing {
    pub(crate) async fn of(backend: &Backend, id: &CacheId) -> Result<Self, StoreError> {
        let mut listing = Self::default();
        for meta in backend.list(&layout::cache(id)).await? {
            let (time, identity) = (meta.last_modified, Identity::of(&meta));
            match layout::classify(id, &meta.location) {
                Object::Manifest(version) => {
                    listing.manifests.insert(version, (time, identity));
                }
                Object::Tensors(version, name) => listing.tensors.push(TensorsObject {
                    version,
                    name,
                    size: meta.size,
                    time,
                }),
                Object::Notice(version, name) => listing.notices.push((version, name, meta)),
                Object::State(sequence) => {
                    listing.states.insert(sequence, (time, identity));
                }
                Object::Mark(mark) => listing.marks.push((mark, time)),
                Object::Other => {}
            }
        }
        Ok(listing)
    }

    pub(crate) fn newest_state(&self) -> u64 {
        self.states.keys().last().copied().unwrap_or(0)
    }

    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.marks.iter().map(|(mark, _)| mark).max()
    }

    pub(crate) fn highest_marked(&self) -> u64 {
        self.marks
            .iter()
            .map(|(mark, _)| mark.number)
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.states.is_empty() && self.marks.is_empty()
    }
}
