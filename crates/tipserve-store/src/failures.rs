//! Maps the storage's failures to the store's errors.

use std::{io, time::Duration};

use super::StoreError;

/// The operating system's number of the error "input/output error" (EIO).
const EIO: i32 = 5;
/// When a caller should try again after an outage.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An error with its causes, without repetitions.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn io_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = cause.source();
    }
    None
}

/// Whether the disk itself has failed.
pub(crate) fn is_of_the_disk(error: &object_store::Error) -> bool {
    io_error(error).is_some_and(|error| error.raw_os_error() == Some(EIO))
}

/// Maps a failure of a local folder or a bucket.
pub(crate) fn of(doing: &str, error: &object_store::Error, is_local: bool) -> StoreError {
    use object_store::Error as E;
    let (doing, detail) = (doing.to_owned(), chain(error));
    match (error, io_error(error).map(io::Error::kind)) {
        (_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => {
            StoreError::Full { doing, detail }
        }
        (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _)
        | (_, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)) => {
            StoreError::Refused { doing, detail }
        }
        // object_store gives a refused listing no kind of its own, and the
        // error that holds the status is not public.
        (E::Generic { .. }, _)
            if !is_local
                && ["status code: 401", "status code: 403"]
                    .iter()
                    .any(|status| detail.contains(status)) =>
        {
            StoreError::Refused { doing, detail }
        }
        (E::Generic { .. }, _) if !is_local => StoreError::Unavailable {
            doing,
            detail,
            retry_after: RETRY_AFTER,
        },
        _ => StoreError::Storage { doing, detail },
    }
}
