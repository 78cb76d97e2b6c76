//! torch's profiler around a piece of work: which operators, kernels and copies
//! its time went to.

// Calls of the C++ in `native/`.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_char},
    path::Path,
};

use tch::Device;

unsafe extern "C" {
    fn tipserve_profile_begin(cuda: bool) -> bool;
    fn tipserve_profile_end(file: *const c_char) -> bool;
}

/// Runs `work` under the profiler, and writes a trace in Chrome's format to `file`.
///
/// # Errors
/// Those of `work`, or if the profiler cannot be started or the file written;
/// torch's reason is on standard error.
pub fn recorded<T>(
    device: Device,
    file: &Path,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = CString::new(file.as_os_str().as_encoded_bytes())?;
    // SAFETY: a plain value; the call catches what torch throws.
    let begun = unsafe { tipserve_profile_begin(matches!(device, Device::Cuda(_))) };
    anyhow::ensure!(begun, "torch's profiler does not start");
    let result = work();
    // SAFETY: `name` is a C string that outlives the call, which keeps no pointer to it.
    let written = unsafe { tipserve_profile_end(name.as_ptr()) };
    anyhow::ensure!(written, "no profile in {}", file.display());
    result
}
