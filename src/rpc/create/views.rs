//! Which part of a picture each of its views is.

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

/// A seed for one view: of the cache's seed, the example's id and the view's
/// number, so that it depends neither on the order of arrival nor on others,
/// and is the same on every machine.
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
