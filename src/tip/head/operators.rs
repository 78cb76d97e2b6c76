//! The head in torch operators alone, for every device and for dense values:
//! CUDA, processors without our kernels, and ProKeR.

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use super::HeadError;

/// Numbers in a head above which it is computed by itself.
const JOINS: i64 = 1 << 20;
/// Keys in a tile on a CPU: enough to fill a product, few enough that [B, tile]
/// stays small.
const TILE: i64 = 2048;
/// Classes in a tile of one-hot values: bounds the second product.
const TILE_CLASSES: i64 = 256;
/// Affinities in a tile on CUDA, so that they stay in the card's L2 between the
/// product, the exponential and the sum (32 MB; data-centre cards have 40 and
/// more), and still fill it.
const TILE_ON_CUDA: i64 = 1 << 23;
/// Runs of classes with equally many keys above which tiles are fewer.
const RUNS: usize = 256;

/// A resident head.
pub struct Operators {
    device: Device,
    classes: i64,
    linear: Option<Tensor>,
    bias: Option<Tensor>,
    cache: Option<Cache>,
}

struct Cache {
    keys: OperatorKeys,
    beta: f64,
    values: Values,
}

enum Values {
    /// Keys sorted by class. `labels` [M], `weight` [N].
    OneHot {
        labels: Tensor,
        weight: Tensor,
        sums: Sums,
        /// β once for each key, [M]: joined heads have different ones.
        betas: Tensor,
        /// The weight of each key's class, [M].
        factors: Tensor,
    },
    /// [M, N].
    Dense(Tensor),
}

/// How the affinities of a class are summed.
enum Sums {
    /// By products with one-hot tiles; keys in the order of their classes.
    Tiles(Vec<Tile>),
    /// By adding up rows of equal length, a run of classes at a time.
    Runs {
        runs: Vec<Run>,
        /// −β, [M].
        offsets: Tensor,
        /// int64, the class of each column of the runs; none where it is its
        /// number.
        columns: Option<Tensor>,
        /// The weight of each column.
        weight: Tensor,
    },
}

/// `classes` columns from `column` on, each of `each` keys, the first of them
/// `start`.
struct Run {
    start: i64,
    column: i64,
    classes: i64,
    each: i64,
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

/// Keys to be searched among.
pub struct OperatorKeys {
    /// [M, D].
    keys: Tensor,
    /// The row that each key was; none where the same.
    order: Option<Tensor>,
}

/// What the values of `Operators::new` are.
pub enum Source<'a> {
    /// Labels in ascending order, the order they came from, a weight per class.
    OneHot {
        sorted_labels: &'a [u32],
        order: &'a Tensor,
        weight: &'a Tensor,
    },
    /// [M, N].
    Dense(&'a Tensor),
}

impl Operators {
    pub fn new(
        device: Device,
        classes: i64,
        linear: Option<&Tensor>,
        bias: Option<&Tensor>,
        cache: Option<(&Tensor, Source, f64, Kind)>,
    ) -> Result<Self, HeadError> {
        let resident = |t: &Tensor| {
            t.f_to_device(device)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()
        };
        let cache = match cache {
            None => None,
            Some((keys, Source::Dense(values), beta, kind)) => Some(Cache {
                keys: OperatorKeys::new(keys, None, device, kind)?,
                beta,
                values: Values::Dense(resident(values)?),
            }),
            Some((
                keys,
                Source::OneHot {
                    sorted_labels,
                    order,
                    weight,
                },
                beta,
                kind,
            )) => {
                let by_count = ByCount::new(sorted_labels);
                let order = order.f_index_select(0, &Tensor::f_from_slice(&by_count.order)?)?;
                let labels = Tensor::f_from_slice(&by_count.labels)?.f_to_device(device)?;
                let betas = Tensor::f_full([labels.size()[0]], beta, (Kind::Float, device))?;
                let weight = resident(weight)?;
                let sums = if by_count.sorted {
                    Sums::Tiles(tiles(sorted_labels))
                } else {
                    let columns = Tensor::f_from_slice(&by_count.columns)?.f_to_device(device)?;
                    let plain = (0..classes).eq(by_count.columns.iter().copied());
                    Sums::Runs {
                        runs: by_count.runs,
                        offsets: betas.f_neg()?,
                        weight: weight.f_index_select(0, &columns)?,
                        columns: (!plain).then_some(columns),
                    }
                };
                Some(Cache {
                    keys: OperatorKeys::new(keys, Some(&order), device, kind)?,
                    beta,
                    values: Values::OneHot {
                        sums,
                        betas,
                        factors: weight.f_index_select(0, &labels)?,
                        labels,
                        weight,
                    },
                })
            }
        };
        Ok(Self {
            device,
            classes,
            linear: linear.map(resident).transpose()?,
            bias: bias.map(resident).transpose()?,
            cache,
        })
    }

