//! Threads for long computations: bounded, so that the store's calls, which
//! run on the same pool of blocking threads, never wait for one.

use tokio::sync::Semaphore;

use super::CatalogError;

/// Computations at once; tokio's pool has 512 threads.
static PLACES: Semaphore = Semaphore::const_new(64);

/// Runs a computation on a blocking thread, when there is a place for it.
///
/// # Errors
/// A panic in it.
pub async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatalogError> {
    // Never closed. Held by the work itself: it goes on where nobody waits.
    let place = PLACES.acquire().await.map_err(CatalogError::internal)?;
    tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    })
    .await
    .map_err(CatalogError::internal)
}
