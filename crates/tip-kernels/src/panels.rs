//! Keys packed for the kernels, once, when a head becomes resident.
//!
//! A panel holds as many keys as a tile is wide, dimension by dimension, so
//! that one dimension of all of them is one run of memory: `[D][W]` in f32 and
//! f16, `[D/2][W][2]` in bfloat16 (the order that AVX512-BF16 and AMX read).
//! What is missing from the last panel, and from the last dimensions in
//! bfloat16, is zero.

use std::sync::atomic::{AtomicBool, Ordering};

use half::{bf16, f16};

use super::{
    simd::{Avx2, Avx512, Simd, VECTORS},
    team::{self, Shards},
};
use tip_spec::KeyDtype;

/// Dimensions in bfloat16 are padded to this, a step of AMX's product.
pub const BF16_STEP: usize = 32;

/// The instruction set that the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F: sixteen f32 a register.
    Avx512,
    /// AVX2 with FMA and F16C: eight f32 a register.
    Avx2,
}

impl Isa {
    /// The best that this machine has; none if it has neither.
    pub fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avx512f") {
            Some(Self::Avx512)
        } else if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            Some(Self::Avx2)
        } else {
            None
        }
    }

    /// W, keys in a panel.
    pub const fn panel(self) -> usize {
        match self {
            Self::Avx512 => VECTORS * Avx512::LANES,
            Self::Avx2 => VECTORS * Avx2::LANES,
        }
    }
}

/// A cache line: the alignment of the panels.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Rows of a matrix, packed.
pub struct Panels {
    isa: Isa,
    dtype: KeyDtype,
    rows: usize,
    width: usize,
    /// Bytes from one panel to the next.
    stride: usize,
    data: Vec<Line>,
}

impl Panels {
    /// Packs `rows` ([rows, width], row by row), row `order[i]` as the i-th
    /// where an order is given.
    ///
    /// The caller has checked that `source` holds rows × width numbers and
    /// that `order` holds `rows` numbers below it.
    pub fn pack(
        isa: Isa,
        dtype: KeyDtype,
        source: &[f32],
        width: usize,
        order: Option<&[u32]>,
    ) -> Self {
        let panel = isa.panel();
        let rows = source.len() / width.max(1);
        let stride = panel
            * match dtype {
                KeyDtype::F32 => width * 4,
                KeyDtype::F16 => width * 2,
                KeyDtype::Bf16 => width.next_multiple_of(BF16_STEP) * 2,
            };
        // W is a multiple of 8 and the padded width of 32: whole lines in
        // bfloat16; elsewhere a panel is rounded up to whole lines.
        let stride = stride.next_multiple_of(64);
        let count = rows.div_ceil(panel);
        let mut packed = Self {
            isa,
            dtype,
            rows,
            width,
            stride,
            data: vec![Line([0; 64]); count * stride / 64],
        };
        let base = Shards::new(packed.data.as_mut_ptr().cast::<u8>());
        team::run(count, &|p| {
            // SAFETY: panel p's bytes lie in the allocation and belong to item p.
            let bytes = unsafe { std::slice::from_raw_parts_mut(base.at(p * stride), stride) };
            for j in 0..panel.min(rows - p * panel) {
                let row = p * panel + j;
                let row = order.map_or(row, |order| order[row] as usize);
                let values = &source[row * width..(row + 1) * width];
                pack_row(dtype, bytes, panel, j, values);
            }
        });
        packed
    }

    /// The instruction set that it was packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The format that the rows were packed in.
    pub fn dtype(&self) -> KeyDtype {
        self.dtype
    }

