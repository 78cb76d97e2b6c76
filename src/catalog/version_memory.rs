//! Memory for what calls hold of versions while they last: the base of
//! AddExamples, the labelled examples of SuggestExamples, the file of
//! ExportVersion. A small request begins each, and its client decides how long
//! it lasts.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::Shares;
use tipserve_store::{ClassRecord, Manifest};

/// Bytes are counted in pieces of this size, as a semaphore counts in u32.
const PIECE: u64 = 1024;

/// The memory for versions that calls hold, of which one caller may have half.
pub(super) struct VersionMemory {
    all: Arc<Semaphore>,
    half: u32,
    callers: Shares,
}

/// A call's part of the memory, given back when dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    _own: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl VersionMemory {
    /// This many bytes.
    pub fn new(bytes: usize) -> VersionMemory {
        let pieces = u32::try_from((bytes as u64).div_ceil(PIECE)).unwrap_or(u32::MAX);
        let (pieces, half) = (pieces.max(1), (pieces / 2).max(1));
        VersionMemory {
            all: Arc::new(Semaphore::new(pieces as usize)),
            half,
            callers: Shares::new(half as usize),
        }
    }

    /// Waits until a caller's part and the whole have this many bytes. What is
    /// larger than half counts as half: a caller holds one such version at a
    /// time, and waits for no more than others can hold.
    pub async fn take(&self, caller: Option<&str>, bytes: u64) -> MemoryPermit {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX);
        let pieces = pieces.min(self.half);
        let own = self.callers.take(caller, pieces).await;
        // Never closed.
        let of_all = Arc::clone(&self.all).acquire_many_owned(pieces);
        MemoryPermit {
            _own: own,
            _of_all: of_all.await.ok(),
        }
    }
}

/// Roughly the memory of a version's manifest, which has all of its classes with
/// their prompts.
pub(super) fn manifest_bytes(manifest: &Manifest) -> u64 {
    let text = |text: &String| (size_of::<String>() + text.len()) as u64;
    let classes = manifest.details.classes.iter();
    classes
        .map(|class| {
            let prompts: u64 = class.prompts.iter().map(text).sum();
            size_of::<ClassRecord>() as u64 + text(&class.display_name) + prompts
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn one_caller_has_half_and_what_is_larger_counts_as_half() {
        let memory = VersionMemory::new(100 << 10);
        let take = |caller, kib: u64| memory.take(caller, kib << 10).now_or_never();
        let first = take(Some("a"), 30).expect("there is as much");
        assert!(take(Some("a"), 30).is_none(), "over the caller's half");
        let large = take(Some("b"), 1000).expect("its half, whole");
        assert!(take(Some("b"), 1).is_none());
        let last = take(None, 20).expect("what is left");
        assert!(take(None, 1).is_none(), "over the whole");
        drop((first, large, last));
        assert!(take(None, 1000).is_some(), "given back");
    }
}
