//! CUDA streams, graphs and memory: what tch has no call for (`native/`).

// Calls of the C++ in `native/`.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use parking_lot::Mutex;
use tch::{Device, Kind, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RawStream {
    id: i64,
    device: i32,
}

/// A device's memory, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the card, left by everyone who uses it.
    pub free: u64,
    /// All memory of the card, in use or not.
    pub total: u64,
    /// Held by this process's tensors.
    pub allocated: u64,
    /// Held by torch's allocator in this process, in use or not.
    pub reserved: u64,
}

unsafe extern "C" {
    fn tipserve_stream_new(device: i32, made: *mut RawStream) -> *mut c_char;
    fn tipserve_stream_enter(stream: RawStream, before: *mut RawStream) -> *mut c_char;
    fn tipserve_stream_wait(stream: RawStream) -> *mut c_char;
    fn tipserve_memory_of(device: i32, memory: *mut Memory) -> *mut c_char;
    fn tipserve_memory_release() -> *mut c_char;
    fn tipserve_graph_available() -> *mut c_char;
    fn tipserve_graph_begin(stream: RawStream, begun: *mut *mut c_void) -> *mut c_char;
    fn tipserve_graph_end(recorded: *mut c_void) -> *mut c_char;
    fn tipserve_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn tipserve_graph_free(graph: *mut c_void) -> *mut c_char;
    fn tipserve_message_free(message: *mut c_char);
}

/// Reads what a call of `native/` gave: nothing, or why it failed.
pub(crate) fn checked(message: *mut c_char) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so it is a C string that the call made for us; it is
    // freed once, here, and not used afterwards.
    unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        tipserve_message_free(message);
        Err(text)
    }
}

/// The number of a CUDA device, or why it is none.
fn index(device: Device) -> Result<i32, String> {
    match device {
        Device::Cuda(index) => i32::try_from(index).map_err(|error| error.to_string()),
        other => Err(format!("{other:?} is not a CUDA device")),
    }
}

/// A CUDA stream that neither waits for the default stream nor is waited for.
///
/// The rule that keeps streams apart in this process: batches of the encoder
/// run in streams of their own ([`Stream::run`], which waits for the end);
/// everything else runs in the default stream. What is made in the default
/// stream and read in another (weights) is waited for once, when it is made.
#[derive(Clone, Debug)]
pub struct Stream(RawStream);

impl Stream {
    /// A stream of a device, from torch's pool (32 a device, in turn).
    ///
    /// # Errors
    /// torch's message, if it is no CUDA device for instance.
    pub fn new(device: Device) -> Result<Self, String> {
        let mut made = RawStream { id: 0, device: 0 };
        // SAFETY: `made` is written by the call, which keeps no pointer.
        checked(unsafe { tipserve_stream_new(index(device)?, &raw mut made) })?;
        Ok(Self(made))
    }

    /// Runs `work` with this as the calling thread's current stream of its
    /// device, and waits until all that was launched on it is done, also where
    /// `work` fails or panics.
    ///
    /// # Errors
    /// torch's message, if the device has failed.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, String> {
        let mut before = RawStream { id: 0, device: 0 };
        // SAFETY: `before` is written by the call, which keeps no pointer.
        checked(unsafe { tipserve_stream_enter(self.0, &raw mut before) })?;
        let back = Back(before);
        let result = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: plain numbers.
        let waited = checked(unsafe { tipserve_stream_wait(self.0) });
        drop(back);
        match result {
            Ok(result) => waited.map(|()| result),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Records what `work` launches in this stream, and computes none of it.
    /// What it allocates is the graph's own, for as long as that lives;
    /// tensors that `work` gives are filled by each [`Graph::replay`].
    ///
    /// What it launches must have run before in this stream and thread, since
    /// libraries that are loaded on first use cannot be while recording.
    ///
    /// # Errors
    /// That of `work`, or torch's message, where something that `work` did
    /// cannot be recorded.
    pub fn record<T>(
        &self,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<(T, Graph), String> {
        // torch's random generator knows of one recording at a time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock();
        self.run(|| {
            let mut begun = std::ptr::null_mut();
            // SAFETY: `begun` is written by the call, which keeps no pointer;
            // this is the current stream.
            checked(unsafe { tipserve_graph_begin(self.0, &raw mut begun) })?;
            let result = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: `begun` was made above, and is not used again where this
            // fails.
            let graph = checked(unsafe { tipserve_graph_end(begun) }).map(|()| Graph(begun));
            match result {
                Ok(Ok(made)) => Ok((made, graph?)),
                // It failed first.
                Ok(Err(error)) => Err(error),
                Err(panic) => resume_unwind(panic),
            }
        })?
    }
}

/// What was launched in a stream, recorded, and launched again as a whole.
#[derive(Debug)]
pub struct Graph(*mut c_void);

// SAFETY: nothing in it is bound to a thread, and it is used by one at a time:
// it is not Sync.
unsafe impl Send for Graph {}

impl Graph {
    /// Whether this torch has graphs; CUDA's half of it must be loaded.
    ///
    /// # Errors
    /// Why not.
    pub fn available() -> Result<(), String> {
        // SAFETY: it takes and keeps nothing.
        checked(unsafe { tipserve_graph_available() })
    }

    /// Launches it in the calling thread's current stream ([`Stream::run`]).
    ///
    /// # Errors
    /// torch's message.
    pub fn replay(&self) -> Result<(), String> {
        // SAFETY: made by `Stream::record`, and not freed before it is dropped.
        checked(unsafe { tipserve_graph_replay(self.0) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: freed once, here. It does not run: the thread that launches it waits
        // for the stream.
        if let Err(error) = checked(unsafe { tipserve_graph_free(self.0) }) {
            tracing::error!(error, "a CUDA graph could not be freed");
        }
    }
}

/// Makes a stream the current one again when dropped.
struct Back(RawStream);

impl Drop for Back {
    fn drop(&mut self) {
        let mut left = RawStream { id: 0, device: 0 };
        // SAFETY: `left` is written by the call, which keeps no pointer.
        if let Err(error) = checked(unsafe { tipserve_stream_enter(self.0, &raw mut left) }) {
            tracing::error!(error, "a thread's CUDA stream could not be put back");
        }
    }
}

/// The memory of a CUDA device.
///
/// # Errors
/// torch's message, if it is no CUDA device for instance.
pub fn memory(device: Device) -> Result<Memory, String> {
    let index = index(device)?;
    // torch's allocator knows a device from its first tensor on.
    let first = Tensor::f_zeros([1], (Kind::Uint8, device));
    if let Err(error) = first {
        let message = error.to_string();
        return Err(message.lines().next().unwrap_or_default().to_owned());
    }
    let mut memory = Memory::default();
    // SAFETY: `memory` is written by the call, which keeps no pointer.
    checked(unsafe { tipserve_memory_of(index, &raw mut memory) })?;
    Ok(memory)
}

/// Gives memory that torch's allocator holds and no tensor uses back to the
/// cards, all of them.
///
/// # Errors
/// torch's message, for instance if there is no CUDA.
pub fn release_memory() -> Result<(), String> {
    // SAFETY: it takes and keeps nothing.
    checked(unsafe { tipserve_memory_release() })
}

/// Waits for all work of a device; nothing for the CPU, whose work is done
/// when its operator returns.
pub fn synchronise(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}