    /// Rows that were packed, padding left out.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// D, the length of each row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of panels, the last one padded with zeros.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(self.isa.panel())
    }

    /// Heap bytes of the packed rows.
    pub fn size_bytes(&self) -> usize {
        self.data.len() * 64
    }

    /// The address of a panel.
    pub fn panel_ptr(&self, panel: usize) -> *const u8 {
        debug_assert!(panel < self.count());
        // SAFETY: inside the allocation, by the assertion.
        unsafe { self.data.as_ptr().cast::<u8>().add(panel * self.stride) }
    }

    /// The panels in f32, to be trained, and the distance between two in f32.
    pub fn f32_mut(&mut self) -> (Shards<f32>, usize) {
        assert_eq!(self.dtype, KeyDtype::F32);
        (
            Shards::new(self.data.as_mut_ptr().cast::<f32>()),
            self.stride / 4,
        )
    }

    /// The panels in bfloat16, to be written, and the distance between two.
    pub fn bf16_mut(&mut self) -> (Shards<u16>, usize) {
        assert_eq!(self.dtype, KeyDtype::Bf16);
        (
            Shards::new(self.data.as_mut_ptr().cast::<u16>()),
            self.stride / 2,
        )
    }

    /// Whether these rows ([rows, width], in that order) would pack to the same.
    pub fn hold(&self, source: &[f32], order: Option<&[u32]>) -> bool {
        if source.len() != self.rows * self.width {
            return false;
        }
        let panel = self.isa.panel();
        let differ = AtomicBool::new(false);
        team::run(self.count(), &|p| {
            // SAFETY: panel p's bytes are initialised.
            let bytes = unsafe { std::slice::from_raw_parts(self.panel_ptr(p), self.stride) };
            for j in 0..panel.min(self.rows - p * panel) {
                let row = p * panel + j;
                let row = order.map_or(row, |order| order[row] as usize);
                let values = &source[row * self.width..(row + 1) * self.width];
                let same = values.iter().enumerate().all(|(d, &value)| {
                    let value = match self.dtype {
                        KeyDtype::F32 => value,
                        KeyDtype::F16 => f16::from_f32(value).to_f32(),
                        KeyDtype::Bf16 => bf16::from_f32(value).to_f32(),
                    };
                    read(self.dtype, bytes, panel, j, d) == value
                });
                if !same {
                    differ.store(true, Ordering::Relaxed);
                }
            }
        });
        !differ.into_inner()
    }

    /// The rows in f32, in the packed order, [rows, width].
    pub fn unpack(&self) -> Vec<f32> {
        let mut out = vec![0f32; self.rows * self.width];
        let panel = self.isa.panel();
        if self.width == 0 {
            return out;
        }
        let shards = Shards::new(out.as_mut_ptr());
        team::run(self.count(), &|p| {
            // SAFETY: panel p's bytes are initialised.
            let bytes = unsafe { std::slice::from_raw_parts(self.panel_ptr(p), self.stride) };
            for j in 0..panel.min(self.rows - p * panel) {
                // SAFETY: each row is written by the one item that holds it.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(
                        shards.at((p * panel + j) * self.width),
                        self.width,
                    )
                };
                for (d, value) in row.iter_mut().enumerate() {
                    *value = read(self.dtype, bytes, panel, j, d);
                }
            }
        });
        out
    }
}

/// Byte offset of dimension `d` of key `j`.
fn offset(dtype: KeyDtype, panel: usize, j: usize, d: usize) -> usize {
    match dtype {
        KeyDtype::F32 => (d * panel + j) * 4,
        KeyDtype::F16 => (d * panel + j) * 2,
        KeyDtype::Bf16 => ((d / 2 * panel + j) * 2 + d % 2) * 2,
    }
}

fn pack_row(dtype: KeyDtype, bytes: &mut [u8], panel: usize, j: usize, values: &[f32]) {
    for (d, &value) in values.iter().enumerate() {
        let at = offset(dtype, panel, j, d);
        match dtype {
            KeyDtype::F32 => bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes()),
            KeyDtype::F16 => {
                bytes[at..at + 2].copy_from_slice(&f16::from_f32(value).to_ne_bytes());
            }
            KeyDtype::Bf16 => {
                bytes[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_ne_bytes());
            }
        }
    }
}

fn read(dtype: KeyDtype, bytes: &[u8], panel: usize, j: usize, d: usize) -> f32 {
    let at = offset(dtype, panel, j, d);
    match dtype {
        KeyDtype::F32 => {
            f32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        }
        KeyDtype::F16 => f16::from_ne_bytes([bytes[at], bytes[at + 1]]).to_f32(),
        KeyDtype::Bf16 => bf16::from_ne_bytes([bytes[at], bytes[at + 1]]).to_f32(),
    }
}
