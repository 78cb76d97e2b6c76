//! Tiles of keys: as many as fill a product, few enough that their affinities
//! stay small.

use tch::{Device, Kind, Tensor};

use crate::head::HeadError;

/// Keys in a tile on a CPU: enough to fill a product, few enough that [B, tile]
/// stays small.
const TILE: i64 = 2048;
/// Classes in a tile of one-hot values: bounds the second product.
const TILE_CLASSES: i64 = 256;
/// Affinities in a tile on CUDA, so that they stay in the card's L2 between the
/// product, the exponential and the sum (32 MB; data-centre cards have 40 and
/// more), and still fill it.
const TILE_ON_CUDA: i64 = 1 << 23;

/// Keys whose affinities to `rows` features are held at once.
pub(super) fn keys_in_a_tile(device: Device, rows: i64) -> i64 {
    match device {
        Device::Cuda(_) => (TILE_ON_CUDA / rows.max(1)).max(TILE),
        _ => TILE,
    }
}

/// Keys `start..start + keys`, of the classes `class..class + classes`.
pub struct Tile {
    pub start: i64,
    pub keys: i64,
    pub class: i64,
    pub classes: i64,
}

impl Tile {
    /// The tile's own V, [keys, classes], of labels [M] and weights [N].
    ///
    /// A product with it takes a scatter's place: on CUDA a scatter sums in
    /// any order.
    pub fn one_hot(&self, labels: &Tensor, weight: &Tensor) -> Result<Tensor, HeadError> {
        let classes = (self.class, self.class + self.classes);
        let range = Tensor::f_arange_start(classes.0, classes.1, (Kind::Int64, labels.device()))?;
        Ok(labels
            .f_narrow(0, self.start, self.keys)?
            .f_unsqueeze(1)?
            .f_eq_tensor(&range)?
            .f_to_kind(Kind::Float)?
            .f_mul(&weight.f_narrow(0, self.class, self.classes)?)?)
    }
}

/// Cuts keys sorted by class into tiles.
pub fn tiles(labels: &[u32]) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = Vec::new();
    for (i, &class) in labels.iter().enumerate() {
        let class = i64::from(class);
        match tiles.last_mut() {
            Some(tile) if tile.keys < TILE && class - tile.class < TILE_CLASSES => {
                tile.keys += 1;
                tile.classes = class - tile.class + 1;
            }
            _ => tiles.push(Tile {
                start: i as i64,
                keys: 1,
                class,
                classes: 1,
            }),
        }
    }
    tiles
}
