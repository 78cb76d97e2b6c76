//! Files whose first page is not the picture: cameras' raw files, which begin with a preview, and
//! whatever else says that its first page is a smaller version of another.

use super::tags::Tags;
use crate::{
    decode::foreign,
    picture::{PictureError, PictureLimits},
};

/// Most pages that are looked at beside the first.
const MOST_PAGES: usize = 32;

const NEW_SUBFILE_TYPE: usize = 254;
const SUBFILE_TYPE: usize = 255;
const PHOTOMETRIC: usize = 262;
const SUB_DIRECTORIES: usize = 330;
const DNG_VERSION: usize = 50706;

/// Refuses a file whose first page stands for another.
pub(super) fn check(
    first: &Tags,
    (width, height): (u32, u32),
    limits: &PictureLimits,
) -> Result<(), PictureError> {
    let raw = || PictureError::Unsupported {
        what: foreign::RAW.into(),
    };
    if first.raw(DNG_VERSION).is_some() {
        return Err(raw());
    }
    let mut others = first
        .all(SUB_DIRECTORIES)
        .ok()
        .flatten()
        .unwrap_or_default();
    others.truncate(MOST_PAGES);
    let reduced = is_reduced(first);
    if reduced {
        others.extend(following(first));
    }
    let pixels = u64::from(width) * u64::from(height);
    for directory in others {
        // Nothing is said of pages that cannot be read.
        if first.file.check(directory, limits).is_err() {
            continue;
        }
        let other = Tags {
            file: first.file,
            directory,
        };
        if matches!(
            other.one(PHOTOMETRIC),
            Ok(Some(COLOUR_FILTERS | LINEAR_RAW))
        ) {
            return Err(raw());
        }
        let larger = matches!(pixels_of(&other), Some(of_other) if of_other > pixels);
        if reduced && larger && !is_reduced(&other) {
            return Err(PictureError::Unsupported {
                what: "a TIFF whose first page is a thumbnail of another (save that page as a \
                       file of its own)"
                    .into(),
            });
        }
    }
    Ok(())
}

/// How a camera's sensor sees: through filters of one colour each, or as numbers that are not
/// levels yet.
const COLOUR_FILTERS: usize = 32803;
const LINEAR_RAW: usize = 34892;

/// Whether a page says that it is a smaller version of another.
fn is_reduced(page: &Tags) -> bool {
    let said = |tag| page.one(tag).ok().flatten();
    match said(NEW_SUBFILE_TYPE) {
        Some(kind) => kind & 1 == 1,
        None => said(SUBFILE_TYPE) == Some(2),
    }
}

fn pixels_of(page: &Tags) -> Option<u64> {
    let side = |tag| page.side(tag, "side").ok();
    Some(u64::from(side(256)?) * u64::from(side(257)?))
}

/// The pages after one, none twice.
fn following(page: &Tags) -> Vec<usize> {
    let mut pages = Vec::new();
    let mut last = page.directory;
    while pages.len() < MOST_PAGES {
        let entries = page.file.entries(last);
        let next = entries.and_then(|entries| page.file.after(last, entries));
        match next {
            Some(next) if next > 0 && next != page.directory && !pages.contains(&next) => {
                pages.push(next);
                last = next;
            }
            _ => break,
        }
    }
    pages
}
