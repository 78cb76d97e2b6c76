//! Random caches: clusters of unit vectors.

use tch::{Device, Kind, Tensor};
use tip_adapter::material::Material;

/// The sizes of a cache to draw.
pub struct Shape {
    /// Shots of each class, one entry a class.
    pub shots: Vec<i64>,
    pub width: i64,
    pub text: bool,
    pub views: Option<i64>,
    pub validation: i64,
}

/// Seeds torch with a fresh seed and says which.
pub fn fresh_seed() -> i64 {
    let seed = i64::from(rand::random::<u32>());
    println!("seed {seed}");
    tch::manual_seed(seed);
    seed
}

pub fn unit(rows: &Tensor) -> Tensor {
    rows / rows.norm_scalaropt_dim(2, [-1i64].as_slice(), true)
}

/// Noisy unit vectors around one random centre a class, all with a common
/// part, as CLIP's features have.
pub fn material(shape: &Shape) -> (Material, Tensor) {
    let classes = shape.shots.len() as i64;
    let options = (Kind::Float, Device::Cpu);
    let common = Tensor::randn([1, shape.width], options);
    let centres = unit(&(Tensor::randn([classes, shape.width], options) + common));
    let mut labels: Vec<i64> = Vec::new();
    for (class, &count) in shape.shots.iter().enumerate() {
        labels.extend(std::iter::repeat_n(class as i64, count as usize));
    }
    // In no order: keys need not come sorted by class.
    let order = Tensor::randperm(labels.len() as i64, (Kind::Int64, Device::Cpu));
    let labels = Tensor::from_slice(&labels).index_select(0, &order);
    let near = |labels: &Tensor, noise: f64| {
        let centre = centres.index_select(0, labels);
        let noise = Tensor::randn(centre.size(), options) * (noise / (shape.width as f64).sqrt());
        unit(&(centre + noise))
    };
    let keys = near(&labels, 1.0);
    let views = shape.views.map(|count| {
        let noise = Tensor::randn([labels.size()[0], count, shape.width], options);
        (keys.unsqueeze(1) + noise * 0.03) * 9.0
    });
    let draw = |count: i64| Tensor::randint(classes, [count], (Kind::Int64, Device::Cpu));
    let validation = (shape.validation > 0).then(|| {
        let labels = draw(shape.validation);
        (near(&labels, 1.0), labels)
    });
    let text = shape
        .text
        .then(|| unit(&(&centres + Tensor::randn(centres.size(), options) * 0.05)));
    let queries = near(&draw(40), 1.0);
    let material = Material {
        keys,
        labels,
        classes: shape.shots.len(),
        views,
        text,
        validation,
        logit_scale: 100.0,
        statistics: None,
        unlabelled: None,
    };
    (material, queries)
}
