//! What a cache looks like at one moment: one listing of its folder, folded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use object_store::{ObjectMeta, path::Path};

use super::{
    StoreError,
    backend::Backend,
    folder::{Identity, Listing, TensorsObject},
    layout::{self, Mark},
    name::{AliasName, CacheId, VersionNumber},
    sealed::{MAX_JSON_BYTES, unseal},
    state::State,
};

/// Listings before a cache that keeps changing under them is given up on.
const MAX_LISTINGS: usize = 20;
/// Pause between two listings of one view.
const PAUSE: Duration = Duration::from_millis(10);
/// Most versions whose manifests may be missing before the whole cache counts
/// as damaged.
const MAX_MISSING: u64 = 1000;

/// One listing of a cache, with its newest state.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) id: CacheId,
    listing: Listing,
    /// Marks of the cache's tombstones, if they had to be read.
    tombstone: Option<Mark>,
    state: Result<Arc<State>, StoreError>,
    /// Existing versions whose manifests are missing.
    missing: BTreeSet<VersionNumber>,
    /// See [`View::is_swept`].
    swept: BTreeSet<VersionNumber>,
    pub(crate) listed: Duration,
}

/// What a listing lacks that must have existed. Listings are not atomic, so
/// only what two in a row lack is lost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lack {
    /// The sequence that the newest state record should have at least.
    sequence: u64,
    versions: BTreeSet<VersionNumber>,
}

impl View {
    /// The state, unless its record is damaged, lost or too new.
    pub(crate) fn state(&self) -> Result<&Arc<State>, StoreError> {
        self.state.as_ref().map_err(Clone::clone)
    }

    /// Existing versions, oldest first, with the times of their publication.
    pub(crate) fn versions(&self) -> Result<Vec<(VersionNumber, DateTime<Utc>)>, StoreError> {
        let state = self.state()?;
        let there = self.listing.manifests.iter();
        let mut versions: BTreeMap<_, _> = there
            .filter(|(version, _)| !state.is_deleted(**version) && !self.is_swept(**version))
            .map(|(version, (time, _))| (*version, *time))
            .collect();
        for version in &self.missing {
            // Its time is unknown; its neighbour's comes close.
            let before = versions.range(..version).next_back();
            let near = before.or_else(|| versions.range(version..).next());
            let time = near.map_or(DateTime::UNIX_EPOCH, |(_, time)| *time);
            versions.insert(*version, time);
        }
        Ok(versions.into_iter().collect())
    }

    /// The newest version that is not deleted, whether or not its manifest is
    /// there.
    pub(crate) fn latest(&self) -> Result<Option<VersionNumber>, StoreError> {
        let state = self.state()?;
        let mut newest_first = self.listing.manifests.keys().rev();
        let there =
            newest_first.find(|version| !state.is_deleted(**version) && !self.is_swept(**version));
        Ok(there.max(self.missing.last()).copied())
    }

    /// Whether the version exists, readable or not.
    pub(crate) fn has(&self, version: VersionNumber) -> Result<bool, StoreError> {
        let there = self.has_manifest(version) && !self.is_swept(version);
        Ok(self.missing.contains(&version) || there && !self.state()?.is_deleted(version))
    }

    /// Whether a sweep had given notice of the tensors that a manifest names when the
    /// manifest was made: by a writer that had slept, and that takes the version
    /// back instead of telling anybody that it exists.
    pub(crate) fn is_swept(&self, version: VersionNumber) -> bool {
        self.swept.contains(&version)
    }

    /// Whether there is a manifest, of an existing version or a deleted one.
    pub(crate) fn has_manifest(&self, version: VersionNumber) -> bool {
        self.listing.manifests.contains_key(&version)
    }

    /// When a version's manifest was made.
    pub(crate) fn manifest_time(&self, version: VersionNumber) -> Option<DateTime<Utc>> {
        self.listing.manifests.get(&version).map(|(time, _)| *time)
    }

    /// What distinguishes a version's manifest from any other of the same
    /// number.
    pub(crate) fn identity(&self, version: VersionNumber) -> Option<&Identity> {
        self.listing
            .manifests
            .get(&version)
            .map(|(_, identity)| identity)
    }

    /// The version that an alias points at.
    pub(crate) fn alias(&self, alias: &AliasName) -> Result<Option<VersionNumber>, StoreError> {
        // Not looked up among the manifests: this listing may have passed
        // them before the version appeared, and the state after.
        Ok(self.state()?.aliases.get(alias).map(|a| a.version))
    }

    /// The highest number that was ever given out, as far as anything tells;
    /// 0 if none was.
    pub(crate) fn highest(&self) -> u64 {
        let manifest = self.listing.manifests.keys().last().map_or(0, |v| v.get());
        let buried = self.tombstone.as_ref().map_or(0, |mark| mark.number);
        let state = self.state.as_ref().map_or(0, |s| s.highest());
        manifest
            .max(self.listing.highest_marked())
            .max(buried)
            .max(state)
    }

