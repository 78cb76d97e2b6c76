//! Threads for work that blocks: bounded, so that the store's calls, which run
//! on the same pool of blocking threads, never wait for one.

use tokio::sync::Semaphore;

use super::{CatalogError, shares::Shares};

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
const LARGEST_SELECTION: u32 = selection_mebibytes(usize::MAX);
/// Most examples for which methods compute a matrix of all with all.
const MATRIX_EXAMPLES: usize = 16_384;

/// Roughly the memory of choosing a version's hyperparameters: three
/// double-precision matrices of all examples with all.
const fn selection_mebibytes(examples: usize) -> u32 {
    let examples = if examples < MATRIX_EXAMPLES {
        examples
    } else {
        MATRIX_EXAMPLES
    };
    (((3 * 8 * examples * examples) >> 20) + 1) as u32
}

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

/// Runs a caller's selection for a version of this many examples, once there is
/// a place for it and memory for its matrices.
///
/// # Errors
/// If it panics.
pub async fn select<T: Send + 'static>(
    caller: Option<&str>,
    examples: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    let own = SELECTING_OF_ONE.take(caller, 1).await;
    let place = SELECTING.acquire().await.map_err(CatalogError::internal)?;
    let memory = MATRICES.acquire_many(selection_mebibytes(examples));
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
    use super::*;

    #[test]
    fn the_largest_selection_runs_alone_and_small_ones_beside_each_other() {
        let one = selection_mebibytes(MATRIX_EXAMPLES);
        assert_eq!(one, LARGEST_SELECTION);
        assert_eq!(one, selection_mebibytes(2_000_000));
        assert!((6000..7000).contains(&one), "{one} MiB");
        assert!(64 * selection_mebibytes(1000) < LARGEST_SELECTION);
    }
}
