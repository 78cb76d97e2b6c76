//! CIE L\*a\*b\* (of D50, as ICC's profiles have it) to sRGB. Pillow's
//! conversion (LittleCMS) interpolates a table of it, and is some levels beside.

/// How a\* and b\* are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axes {
    /// CIELab: signed.
    Signed,
    /// ICCLab: 128 is 0.
    Offset,
}

/// A conversion of pixels, which keeps sRGB's curve as a table.
#[derive(Debug)]
pub(super) struct Lab {
    axes: Axes,
    /// Levels of 8 bits by light, from black to white.
    curve: Vec<u8>,
}

/// Steps of the curve: fine enough for its steepest part, near black.
const STEPS: usize = 1 << 14;

/// ICC's white, D50; Y is 1.
const WHITE_X: f32 = 0.9642;
const WHITE_Z: f32 = 0.8249;

/// From XYZ of D50 to sRGB's light, whose own white is D65: Bradford's
/// adaptation, as in sRGB's ICC profile (Lindbloom's matrix).
const TO_RGB: [[f32; 3]; 3] = [
    [3.133_856, -1.616_867, -0.490_615],
    [-0.978_768, 1.916_142, 0.033_454],
    [0.071_945, -0.228_991, 1.405_243],
];

impl Lab {
    pub(super) fn new(axes: Axes) -> Self {
        let level = |step: usize| {
            let light = step as f32 / (STEPS - 1) as f32;
            let level = if light <= 0.003_130_8 {
                12.92 * light
            } else {
                1.055 * light.powf(1.0 / 2.4) - 0.055
            };
            (level * 255.0).round() as u8
        };
        Self {
            axes,
            curve: (0..STEPS).map(level).collect(),
        }
    }

    /// One pixel.
    pub(super) fn rgb(&self, &[lightness, a, b]: &[u8; 3]) -> [u8; 3] {
        let axis = |code: u8| match self.axes {
            Axes::Signed => f32::from(code as i8),
            Axes::Offset => f32::from(code) - 128.0,
        };
        let lightness = f32::from(lightness) * (100.0 / 255.0);
        let y = (lightness + 16.0) / 116.0;
        let (x, z) = (y + axis(a) / 500.0, y - axis(b) / 200.0);
        let [x, y, z] = [x, y, z].map(|root| {
            if root > 6.0 / 29.0 {
                root * root * root
            } else {
                (root - 4.0 / 29.0) * (108.0 / 841.0)
            }
        });
        let (x, z) = (x * WHITE_X, z * WHITE_Z);
        TO_RGB.map(|[of_x, of_y, of_z]| {
            let light = of_x * x + of_y * y + of_z * z;
            let step = (light.clamp(0.0, 1.0) * (STEPS - 1) as f32).round() as usize;
            self.curve.get(step).copied().unwrap_or(255)
        })
    }
}
