//! Counts every allocation of this process, those of the decoders in C among
//! them: this program's `malloc` and its kin go before the C library's.

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The most bytes, beyond those held before, that `run` holds at once.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = run();
    (result, PEAK.load(Relaxed).saturating_sub(before))
}

// glibc's own, under the names by which it exports them for this purpose.
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(place: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
    fn __libc_free(place: *mut c_void);
}

fn size(place: *mut c_void) -> usize {
    // SAFETY: null, or a place that glibc gave and that is not free.
    unsafe { libc::malloc_usable_size(place) }
}

fn taken(place: *mut c_void) -> *mut c_void {
    let size = size(place);
    let held = HELD.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(held, Relaxed);
    place
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: the caller's.
    taken(unsafe { __libc_malloc(size) })
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: the caller's.
    taken(unsafe { __libc_calloc(count, size) })
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(place: *mut c_void, bytes: usize) -> *mut c_void {
    let before = size(place);
    // SAFETY: the caller's.
    let moved = unsafe { __libc_realloc(place, bytes) };
    if moved.is_null() && bytes > 0 {
        // Nothing has changed.
        return moved;
    }
    if moved == place {
        HELD.fetch_sub(before, Relaxed);
        return taken(moved);
    }
    // Both were there while one was copied to the other.
    taken(moved);
    HELD.fetch_sub(before, Relaxed);
    moved
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: the caller's.
    taken(unsafe { __libc_memalign(alignment, size) })
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: the caller's.
    taken(unsafe { __libc_memalign(alignment, size) })
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    to: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's, for both.
    unsafe {
        let place = __libc_memalign(alignment, size);
        if place.is_null() && size > 0 {
            return libc::ENOMEM;
        }
        *to = taken(place);
    }
    0
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(place: *mut c_void) {
    HELD.fetch_sub(size(place), Relaxed);
    // SAFETY: the caller's.
    unsafe { __libc_free(place) }
}
