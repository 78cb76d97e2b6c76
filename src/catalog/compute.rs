//! Threads for work that blocks: bounded, so that the store's calls, which run
//! on the same pool of blocking threads, never wait for one.

use tokio::sync::Semaphore;

use super::{
    CatalogError,
    selection_size::{LARGEST_SELECTION, SelectionSize},
    shares::Shares,
};

/// Most long computations at once (selection, imports, filters); tokio's pool
/// has 512 threads.
static COMPUTING: Semaphore = Semaphore::const_new(64);
/// Of these, most selections: they take long, and what is short must find a
/// place beside them.
static SELECTING: Semaphore = Semaphore::const_new(32);
/// And most selections of one caller.
static SELECTING_OF_ONE: Shares = Shares::new(8);
/// Memory for the matrices of selections, in MiB: enough for one of the
/// largest. Smaller ones run in parallel.
static MATRICES: Semaphore = Semaphore::const_new(LARGEST_SELECTION as usize);

/// Most versions being made resident, and lists of examples being read, at
/// once. Apart from the others, since pictures wait for them.
static LOADING: Semaphore = Semaphore::const_new(32);

/// Runs a computation on a blocking thread, once a place is free.
///
/// # Errors
/// If it panics.
pub async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    run(&COMPUTING, work).await
}

/// Runs a caller's selection, once there is a place for it and memory for its
/// matrices.
///
/// # Errors
/// If it panics.
pub async fn select<T: Send + 'static>(
    caller: Option<&str>,
    size: SelectionSize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    let own = SELECTING_OF_ONE.take(caller, 1).await;
    let place = SELECTING.acquire().await.map_err(CatalogError::internal)?;
    let memory = MATRICES.acquire_many(size.mebibytes());
    let memory = memory.await.map_err(CatalogError::internal)?;
    compute(move || {
        let _held = (own, place, memory);
        work()
    })
    .await
}

/// Runs a read of a version's tensors on a blocking thread, once there is a
/// place for it.
///
/// # Errors
/// A panic in it.
pub(super) async fn load<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    run(&LOADING, work).await
}

async fn run<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    // Never closed. Held by the work itself: it goes on if nobody waits.
    let place = places.acquire().await.map_err(CatalogError::internal)?;
    tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    })
    .await
    .map_err(CatalogError::internal)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn selections_of_one_caller_leave_places_for_another() {
        let size = SelectionSize::default();
        let (open, gate) = tokio::sync::watch::channel(false);
        let running = Arc::new(AtomicUsize::new(0));
        let greedy: Vec<_> = (0..40)
            .map(|_| {
                let (mut gate, running) = (gate.clone(), Arc::clone(&running));
                let work = move || {
                    running.fetch_add(1, Ordering::SeqCst);
                    let opened = gate.wait_for(|open| *open);
                    tokio::runtime::Handle::current().block_on(opened).is_ok()
                };
                tokio::spawn(select(Some("greedy"), size, work))
            })
            .collect();
        while running.load(Ordering::SeqCst) < SELECTING_OF_ONE.places() {
            tokio::task::yield_now().await;
        }
        // It would wait for ever for those.
        let other = select(Some("other"), size, || ());
        let other = tokio::time::timeout(std::time::Duration::from_secs(60), other).await;
        other.expect("it waited for another's").expect("a place");
        assert_eq!(running.load(Ordering::SeqCst), SELECTING_OF_ONE.places());
        open.send(true).expect("they wait");
        for selection in greedy {
            assert!(selection.await.expect("no panic").expect("a place"));
        }
    }
}