    pub fn keys(&self) -> Option<&OperatorKeys> {
        self.cache.as_ref().map(|cache| &cache.keys)
    }

    pub fn size_bytes(&self) -> usize {
        let of = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        self.linear.as_ref().map_or(0, of)
            + self.bias.as_ref().map_or(0, of)
            + self.cache.as_ref().map_or(0, |cache| {
                cache.keys.size_bytes()
                    + match &cache.values {
                        Values::OneHot {
                            labels,
                            weight,
                            betas,
                            factors,
                            sums,
                        } => {
                            let own = match sums {
                                Sums::Tiles(_) => 0,
                                Sums::Runs {
                                    offsets,
                                    columns,
                                    weight,
                                    ..
                                } => of(offsets) + of(weight) + columns.as_ref().map_or(0, of),
                            };
                            of(labels) + of(weight) + of(betas) + of(factors) + own
                        }
                        Values::Dense(values) => of(values),
                    }
            })
    }

    /// Logits of `features` (f32 [B, D] on the head's device): f32 [B, N].
    pub fn logits(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        let rows = features.size()[0];
        let mut logits = match (&self.linear, &self.bias) {
            (Some(linear), Some(bias)) => bias.f_addmm(features, &linear.f_tr()?)?,
            (Some(linear), None) => features.f_mm(&linear.f_tr()?)?,
            (None, Some(bias)) => bias.f_unsqueeze(0)?.f_repeat([rows, 1])?,
            (None, None) => Tensor::f_zeros([rows, self.classes], (Kind::Float, self.device))?,
        };
        let Some(cache) = &self.cache else {
            return Ok(logits);
        };
        match &cache.values {
            Values::OneHot {
                sums:
                    Sums::Runs {
                        runs,
                        offsets,
                        columns,
                        weight,
                    },
                ..
            } => {
                let keys = ScaledProduct::new(&cache.keys, features, cache.beta, offsets)?;
                let most = keys_in_a_tile(self.device, rows);
                for part in runs.iter().flat_map(|run| run.cut(most)) {
                    let x = keys.affinities(part.start, part.classes * part.each)?;
                    let x = x.f_view([rows, part.classes, part.each])?;
                    let sums = x.f_sum_dim_intlist([2i64].as_slice(), false, Kind::Float)?;
                    let weight = weight.f_narrow(0, part.column, part.classes)?;
                    match columns {
                        None => {
                            let mut target = logits.f_narrow(1, part.column, part.classes)?;
                            let _ = target.f_addcmul_(&sums, &weight)?;
                        }
                        Some(columns) => {
                            // Each class once: adding has one order.
                            let columns = columns.f_narrow(0, part.column, part.classes)?;
                            let _ = logits.f_index_add_(1, &columns, &sums.f_mul(&weight)?)?;
                        }
                    }
                }
            }
            Values::OneHot {
                labels,
                weight,
                sums: Sums::Tiles(tiles),
                ..
            } => {
                for tile in tiles {
                    let affinities = cache.affinities(features, tile.start, tile.keys)?;
                    let one_hot = tile.one_hot(labels, weight)?;
                    let mut target = logits.f_narrow(1, tile.class, tile.classes)?;
                    let _ = target.f_add_(&affinities.f_mm(&one_hot)?)?;
                }
            }
            Values::Dense(values) => {
                let count = cache.keys.count();
                let most = keys_in_a_tile(self.device, rows);
                for start in (0..count).step_by(most as usize) {
                    let keys = most.min(count - start);
                    let affinities = cache.affinities(features, start, keys)?;
                    logits = logits.f_addmm_(&affinities, &values.f_narrow(0, start, keys)?)?;
                }
            }
        }
        Ok(logits)
    }
}

impl Operators {
    /// Whether it is computed together with others: small, and not dense.
    pub fn joins(&self) -> bool {
        self.cache.as_ref().is_none_or(|cache| {
            matches!(cache.values, Values::OneHot { .. }) && cache.keys.keys.numel() as i64 <= JOINS
        })
    }

