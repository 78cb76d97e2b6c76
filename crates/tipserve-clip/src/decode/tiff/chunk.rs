//! A strip or tile: its bytes unpacked, and its samples as levels of 8 bits.

use super::{
    embedded,
    levels::{Levels, Range, of_packed},
    page::{Compression, Page},
    unpack::unpack,
    ycbcr,
};
use crate::picture::{PictureError, PictureLimits};

/// Which part of a page it is.
pub(super) struct Place {
    /// The sample that it is of, where each has a plane.
    pub plane: usize,
    /// Rows that it has.
    pub rows: usize,
    /// Rows and columns of it that lie within the picture.
    pub visible: (usize, usize),
}

/// Decodes a strip or tile.
pub(super) fn decode(
    page: &Page,
    data: &[u8],
    place: &Place,
    limits: &PictureLimits,
) -> Result<Levels, PictureError> {
    let row = page.chunk.0 * page.interleaved();
    let whole = |levels| Levels {
        levels,
        row,
        range: Range::NONE,
    };
    if matches!(page.compression, Compression::Jpeg | Compression::WebP) {
        return embedded::levels(page, data, place.rows, limits).map(whole);
    }
    let reversed: Vec<u8>;
    let data = if page.reversed_bits {
        reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
        &reversed
    } else {
        data
    };
    let mut packed = vec![0; page.packed_bytes(place.rows)];
    unpack(page, data, &mut packed)?;
    if page.subsampling != (1, 1) {
        let levels = ycbcr::of_blocks(&packed, page.chunk.0, place.rows, page.subsampling);
        return Ok(whole(levels));
    }
    Ok(of_packed(page, packed, place.plane, place.visible))
}
