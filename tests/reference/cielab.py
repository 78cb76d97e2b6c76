"""L*a*b* of TIFF as sRGB, in float64 (CIE 15; IEC 61966-2-1)."""

import numpy as np


def xyz_of(xy):
    return np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])


def to_srgb():
    """From XYZ of D50 to sRGB's light, of sRGB's primaries and Bradford's adaptation."""
    d50, d65 = np.array([0.9642, 1, 0.8249]), xyz_of((0.3127, 0.3290))
    primaries = np.stack([xyz_of(xy) for xy in ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))], 1)
    light = primaries * np.linalg.solve(primaries, d65)
    cones = [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    adapted = np.linalg.solve(cones, np.diag((cones @ d50) / (cones @ d65)) @ cones)
    return np.linalg.inv(adapted @ light)


def of_lab(lab):
    """sRGB of 8-bit L*a*b* with signed axes, in float64."""
    lightness = lab[:, :, :1] * (100 / 255)
    axes = lab[:, :, 1:].astype(np.int8)
    roots = (lightness + 16) / 116 + np.stack(
        [axes[:, :, 0] / 500, 0 * axes[:, :, 0], axes[:, :, 1] / -200], -1
    )
    shares = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 108 / 841)
    light = np.clip((shares * [0.9642, 1, 0.8249]) @ to_srgb().T, 0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve)