    /// Whether [`Self::highest`] is known for sure.
    ///
    /// # Errors
    /// The state's, if it cannot be read and nothing else tells which
    /// numbers were given out.
    pub(crate) fn check_numbers_known(&self) -> Result<(), StoreError> {
        if self.listing.marks.is_empty() && self.tombstone.is_none() {
            self.state()?;
        }
        Ok(())
    }

    /// The sequence of the newest state record that ever was, as far as
    /// anything tells; 0 if none was.
    pub(crate) fn newest_state(&self) -> u64 {
        let mark = self.listing.mark().map_or(0, |mark| mark.sequence);
        let buried = self.tombstone.as_ref().map_or(0, |mark| mark.sequence);
        self.listing.newest_state().max(mark).max(buried)
    }

    /// The high-water mark that this view stands for, with one more number.
    pub(crate) fn mark_with(&self, number: u64) -> Result<Mark, StoreError> {
        let state = self.state()?;
        let number = number.max(self.highest());
        Ok(Mark::new(state.sequence, number, &state.nonce))
    }

    /// Whether the folder holds a mark that says at least as much.
    pub(crate) fn is_marked(&self, mark: &Mark) -> bool {
        let covers = |m: &Mark| (m.sequence, &m.nonce) == (mark.sequence, &mark.nonce);
        let marks = self.listing.marks.iter();
        marks.into_iter().any(|(m, _)| covers(m)) && self.listing.highest_marked() >= mark.number
    }

    /// Marks that others supersede, with their times.
    pub(crate) fn superseded_marks(&self) -> impl Iterator<Item = &(Mark, DateTime<Utc>)> {
        let newest = self.listing.mark();
        self.listing.marks.iter().filter(move |(mark, _)| {
            newest.is_some_and(|n| {
                n.sequence >= mark.sequence && n.number >= mark.number && n != mark
            })
        })
    }

