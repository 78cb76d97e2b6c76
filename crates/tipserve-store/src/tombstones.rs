//! What is left of a deleted cache: its last state, where lists do not walk.

use object_store::path::Path;

use super::{
    Store, StoreError,
    backend::Backend,
    fault::die_at,
    layout::{self, Mark},
    name::CacheId,
    sealed::{MAX_JSON_BYTES, seal, unseal},
    state::State,
};

impl Backend {
    /// What the names of a cache's tombstones say; none if it has none.
    pub(crate) async fn newest_tombstone(&self, id: &CacheId) -> Result<Option<Mark>, StoreError> {
        let found = self.list(&layout::tombstones(id)).await?;
        let marks = found
            .iter()
            .filter_map(|o| layout::read_tombstone(&o.location));
        Ok(marks.max())
    }

    /// The state that a tombstone keeps, or what its name tells if its bytes
    /// are damaged.
    pub(crate) async fn read_tombstone(
        &self,
        id: &CacheId,
        mark: &Mark,
    ) -> Result<State, StoreError> {
        let path = layout::tombstone(id, mark);
        let text = self.read(&path, MAX_JSON_BYTES).await?;
        let kept = text.map(|text| {
            let state = unseal::<State>(&id.resource_name(), path.as_ref(), &text)?;
            state.check(id, mark.sequence).map(|()| state)
        });
        Ok(match kept {
            Some(Ok(state)) => state,
            Some(Err(error @ StoreError::NewerFormat { .. })) => return Err(error),
            Some(Err(_)) | None => State::cleared(id, mark),
        })
    }
}

impl Store {
    /// Leaves a tombstone of a deleted cache instead of its folder, so that
    /// lists do not walk what is dead. Returns whether it did.
    pub(super) async fn bury(&self, id: &CacheId) -> Result<bool, StoreError> {
        let view = self.views.fresh(id).await?;
        let state = view.state()?;
        let dead = view.latest()?.is_none() && view.has_no_objects();
        let empty = view.states().next().is_none() && view.marks().next().is_none();
        if !dead || empty || state.sequence == 0 {
            return Ok(false);
        }
        let mark = view.mark_with(0)?;
        let path = layout::tombstone(id, &mark);
        let body = seal(&id.resource_name(), &**state)?;
        self.backend.create(&path, body).await?;
        die_at!("store::bury::written");
        // Only what this listing has seen: anyone who makes the cache anew from
        // now on sees the tombstone, or this state.
        let records = view
            .states()
            .map(|(sequence, _)| layout::state(id, sequence));
        let marks = view.marks().map(|mark| layout::mark(id, mark));
        let paths: Vec<Path> = marks.chain(records).collect();
        for path in paths {
            self.backend.delete(vec![path]).await?;
            die_at!("store::bury::half");
        }
        for object in self.backend.list(&layout::tombstones(id)).await? {
            let older = layout::read_tombstone(&object.location)
                .is_some_and(|m| m.sequence < mark.sequence && m.number <= mark.number);
            if older {
                self.backend.delete(vec![object.location]).await?;
            }
        }
        Ok(true)
    }
}