    /// Logits of `features` ([B, D]) by all of `heads`, which [`Self::joins`]
    /// and lie on one device, side by side: [B, ΣN].
    pub fn joined_logits(heads: &[&Self], features: &Tensor) -> Result<Tensor, HeadError> {
        let device = features.device();
        let float = (Kind::Float, device);
        let width = features.size()[1];
        let (mut linears, mut biases) = (Vec::new(), Vec::new());
        let (mut keys, mut labels, mut weights, mut betas) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut offsets: Vec<i64> = Vec::new();
        let mut classes = 0;
        // Launches cost more than what small heads compute: none a head.
        let nothing = Tensor::f_zeros([1, 1], float)?;
        for head in heads {
            let n = head.classes;
            linears.push(match &head.linear {
                Some(linear) => linear.shallow_clone(),
                None => nothing.f_expand([n, width], false)?,
            });
            biases.push(match &head.bias {
                Some(bias) => bias.shallow_clone(),
                None => nothing.f_view([1])?.f_expand([n], false)?,
            });
            if let Some(cache) = &head.cache
                && let Values::OneHot {
                    labels: own,
                    factors,
                    betas: beta,
                    ..
                } = &cache.values
            {
                let count = cache.keys.count() as usize;
                keys.push(cache.keys.keys.f_to_kind(Kind::Float)?);
                labels.push(own.shallow_clone());
                weights.push(factors.shallow_clone());
                betas.push(beta.shallow_clone());
                offsets.extend(std::iter::repeat_n(classes, count));
            }
            classes += n;
        }
        let linear = Tensor::f_cat(&linears, 0)?;
        let logits = Tensor::f_cat(&biases, 0)?.f_addmm(features, &linear.f_tr()?)?;
        if keys.is_empty() {
            return Ok(logits);
        }
        let labels = Tensor::f_cat(&labels, 0)?
            .f_add(&Tensor::f_from_slice(&offsets)?.f_to_device(device)?)?;
        let betas = Tensor::f_cat(&betas, 0)?;
        let mut x = features.f_mm(&Tensor::f_cat(&keys, 0)?.f_tr()?)?;
        let mut x = x.f_mul_(&betas)?.f_sub_(&betas)?.f_exp_()?;
        let x = x.f_mul_(&Tensor::f_cat(&weights, 0)?)?;
        let range = Tensor::f_arange(classes, (Kind::Int64, device))?;
        let one_hot = labels
            .f_unsqueeze(1)?
            .f_eq_tensor(&range)?
            .f_to_kind(Kind::Float)?;
        Ok(logits.f_addmm(&x, &one_hot)?)
    }
}

impl Cache {
    /// exp(−β(1 − f·Kᵀ)) for some keys, [B, keys].
    fn affinities(&self, features: &Tensor, start: i64, keys: i64) -> Result<Tensor, HeadError> {
        let mut x = self.keys.cosines(features, start, keys)?;
        Ok(x.f_mul_scalar_(self.beta)?
            .f_sub_scalar_(self.beta)?
            .f_exp_()?)
    }
}

impl OperatorKeys {
    pub fn new(
        keys: &Tensor,
        order: Option<&Tensor>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, HeadError> {
        let keys = match order {
            Some(order) => keys.f_index_select(0, order)?,
            None => keys.f_contiguous()?,
        };
        Ok(Self {
            keys: keys.f_to_kind(kind)?.f_to_device(device)?,
            order: order.map(|order| order.f_to_device(device)).transpose()?,
        })
    }

    pub fn count(&self) -> i64 {
        self.keys.size()[0]
    }

    pub fn device(&self) -> Device {
        self.keys.device()
    }

    pub fn size_bytes(&self) -> usize {
        let of = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        of(&self.keys) + self.order.as_ref().map_or(0, of)
    }

    /// Whether they are these keys ([M, D]), as far as their format can tell.
    pub fn hold(&self, keys: &Tensor) -> Result<bool, HeadError> {
        if keys.size() != self.keys.size() {
            return Ok(false);
        }
        let keys = keys.f_to_device(self.keys.device())?;
        let keys = match &self.order {
            Some(order) => keys.f_index_select(0, order)?,
            None => keys,
        };
        Ok(keys.f_to_kind(self.keys.kind())?.f_equal(&self.keys)?)
    }

    fn cosines(&self, features: &Tensor, start: i64, keys: i64) -> Result<Tensor, HeadError> {
        let keys = self.keys.f_narrow(0, start, keys)?.f_to_kind(Kind::Float)?;
        Ok(features.f_mm(&keys.f_tr()?)?)
    }

    /// The `k` nearest keys of each row, best first: rows and cosines, [B, k].
    pub fn nearest(&self, features: &Tensor, k: i64) -> Result<(Tensor, Tensor), HeadError> {
        let count = self.count();
        let most = keys_in_a_tile(self.keys.device(), features.size()[0]);
        let mut best: Option<(Tensor, Tensor)> = None;
        for start in (0..count).step_by(most as usize) {
            let keys = most.min(count - start);
            let cosines = self.cosines(features, start, keys)?;
            let (cosines, at) = cosines.f_topk(k.min(keys), 1, true, true)?;
            let at = at.f_add_scalar(start)?;
            best = Some(match best {
                None => (cosines, at),
                Some((was, was_at)) => {
                    let all = Tensor::f_cat(&[was, cosines], 1)?;
                    let (cosines, pick) = all.f_topk(k.min(all.size()[1]), 1, true, true)?;
                    let at = Tensor::f_cat(&[was_at, at], 1)?.f_gather(1, &pick, false)?;
                    (cosines, at)
                }
            });
        }
        let (cosines, at) = match best {
            Some(best) => best,
            None => return Err(HeadError::NoExamples),
        };
        let rows = match &self.order {
            Some(order) => order.f_take(&at)?,
            None => at,
        };
        Ok((rows, cosines))
    }
}

impl Run {
    /// Itself in parts of at most `most` keys: some classes, or, where a class
    /// has more, some keys of one.
    fn cut(&self, most: i64) -> impl Iterator<Item = Run> {
        let classes = (most / self.each).clamp(1, self.classes);
        let each = self.each.min(most);
        (0..self.classes)
            .step_by(classes as usize)
            .flat_map(move |class| {
                (0..self.each).step_by(each as usize).map(move |key| Run {
                    start: self.start + class * self.each + key,
                    column: self.column + class,
                    classes: classes.min(self.classes - class),
                    each: each.min(self.each - key),
                })
            })
    }
}

/// Keys sorted by how many their class has, then by class.
struct ByCount {
    /// Where each key was among those sorted by class.
    order: Vec<i64>,
    /// The class of each key.
    labels: Vec<i64>,
    runs: Vec<Run>,
    /// The classes, in the order of the runs.
    columns: Vec<i64>,
    /// Too many runs to be of use: the keys stay in the order of their classes.
    sorted: bool,
}

impl ByCount {
    fn new(sorted_labels: &[u32]) -> Self {
        // (count, class, first key) of every class that has one.
        let mut classes: Vec<(i64, i64, i64)> = Vec::new();
        for (at, &class) in sorted_labels.iter().enumerate() {
            match classes.last_mut() {
                Some((count, last, _)) if *last == i64::from(class) => *count += 1,
                _ => classes.push((1, i64::from(class), at as i64)),
            }
        }
        let by_class = classes.clone();
        classes.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0;
        for (column, &(each, ..)) in classes.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.each == each => run.classes += 1,
                _ => runs.push(Run {
                    start,
                    column: column as i64,
                    classes: 1,
                    each,
                }),
            }
            start += each;
        }
        let sorted = runs.len() > RUNS;
        if sorted {
            classes = by_class;
        }
        Self {
            order: (classes.iter())
                .flat_map(|&(count, _, first)| first..first + count)
                .collect(),
            labels: (classes.iter())
                .flat_map(|&(count, class, _)| std::iter::repeat_n(class, count as usize))
                .collect(),
            columns: classes.iter().map(|&(_, class, _)| class).collect(),
            runs,
            sorted,
        }
    }
}