    /// Every high-water mark of the cache.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.listing.marks.iter().map(|(mark, _)| mark)
    }

    /// Every state record's sequence and time, ascending.
    pub(crate) fn states(&self) -> impl Iterator<Item = (u64, DateTime<Utc>)> {
        let states = self.listing.states.iter();
        states.map(|(sequence, (time, _))| (*sequence, *time))
    }

    /// Every tensors file of the cache, whether or not a manifest names it.
    pub(crate) fn tensors(&self) -> &[TensorsObject] {
        &self.listing.tensors
    }

    /// A version's tensors file of that name.
    pub(crate) fn tensors_file(
        &self,
        version: VersionNumber,
        name: &str,
    ) -> Option<&TensorsObject> {
        let mut files = self.listing.tensors.iter();
        files.find(|file| file.version == version && file.name == name)
    }

    /// Notices of sweeps: version, tensors file, the notice itself.
    pub(crate) fn notices(&self) -> &[(VersionNumber, String, ObjectMeta)] {
        &self.listing.notices
    }

    /// Whether a sweep is about to remove the tensors file.
    pub(crate) fn is_noticed(&self, version: VersionNumber, name: &str) -> bool {
        let mut notices = self.listing.notices.iter();
        notices.any(|(v, n, _)| *v == version && n == name)
    }

    /// Whether nothing of any version is left in the folder.
    pub(crate) fn has_no_objects(&self) -> bool {
        self.listing.manifests.is_empty() && self.listing.tensors.is_empty()
    }

    /// Whether the cache never existed.
    pub(crate) fn is_unknown(&self) -> bool {
        self.listing.is_empty() && self.tombstone.is_none()
    }

    /// Paths of everything that belongs to the given versions.
    pub(crate) fn objects_of(&self, gone: impl Fn(VersionNumber) -> bool) -> Vec<Path> {
        let manifests = self.listing.manifests.keys().filter(|v| gone(**v));
        let manifests = manifests.map(|v| layout::manifest(&self.id, *v));
        let tensors = self.listing.tensors.iter().filter(|t| gone(t.version));
        let tensors = tensors.map(|t| layout::tensors(&self.id, t.version, &t.name));
        let notices = self.listing.notices.iter().filter(|(v, ..)| gone(*v));
        let notices = notices.map(|(.., meta)| meta.location.clone());
        manifests.chain(tensors).chain(notices).collect()
    }

    /// Lists a cache until what it sees fits together.
    pub(crate) async fn read(
        backend: &Backend,
        id: &CacheId,
        known: Option<&Arc<Self>>,
    ) -> Result<Self, StoreError> {
        let mut lacked = known.map(|view| view.lack()).unwrap_or_default();
        for _ in 0..MAX_LISTINGS {
            let Some(view) = Self::read_once(backend, id, known).await? else {
                backend.environment().sleep(PAUSE).await;
                continue;
            };
            let lack = view.lack();
            if lack == Lack::default() {
                return Ok(view);
            }
            // What the previous listing lacked too was not just missed.
            let lost_state = view.sequence() < lacked.sequence;
            let lost = lack
                .versions
                .intersection(&lacked.versions)
                .next()
                .is_some();
            if lost_state || lost {
                return Ok(view.with_losses(lost_state));
            }
            lacked = lack;
            backend.environment().sleep(PAUSE).await;
        }
        Err(StoreError::damaged(
            id.resource_name(),
            "its newest state record is listed but cannot be read",
        ))
    }

    /// One listing with its state; none if the state's record vanished since.
    async fn read_once(
        backend: &Backend,
        id: &CacheId,
        known: Option<&Arc<Self>>,
    ) -> Result<Option<Self>, StoreError> {
        let listed = backend.environment().now();
        let listing = Listing::of(backend, id).await?;
        let Some(state) = listing.read_state(backend, id, known).await? else {
            return Ok(None);
        };
        let swept = match known {
            Some(known) if known.listing == listing => known.swept.clone(),
            _ => listing.find_swept(backend, id).await?,
        };
        let mut view = Self {
            id: id.clone(),
            listing,
            tombstone: None,
            state,
            missing: BTreeSet::new(),
            swept,
            listed,
        };
        view.missing = view.find_missing();
        if view.is_vouched_for() && view.lack() == Lack::default() {
            return Ok(Some(view));
        }
        // Perhaps the cache was deleted, and these are records and marks of
        // writers that were asleep meanwhile: then a tombstone says so.
        view.tombstone = match known {
            Some(known) if known.listing == view.listing => known.tombstone.clone(),
            _ => backend.newest_tombstone(id).await?,
        };
        if let Some(mark) = &view.tombstone
            && mark.sequence >= view.listing.newest_state()
        {
            view.state = Ok(Arc::new(backend.read_tombstone(id, mark).await?));
            view.missing = view.find_missing();
        }
        Ok(Some(view))
    }

    /// Whether the newest mark says that the newest record is the newest there
    /// was. A mark without a record says nothing: a writer that was asleep may
    /// have put it where a deleted cache was.
    fn is_vouched_for(&self) -> bool {
        let newest = self.listing.newest_state();
        let state = self.state.as_ref().ok();
        self.listing.mark().is_some_and(|mark| {
            let same = state.is_none_or(|state| layout::short(&state.nonce) == mark.nonce);
            newest > 0 && mark.sequence == newest && same
        })
    }

    fn sequence(&self) -> u64 {
        let buried = self.tombstone.as_ref().map_or(0, |mark| mark.sequence);
        self.listing.newest_state().max(buried)
    }

    fn lack(&self) -> Lack {
        let marked = self.listing.mark().map_or(0, |mark| mark.sequence);
        Lack {
            sequence: if self.sequence() < marked { marked } else { 0 },
            versions: self.missing.clone(),
        }
    }

    /// Numbers that were given out and not deleted, and have no manifest.
    fn find_missing(&self) -> BTreeSet<VersionNumber> {
        let Ok(state) = &self.state else {
            return BTreeSet::new();
        };
        let highest = self.highest();
        let live = self
            .listing
            .manifests
            .keys()
            .filter(|v| !state.is_deleted(**v));
        let count = live.count() as u64;
        if state.count_deleted(highest).saturating_add(count) >= highest {
            return BTreeSet::new();
        }
        state
            .not_deleted(highest)
            .filter_map(VersionNumber::new)
            .filter(|version| !self.listing.manifests.contains_key(version))
            .take(
                usize::try_from(MAX_MISSING)
                    .unwrap_or(usize::MAX)
                    .saturating_add(1),
            )
            .collect()
    }

    /// The view as one of a cache that has lost objects.
    fn with_losses(mut self, lost_state: bool) -> Self {
        let what = self.id.resource_name();
        if lost_state {
            let newest = self.newest_state();
            let detail = format!("its state record {newest} is missing");
            self.state = Err(StoreError::damaged(what, detail));
            self.missing.clear();
        } else if self.missing.len() as u64 > MAX_MISSING {
            let detail =
                format!("manifests of more than {MAX_MISSING} of its versions are missing");
            self.state = Err(StoreError::damaged(what, detail));
            self.missing.clear();
        }
        self
    }
}

impl Listing {
    /// The newest record; none if it vanished since the listing: replaced by a
    /// newer one, and swept.
    async fn read_state(
        &self,
        backend: &Backend,
        id: &CacheId,
        known: Option<&Arc<View>>,
    ) -> Result<Option<Result<Arc<State>, StoreError>>, StoreError> {
        let Some((&newest, (_, identity))) = self.states.last_key_value() else {
            return Ok(Some(Ok(Arc::new(State::empty(id)))));
        };
        // Records never change.
        if let Some(view) = known
            && let Ok(state) = &view.state
            && state.sequence == newest
            && view
                .listing
                .states
                .get(&newest)
                .is_some_and(|(_, i)| i == identity)
        {
            return Ok(Some(Ok(Arc::clone(state))));
        }
        let path = layout::state(id, newest);
        let Some(text) = backend.read(&path, MAX_JSON_BYTES).await? else {
            return Ok(None);
        };
        let state = unseal::<State>(&id.resource_name(), path.as_ref(), &text);
        Ok(Some(state.and_then(|state| {
            state.check(id, newest)?;
            Ok(Arc::new(state))
        })))
    }
}
