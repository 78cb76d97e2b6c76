//! The crop of each view of a picture.

use sha2::{Digest, Sha256};

use tipserve_engine::Crop;

/// The crop of one of `count` views: the centre, if it is the only one.
pub(super) fn crop(seed: u64, id: &str, view: usize, count: usize) -> Crop {
    match count {
        1 => Crop::Centre,
        _ => Crop::Random {
            seed: view_seed(seed, id, view),
        },
    }
}

/// A seed for one view, from the cache's seed, the example's id and the view's
/// number. It does not depend on the order of arrival or on other examples, and
/// is the same on every machine.
fn view_seed(seed: u64, id: &str, view: usize) -> u64 {
    let digest = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update((view as u64).to_le_bytes())
        .chain_update(id.as_bytes())
        .finalize();
    digest
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
