//! Products of bfloat16 by AMX's tile registers, which Rust has no intrinsics
//! for yet: Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 1, chapter 18, and volume 2 (LDTILECFG, TILELOADD, TDPBF16PS).

use std::{
    arch::{asm, x86_64::__cpuid_count},
    sync::OnceLock,
};

use super::simd::{MAX_PANEL, MAX_ROWS};

/// Whether AMX is there, the kernel lets us use it, and it computes what it
/// should: its first product is held against plain arithmetic.
pub fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| detect() && permitted() && computes())
}

fn detect() -> bool {
    // CPUID.(7,0):EDX: bit 22 AMX-BF16, bit 24 AMX-TILE.
    if !is_x86_feature_detected!("avx512f") || __cpuid_count(0, 0).eax < 0x1d {
        return false;
    }
    let bits = __cpuid_count(7, 0).edx;
    bits & (1 << 22) != 0 && bits & (1 << 24) != 0
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    // Linux gives a process the tile registers when it asks for them
    // (Documentation/arch/x86/xstate.rst); older kernels refuse the call.
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call reads its two numbers and changes only what this
    // process may use.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

fn computes() -> bool {
    // Small whole numbers: exact in bfloat16 and in every order of summing.
    const WIDTH: usize = 64;
    let number = |i: usize| ((i * 7 + i / 13) % 17) as f32 - 8.0;
    let features: Vec<u16> = (0..MAX_ROWS * WIDTH)
        .map(|i| half::bf16::from_f32(number(i)).to_bits())
        .collect();
    let keys: Vec<u16> = (0..MAX_PANEL * WIDTH)
        .map(|i| half::bf16::from_f32(number(i + 3)).to_bits())
        .collect();
    let mut got = [0f32; MAX_ROWS * MAX_PANEL];
    // SAFETY: detected and permitted; both hold whole tiles.
    unsafe {
        configure();
        tile(features.as_ptr(), WIDTH, keys.as_ptr(), &mut got);
        release();
    }
    (0..MAX_ROWS).all(|r| {
        (0..MAX_PANEL).all(|j| {
            let want: f32 = (0..WIDTH)
                .map(|k| number(r * WIDTH + k) * number((k / 2 * MAX_PANEL + j) * 2 + k % 2 + 3))
                .sum();
            got[r * MAX_PANEL + j] == want
        })
    })
}

/// LDTILECFG's memory: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Shapes this thread's tile registers, until [`release`].
///
/// # Safety
/// AMX is [`available`].
pub unsafe fn configure() {
    // SAFETY: reads 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) }
}

/// Gives the tile registers back.
///
/// # Safety
/// AMX is [`available`].
pub unsafe fn release() {
    // SAFETY: clears the tiles only.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// `to` = 32 rows of features times the 48 keys of a panel.
///
/// # Safety
/// AMX is [`available`] and [`configure`]d on this thread; `features` holds 32
/// rows of `width` bfloat16, `keys` a panel of that width, a multiple of 32.
pub unsafe fn tile(
    features: *const u16,
    width: usize,
    keys: *const u16,
    to: &mut [f32; MAX_ROWS * MAX_PANEL],
) {
    let row_bytes = width * 2;
    let panel_bytes = MAX_PANEL * 4;
    // tmm0-2 sum the upper 16 rows against the panel's three blocks of 16 keys,
    // tmm3-5 the lower; tmm6 holds features, tmm7 keys: 16 rows of 16 pairs.
    // SAFETY: reads the two operands to the shapes promised, writes `to`.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2",
            "tilezero tmm3", "tilezero tmm4", "tilezero tmm5",
            "2:",
            "tileloadd tmm7, [{keys} + {panel_bytes}*1]",
            "tileloadd tmm6, [{upper} + {row_bytes}*1]",
            "tdpbf16ps tmm0, tmm6, tmm7",
            "tileloadd tmm6, [{lower} + {row_bytes}*1]",
            "tdpbf16ps tmm3, tmm6, tmm7",
            "tileloadd tmm7, [{keys} + {panel_bytes}*1 + 64]",
            "tdpbf16ps tmm4, tmm6, tmm7",
            "tileloadd tmm6, [{upper} + {row_bytes}*1]",
            "tdpbf16ps tmm1, tmm6, tmm7",
            "tileloadd tmm7, [{keys} + {panel_bytes}*1 + 128]",
            "tdpbf16ps tmm2, tmm6, tmm7",
            "tileloadd tmm6, [{lower} + {row_bytes}*1]",
            "tdpbf16ps tmm5, tmm6, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {keys}, {keys_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{to} + {panel_bytes}*1], tmm0",
            "tilestored [{to} + {panel_bytes}*1 + 64], tmm1",
            "tilestored [{to} + {panel_bytes}*1 + 128], tmm2",
            "tilestored [{to} + {panel_bytes}*1 + {half}], tmm3",
            "tilestored [{to} + {panel_bytes}*1 + {half} + 64], tmm4",
            "tilestored [{to} + {panel_bytes}*1 + {half} + 128], tmm5",
            upper = inout(reg) features => _,
            lower = inout(reg) features.add(16 * width) => _,
            keys = inout(reg) keys => _,
            steps = inout(reg) width / 32 => _,
            to = in(reg) to.as_mut_ptr(),
            row_bytes = in(reg) row_bytes,
            panel_bytes = in(reg) panel_bytes,
            keys_step = const 16 * MAX_PANEL * 4,
            half = const 16 * MAX_PANEL * 4,
            options(nostack),
        );
    }
}
