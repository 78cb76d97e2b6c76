//! TorchScript modules (`native/modules.cpp`).

// Calls of the C++ in `native/`, and raw tensors.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_char, c_void},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr::NonNull,
};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::{cuda::checked, precision::Precision};

unsafe extern "C" {
    fn tipserve_module_load(
        path: *const c_char,
        cuda: i32,
        int8: bool,
        loaded: *mut *mut c_void,
        mapped: *mut bool,
    ) -> *mut c_char;
    fn tipserve_module_free(module: *mut c_void);
    fn tipserve_module_convert(module: *mut c_void, kind: i8) -> *mut c_char;
    fn tipserve_module_parameters(module: *mut c_void, count: *mut u64) -> *mut c_char;
    fn tipserve_module_constants(module: *mut c_void, bytes: *mut u64) -> *mut c_char;
    fn tipserve_module_fuse(module: *mut c_void, fused: *mut *mut c_void) -> *mut c_char;
    fn tipserve_module_forward(
        module: *mut c_void,
        input: *const C_tensor,
        output: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A TorchScript module with one tensor in and one out, in `eval`.
pub(crate) struct Module(NonNull<c_void>);

// SAFETY: a pointer to a `torch::jit::Module`, a counted reference to the
// module object. `forward` of a module that is not changed any more is safe
// from several threads at once (PyTorch, "CPU threading and TorchScript
// inference"): each call makes its own interpreter state, and the executor
// locks its cache of compiled graphs. Nothing changes a module once it is
// made: no method takes `&mut self`.
unsafe impl Sync for Module {}
// SAFETY: nothing in it is bound to a thread; the count is atomic.
unsafe impl Send for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: it is ours, and not used afterwards.
        unsafe { tipserve_module_free(self.0.as_ptr()) }
    }
}

impl Module {
    /// Loads an archive. Its parameters and buffers are converted to the
    /// format's kind; packed 8-bit weights stay as they are. Says whether the
    /// file was mapped, not copied.
    ///
    /// # Errors
    /// torch's.
    pub(crate) fn load(
        path: &Path,
        device: Device,
        precision: Precision,
    ) -> Result<(Self, bool), String> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| "its path has a zero byte".to_owned())?;
        let cuda = match device {
            Device::Cuda(index) => i32::try_from(index).map_err(|error| error.to_string())?,
            _ => -1,
        };
        let int8 = precision == Precision::Int8;
        let mut mapped = false;
        let module = made(|loaded| {
            // SAFETY: `name` is a C string, `loaded` a place for a pointer,
            // `mapped` one for a bool.
            unsafe { tipserve_module_load(name.as_ptr(), cuda, int8, loaded, &raw mut mapped) }
        })?;
        // c10::ScalarType.
        let kind = match precision {
            Precision::Float32 => Some(6),
            Precision::Bfloat16 => Some(15),
            Precision::Float16 => Some(5),
            Precision::Int8 => None,
        };
        if let Some(kind) = kind {
            // SAFETY: the module is alive, and nobody else has it yet.
            checked(unsafe { tipserve_module_convert(module.0.as_ptr(), kind) })?;
        }
        Ok((module, mapped))
    }

    /// Number of float parameters.
    ///
    /// # Errors
    /// torch's.
    pub(crate) fn parameters(&self) -> Result<u64, String> {
        let mut count = 0;
        // SAFETY: the module is alive, `count` a place for a number.
        checked(unsafe { tipserve_module_parameters(self.0.as_ptr(), &raw mut count) })?;
        Ok(count)
    }

    /// Bytes of the weights that are constants of its graph: all of a fused
    /// module's, none of a loaded one's.
    ///
    /// # Errors
    /// torch's.
    pub(crate) fn constants(&self) -> Result<u64, String> {
        let mut bytes = 0;
        // SAFETY: the module is alive, `bytes` a place for a number.
        checked(unsafe { tipserve_module_constants(self.0.as_ptr(), &raw mut bytes) })?;
        Ok(bytes)
    }

    /// A module of the same function with its weights as constants, operators
    /// fused and weights laid out for the CPU's kernels.
    ///
    /// # Errors
    /// torch's, if it cannot.
    pub(crate) fn fused(&self) -> Result<Self, String> {
        made(|fused| {
            // SAFETY: the module is alive; freezing copies what it changes.
            unsafe { tipserve_module_fuse(self.0.as_ptr(), fused) }
        })
    }

    /// Its output for `input`.
    ///
    /// # Errors
    /// torch's.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, String> {
        let mut output = std::ptr::null_mut();
        // SAFETY: module and input are alive, `output` is a place for a
        // pointer.
        checked(unsafe {
            tipserve_module_forward(self.0.as_ptr(), input.as_ptr(), &raw mut output)
        })?;
        if output.is_null() {
            return Err("the module gave no tensor".into());
        }
        // SAFETY: a tensor that the call made for us, as tch makes its own.
        Ok(unsafe { Tensor::from_ptr(output) })
    }
}

/// The module that a call writes the pointer of.
fn made(call: impl FnOnce(*mut *mut c_void) -> *mut c_char) -> Result<Module, String> {
    let mut module = std::ptr::null_mut();
    checked(call(&raw mut module))?;
    NonNull::new(module)
        .map(Module)
        .ok_or_else(|| "there is no module".into())
}
