//! Work split over threads: the threads that torch itself computes on.
//!
//! torch's wheels run their loops on an OpenMP team that belongs to the
//! calling thread and that keeps spinning for a while after each loop. A pool
//! of our own beside it would fight it for the cores at every call, and
//! threads started for each call cost more than a small head. So the work runs
//! on that very team, entered as the compiler enters it: `GOMP_parallel`,
//! which GNU's, LLVM's and Intel's OpenMP all export. Where it is not to be
//! found (it is looked up at run time), scoped threads do.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

type GompParallel = unsafe extern "C" fn(
    body: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
    threads: u32,
    flags: u32,
);

struct Shared<'a> {
    next: AtomicUsize,
    items: usize,
    body: &'a (dyn Fn(usize) + Sync),
    panicked: AtomicBool,
}

impl Shared<'_> {
    fn drain(&self) {
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            if item >= self.items {
                return;
            }
            (self.body)(item);
        }
    }
}

unsafe extern "C" fn member(data: *mut c_void) {
    // SAFETY: `data` is the `Shared` that `run` passes and outlives the team.
    let shared = unsafe { &*data.cast::<Shared>() };
    // A panic must not unwind through C.
    if catch_unwind(AssertUnwindSafe(|| shared.drain())).is_err() {
        shared.panicked.store(true, Ordering::Relaxed);
    }
}

fn gomp() -> Option<GompParallel> {
    static FOUND: OnceLock<Option<GompParallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: a lookup by a NUL-terminated name; the signature is the one
        // that GCC's generated code calls, fixed since GCC 4.9.
        unsafe {
            let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr());
            (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, GompParallel>(symbol))
        }
    })
}

/// How many threads a piece of work may use; see [`set_threads`].
static THREADS: OnceLock<fn() -> usize> = OnceLock::new();

/// Says whom to ask, on the calling thread, how many threads its work may use:
/// torch's own setting, where torch is there. The first to say it wins; until
/// then work stays on the calling thread.
pub fn set_threads(source: fn() -> usize) {
    let _ = THREADS.set(source);
}

/// Threads that work from this thread may use.
pub fn threads() -> usize {
    THREADS.get().map_or(1, |source| source()).max(1)
}

/// Calls `body` once for each of `0..items`, on up to [`threads`] threads, in
/// any order, and returns when all are done.
///
/// # Panics
/// If `body` does, once all others are done.
pub fn run(items: usize, body: &(dyn Fn(usize) + Sync)) {
    let threads = threads().min(items);
    if threads <= 1 {
        (0..items).for_each(body);
        return;
    }
    let shared = Shared {
        next: AtomicUsize::new(0),
        items,
        body,
        panicked: AtomicBool::new(false),
    };
    match gomp() {
        Some(parallel) => {
            let data = (&raw const shared).cast_mut().cast::<c_void>();
            let team = u32::try_from(self::threads()).unwrap_or(1);
            // SAFETY: `member` takes what `data` points to, shares it only
            // through Sync types, and GOMP_parallel returns after every member.
            // The team is always torch's whole team: another size would make
            // OpenMP end and start threads.
            unsafe { parallel(member, data, team, 0) };
            assert!(
                !shared.panicked.load(Ordering::Relaxed),
                "a kernel panicked"
            );
        }
        None => std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| shared.drain());
            }
            shared.drain();
        }),
    }
}

/// A pointer that several threads write through, each to its own places.
#[derive(Clone, Copy)]
pub struct Shards<T>(*mut T);

// SAFETY: a bare address; every use states why the places are apart.
unsafe impl<T: Send> Send for Shards<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shards<T> {}

impl<T> Shards<T> {
    /// The places from `first` on.
    pub fn new(first: *mut T) -> Self {
        Self(first)
    }

    /// The address of place `i`.
    ///
    /// # Safety
    /// `i` lies inside the allocation.
    pub unsafe fn at(&self, i: usize) -> *mut T {
        unsafe { self.0.add(i) }
    }
}
