//! Where the encoders run, and in which number format.

// libtorch_cuda is loaded at run time, by dlopen.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    str::FromStr,
};

use tch::{Cuda, Device, Kind};
use thiserror::Error;

use super::{
    bundle::Bundle,
    int8::Int8Archives,
    precision::{Precision, has_int8_products},
};

/// A device as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU, whatever else there is.
    Cpu,
    /// CUDA devices, by number: one or more, each once.
    Cuda(Vec<usize>),
    /// All CUDA devices of the machine.
    EveryCuda,
}

/// A number format as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// What the device does fastest: see [`DtypeChoice::of`].
    #[default]
    Auto,
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half; on CUDA only.
    F16,
    /// 8-bit integers; on CPUs that have instructions for them, with a bundle
    /// that brings them.
    Int8,
}

/// Why a device or number format cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// The text names no device.
    #[error(
        "{given:?} is not a device: auto, cpu, cuda, cuda:N, cuda:N,M,… (each once) or cuda:all \
         is needed"
    )]
    UnknownDevice {
        /// The text that was given.
        given: String,
    },
    /// Not a number format's name.
    #[error("{given:?} is not a number format: auto, f32, bf16, f16 or int8 is needed")]
    UnknownDtype {
        /// The text that was given.
        given: String,
    },
    /// The text is neither `off` nor `auto`.
    #[error("{given:?} is not a choice for CUDA graphs: off or auto is needed")]
    UnknownGraphs {
        /// The text that was given.
        given: String,
    },
    /// CUDA was asked for and is not there.
    #[error("CUDA is not available: {reason}")]
    NoCuda {
        /// Why it is not: no driver, or a torch without CUDA.
        reason: String,
    },
    /// There are not that many devices.
    #[error("there is no device cuda:{index}: this machine has {count}, counted from 0")]
    NoSuchCuda {
        /// The number that was asked for.
        index: usize,
        /// How many CUDA devices the machine has.
        count: usize,
    },
    /// Half precision on a CPU is slow and not worth having.
    #[error("f16 runs on CUDA only; on the CPU use bf16 or f32")]
    HalfOnCpu,
    /// 8-bit products are for CPUs.
    #[error("int8 runs on CPUs only; on CUDA use f16, bf16 or f32")]
    Int8OnCuda,
    /// Without the instructions the products would be slow, or overflow.
    #[error(
        "int8 needs a CPU with AVX-512 VNNI, AVX-VNNI or AMX, and this one has none of them; use \
         auto, bf16 or f32"
    )]
    NoInt8Products,
    /// There is nothing to run.
    #[error(
        "the bundle {bundle} has no int8 archive: export it again (with --int8 always if the export \
         left it out), or use auto, bf16 or f32"
    )]
    NoInt8Archive {
        /// The bundle's `name`, from `bundle.toml`.
        bundle: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(given: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::UnknownDevice {
            given: given.into(),
        };
        match given.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            "cuda:all" => Ok(Self::EveryCuda),
            other => {
                let list = other.strip_prefix("cuda:").ok_or_else(unknown)?;
                let mut indices: Vec<usize> = Vec::new();
                for index in list.split(',') {
                    let index = index.trim().parse().map_err(|_| unknown())?;
                    if indices.contains(&index) {
                        return Err(unknown());
                    }
                    indices.push(index);
                }
                Ok(Self::Cuda(indices))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(indices) => {
                let indices: Vec<String> = indices.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", indices.join(","))
            }
            Self::EveryCuda => f.write_str("cuda:all"),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = DeviceError;

    fn from_str(given: &str) -> Result<Self, DeviceError> {
        match given.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" => Ok(Self::F16),
            "int8" | "i8" => Ok(Self::Int8),
            _ => Err(DeviceError::UnknownDtype {
                given: given.into(),
            }),
        }
    }
}

impl DeviceChoice {
    /// The devices, at least one, with CUDA's libraries loaded where they are
    /// CUDA's.
    ///
    /// To be called before anything else of torch's: torch looks once whether
    /// its CUDA half is there, at the first operation that could want it.
    ///
    /// # Errors
    /// [`DeviceError::NoCuda`], [`DeviceError::NoSuchCuda`]. `Auto` does not
    /// fail.
    pub fn open(&self) -> Result<Vec<Device>, DeviceError> {
        match self {
            Self::Cpu => Ok(vec![Device::Cpu]),
            Self::Auto => Ok(vec![match count_cuda() {
                Ok(_) => Device::Cuda(0),
                Err(error) => {
                    tracing::debug!(%error, "no CUDA; on the CPU");
                    Device::Cpu
                }
            }]),
            Self::EveryCuda => Ok((0..count_cuda()?).map(Device::Cuda).collect()),
            Self::Cuda(indices) => {
                let count = count_cuda()?;
                let device = |&index| {
                    if index < count {
                        Ok(Device::Cuda(index))
                    } else {
                        Err(DeviceError::NoSuchCuda { index, count })
                    }
                };
                indices.iter().map(device).collect()
            }
        }
    }
}

impl DtypeChoice {
    /// What a bundle's encoders are to compute in on a device.
    ///
    /// `Auto` takes half on CUDA. On a CPU it takes int8 if that has
    /// instructions for it and the bundle has 8-bit archives that agree well
    /// enough with the float ones ([`Agreement::is_enough`]), and
    /// [`fastest_kind`] otherwise.
    ///
    /// # Errors
    /// [`DeviceError::HalfOnCpu`]; for `Int8` [`DeviceError::Int8OnCuda`],
    /// [`DeviceError::NoInt8Products`], [`DeviceError::NoInt8Archive`].
    ///
    /// [`Agreement::is_enough`]: super::int8::Agreement::is_enough
    pub fn of(self, bundle: &Bundle, device: Device) -> Result<Precision, DeviceError> {
        let int8 = bundle.int8.as_ref().filter(|int8| int8.image.is_some());
        match self {
            Self::Auto => {
                let agrees = int8.is_some_and(|int8| int8.agreement.is_enough());
                if agrees && device == Device::Cpu && has_int8_products() {
                    return Ok(Precision::Int8);
                }
                Ok(fastest_kind(device).into())
            }
            Self::F32 => Ok(Precision::Float32),
            Self::Bf16 => Ok(Precision::Bfloat16),
            Self::F16 if device.is_cuda() => Ok(Precision::Float16),
            Self::F16 => Err(DeviceError::HalfOnCpu),
            Self::Int8 if device != Device::Cpu => Err(DeviceError::Int8OnCuda),
            Self::Int8 if !has_int8_products() => Err(DeviceError::NoInt8Products),
            Self::Int8 if int8.is_none() => Err(DeviceError::NoInt8Archive {
                bundle: bundle.name.clone(),
            }),
            Self::Int8 => Ok(Precision::Int8),
        }
    }
}

impl DtypeChoice {
    /// What a bundle's text encoder is to compute in beside a picture encoder
    /// of `image`, which [`DtypeChoice::of`] gave.
    ///
    /// `Auto` takes int8 only if the text archive, too, agrees well enough with
    /// the float one; without a measurement it does not.
    pub fn of_text(self, bundle: &Bundle, device: Device, image: Precision) -> Precision {
        let int8 = bundle.int8.as_ref();
        match (self, image) {
            (Self::Auto, Precision::Int8) if !int8.is_some_and(Int8Archives::text_is_enough) => {
                fastest_kind(device).into()
            }
            _ => image,
        }
    }
}

/// The float format that a device multiplies fastest: half on CUDA; on a CPU bfloat16 where it
/// has AMX-BF16 or AVX512-BF16, float32 otherwise.
pub fn fastest_kind(device: Device) -> Kind {
    match device {
        Device::Cuda(_) => Kind::Half,
        Device::Cpu if has_bf16_products() => Kind::BFloat16,
        _ => Kind::Float,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_bf16_products() -> bool {
    // CPUID, leaf 7: subleaf 0 EDX bit 22 is AMX-BF16, subleaf 1 EAX bit 5
    // AVX512-BF16. (AVX-512's registers must be enabled by the system too,
    // which is what the standard macro sees to.)
    std::arch::is_x86_feature_detected!("avx512bf16")
        || std::arch::x86_64::__cpuid_count(7, 0).edx & (1 << 22) != 0
            && std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bf16_products() -> bool {
    false
}

/// How many CUDA devices there are, at least one; CUDA's libraries are loaded
/// then.
fn count_cuda() -> Result<usize, DeviceError> {
    find_driver()?;
    load_cuda()?;
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if !Cuda::is_available() || count == 0 {
        return Err(DeviceError::NoCuda {
            reason: "torch sees no device (is the driver new enough for torch's CUDA, and does \
                     CUDA_VISIBLE_DEVICES leave one?)"
                .into(),
        });
    }
    Ok(count)
}

/// Looks for NVIDIA's driver first: loading torch's CUDA half, some gigabytes
/// of libraries, would tell no more.
fn find_driver() -> Result<(), DeviceError> {
    load(c"libcuda.so.1").map_err(|reason| DeviceError::NoCuda {
        reason: format!("this machine has no NVIDIA driver ({reason})"),
    })
}

/// Loads libtorch_cuda.so, from beside the libtorch_cpu.so that is running.
///
/// Nothing in this binary names a symbol of it, so the linker leaves it out
/// (`--as-needed`), and its kernels register themselves only on loading.
fn load_cuda() -> Result<(), DeviceError> {
    let no_cuda = |reason: String| DeviceError::NoCuda { reason };
    let folder = torch_folder().ok_or_else(|| no_cuda("libtorch_cpu.so is not found".into()))?;
    let path = folder.join("libtorch_cuda.so");
    if !path.exists() {
        return Err(no_cuda(format!(
            "this torch is built for the CPU only: there is no {}",
            path.display()
        )));
    }
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| no_cuda("libtorch's path has a zero byte".into()))?;
    // The same build as the torch already loaded, from the same folder.
    load(&name).map_err(|reason| no_cuda(format!("{} does not load: {reason}", path.display())))
}

/// Loads a shared library for good, its symbols for all to see.
fn load(name: &CStr) -> Result<(), String> {
    // SAFETY: `name` is a C string. Loading runs the library's initialisers;
    // the only two libraries that are loaded so are the driver, which has
    // none to speak of, and torch's CUDA half, which registers its kernels.
    // Neither is ever unloaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failed dlopen, dlerror gives a C string or null.
    unsafe {
        let message = libc::dlerror();
        Err(if message.is_null() {
            "unknown".into()
        } else {
            CStr::from_ptr(message).to_string_lossy().into_owned()
        })
    }
}

/// The folder of the libtorch_cpu.so in this process.
fn torch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps
        .lines()
        .find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let path = PathBuf::from(line.get(line.find('/')?..)?);
    Some(path.parent()?.into())
}
