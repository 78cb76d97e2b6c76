//! The memory of tensors on the CPU.
//!
//! A batch goes through hundreds of tensors of megabytes. glibc's `malloc`
//! returns them to the system as they are freed and takes them again page by
//! page, a fifth of the time of some encoders (`docs/performance.md`). mimalloc
//! keeps them for the next batch, in huge pages where the system has them.
//! Everything else stays with the process's own allocator: requests of many
//! sizes that end on other threads than they began on leave holes in
//! mimalloc's pages, and a hostile peer could have made it hold twice as much.

// Calls of the C++ in `native/`, and of mimalloc.
#![allow(unsafe_code)]

unsafe extern "C" {
    fn tipserve_tensor_memory_install();
}

/// Takes the memory of tensors from mimalloc from now on; those that there are
/// stay where they are. For a program that runs encoders for long.
pub fn install() {
    // SAFETY: the allocator lives as long as the process, and each tensor's
    // memory knows what frees it.
    unsafe { tipserve_tensor_memory_install() }
}

/// Returns to the system what no tensor uses. Takes some milliseconds.
pub fn give_back() {
    // SAFETY: may be called by any thread at any time; it touches what is free
    // alone.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
