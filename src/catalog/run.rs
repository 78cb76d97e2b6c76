//! A fine-tuning run: what was asked for, and its state.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Catalog, CatalogError};
use tip_adapter::finetune::Options;
use tip_spec::SearchGrid;
use tipserve_store::{
    AliasName, CacheId, Manifest, RequestKey, RunState, StoreError, TensorFile, VersionNumber,
};

/// The runs of this server, by id.
pub(super) type OwnRuns = Arc<Mutex<BTreeMap<String, Entry>>>;

/// How a version is fine-tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// A residual on the version's own head; the keys, if those are trained
    /// already, since they have no left-out logits.
    Residual,
    /// The keys, as Tip-Adapter-F's authors do it.
    Keys,
}

/// What to train, and how.
#[derive(Clone, Debug)]
pub struct TuneRequest {
    /// The cache of the version to fine-tune.
    pub cache: CacheId,
    /// Its version to start from.
    pub version: VersionNumber,
    /// Whether keys or a residual are trained.
    pub recipe: Recipe,
    /// How to train keys; without effect on a residual.
    pub options: Options,
    /// Which α and β are searched afterwards.
    pub grid: SearchGrid,
    /// Alias to point at the new version.
    pub move_alias: Option<AliasName>,
    /// Move it only if the score that chose the epoch improved.
    pub only_if_improved: bool,
    /// Description of the new version.
    pub description: String,
    /// Who asks for it, as authenticated; empty if the caller is anonymous.
    pub created_by: String,
    /// Whose quota it counts against, and whose turn it takes; none: it is not
    /// known who asks, and all such runs are of one owner without a quota.
    pub owner: Option<String>,
    /// The request's key, if it may be repeated.
    pub request: Option<RequestKey>,
    /// Whether it continues after its last follower has left.
    pub detached: bool,
}

/// One fine-tuning: what to start from, how, and who watches.
pub(super) struct TuneJob<'a> {
    pub catalog: &'a Catalog,
    pub parent: &'a Manifest,
    /// Tensors of the version that is fine-tuned.
    pub file: &'a TensorFile,
    pub request: &'a TuneRequest,
    /// Whether the run is to end without a version; asked often.
    pub stop: &'a dyn Fn() -> bool,
    /// Takes the run's progress.
    pub report: &'a dyn Fn(RunProgress),
}

/// How far the training of a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunProgress {
    /// The epoch under way, from 1.
    pub epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Steps done, over all epochs.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// Mean loss of the epoch so far, nats.
    pub loss: f64,
    /// Training accuracy of the epoch so far.
    pub train_accuracy: f64,
    /// Accuracy on what the epoch is chosen by, after the last whole epoch.
    pub validation_accuracy: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// As far as can be told.
    pub time_left: Option<Duration>,
}

/// A run as it is now.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id; ids sort by age.
    pub id: String,
    /// Where the run stands now.
    pub state: RunState,
    /// The version it started from.
    pub parent: String,
    /// The cache of the version that it fine-tunes.
    pub cache: CacheId,
    /// The version that it ended with; none before.
    pub version: Option<Manifest>,
    /// The latest progress; none before its first step.
    pub progress: Option<RunProgress>,
    /// Why it failed; none in any other state.
    pub error: Option<CatalogError>,
    /// When it was asked for.
    pub create_time: DateTime<Utc>,
    /// When it ended; none while it goes on.
    pub end_time: Option<DateTime<Utc>>,
    /// Whether the alias was moved.
    pub alias_moved: bool,
    /// The alias that was moved.
    pub alias: Option<AliasName>,
    /// Whether it made no version, as none would have been better: `version` is
    /// then the one it started from.
    pub unchanged: bool,
    /// The outcome, in one sentence for people; empty until it has ended.
    pub outcome: String,
}

pub(super) struct Entry {
    pub(super) run: watch::Receiver<Run>,
    pub(super) owner: Option<String>,
    pub(super) request: Option<RequestKey>,
    pub(super) cancelled: Arc<AtomicBool>,
    /// Shared by all calls that follow it; `None` if it is detached.
    pub(super) followers: Option<Weak<Follower>>,
}

/// A run's follower. When the last one is dropped, the run is abandoned.
#[derive(Debug)]
pub struct Follower {
    cancelled: Arc<AtomicBool>,
}

impl Follower {
    pub(super) fn new(cancelled: &Arc<AtomicBool>) -> Arc<Follower> {
        Arc::new(Follower {
            cancelled: Arc::clone(cancelled),
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// A call's view of a run.
#[derive(Debug)]
pub struct Followed {
    /// The run's latest state, updated to its end.
    pub run: watch::Receiver<Run>,
    /// Kept for as long as the call follows the run; `None` if it is detached.
    pub follower: Option<Arc<Follower>>,
}

impl Entry {
    /// One more call's view of the run; `None` if it has been abandoned.
    pub(super) fn follow(&self) -> Option<Followed> {
        let follower = match &self.followers {
            None => None,
            Some(followers) => Some(followers.upgrade()?),
        };
        let run = self.run.clone();
        Some(Followed { run, follower })
    }

    /// Whether a repeated request gets this run: not if it has made nothing, or
    /// will make nothing.
    pub(super) fn is_of(&self, cache: &CacheId, request: &RequestKey) -> bool {
        let run = self.run.borrow();
        let id = self.request.as_ref().map(|own| own.id.as_str());
        let ended_well = run.state == RunState::Succeeded;
        let goes_on = !run.state.has_ended() && !self.cancelled.load(Ordering::Relaxed);
        run.cache == *cache && id == Some(request.id.as_str()) && (ended_well || goes_on)
    }
}

/// Whether the run belongs to this request.
///
/// # Errors
/// [`StoreError::RequestReused`].
pub(super) fn check_same(
    id: &str,
    before: Option<&RequestKey>,
    request: &RequestKey,
) -> Result<(), CatalogError> {
    if before.is_some_and(|before| before.digest == request.digest) {
        return Ok(());
    }
    let what = format!("fineTunes/{id}");
    let request_id = request.id.clone();
    Err(StoreError::RequestReused { what, request_id }.into())
}
