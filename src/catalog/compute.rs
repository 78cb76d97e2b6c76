//! Threads for work that blocks: bounded, so that the store's calls, which run
//! on the same pool of blocking threads, never wait for one.

use tokio::sync::Semaphore;

use super::CatalogError;

/// Most long computations at once (selection, imports, filters); tokio's pool
/// has 512 threads.
static COMPUTING: Semaphore = Semaphore::const_new(64);
/// Most versions being made resident, and lists of examples being read, at
/// once. Apart from the others, since pictures wait for them.
static LOADING: Semaphore = Semaphore::const_new(32);

/// Runs a computation on a blocking thread, once a place is free.
///
/// # Errors
/// A panic in it.
pub async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    run(&COMPUTING, work).await
}

/// Runs work that reads a version's tensors on a blocking thread, once a place
/// is free.
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