/// exp(β·f·Kᵀ − β), for some keys at a time.
struct ScaledProduct<'a> {
    keys: &'a OperatorKeys,
    /// β·f, in float32, or in the keys' format where the device multiplies
    /// that and sums in float32.
    features: Tensor,
    beta: f64,
    /// −β, [M].
    offsets: &'a Tensor,
    halves: bool,
}

impl<'a> ScaledProduct<'a> {
    fn new(
        keys: &'a OperatorKeys,
        features: &Tensor,
        beta: f64,
        offsets: &'a Tensor,
    ) -> Result<Self, HeadError> {
        let kind = keys.keys.kind();
        let halves = kind != Kind::Float && sums_halves_in_float(keys.keys.device());
        // A rounding of the features is no coarser than that of the keys.
        let features = features.f_mul_scalar(beta)?;
        Ok(Self {
            keys,
            features: if halves {
                features.f_to_kind(kind)?
            } else {
                features
            },
            beta,
            offsets,
            halves,
        })
    }

    /// For `count` keys from `start` on, [B, count].
    fn affinities(&self, start: i64, count: i64) -> Result<Tensor, HeadError> {
        let keys = self.keys.keys.f_narrow(0, start, count)?;
        let mut x = if self.halves {
            let mut x = self.features.f_mm_dtype(&keys.f_tr()?, Kind::Float)?;
            x.f_sub_scalar_(self.beta)?
        } else {
            let keys = keys.f_to_kind(Kind::Float)?;
            let offsets = self.offsets.f_narrow(0, start, count)?;
            offsets.f_addmm(&self.features, &keys.f_tr()?)?
        };
        Ok(x.f_exp_()?)
    }
}

/// Whether a device gives float32 products of 16-bit factors: CUDA, where this
/// torch can; tried once.
fn sums_halves_in_float(device: Device) -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    if !device.is_cuda() {
        return false;
    }
    *TRIED.get_or_init(|| {
        [Kind::Half, Kind::BFloat16].into_iter().all(|kind| {
            Tensor::f_ones([16, 16], (kind, device))
                .and_then(|ones| ones.f_mm_dtype(&ones, Kind::Float))
                .and_then(|product| product.f_double_value(&[3, 5]))
                .is_ok_and(|sum| sum == 16.0)
        })
    })
}

/// Keys whose affinities to `rows` features are held at once.
fn keys_in_a_tile(device: Device, rows: i64) -> i64 {
    match device {
        Device::Cuda(_) => (TILE_ON_CUDA / rows.max(1)).max(TILE),
        _ => TILE,
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
