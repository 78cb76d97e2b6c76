//! The bundle's statistics: mean and variance of each dimension of its
//! embeddings over pictures of all kinds.

use std::{fs, io, path::Path};

use serde::Deserialize;

/// The table `[statistics]` of `bundle.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StatisticsSpec {
    /// 2·D numbers, f32, little-endian: the mean of each dimension of unit
    /// embeddings, then the variance of each.
    pub file: String,
    /// How many pictures they are of.
    pub pictures: u64,
}

/// Mean and variance of each dimension, [D].
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// μ, the mean of each dimension.
    pub mean: Vec<f32>,
    /// v, the variance of each dimension, 0 or more.
    pub variance: Vec<f32>,
}

impl Statistics {
    /// Reads them for embeddings of `width`.
    ///
    /// # Errors
    /// A file of another length, numbers that are not finite, or a negative
    /// variance, as [`io::ErrorKind::InvalidData`]; the system's.
    pub fn read(path: &Path, width: usize) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let wrong = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        if bytes.len() != 8 * width {
            return Err(wrong(format!(
                "{} bytes, expected {} (a mean and a variance in f32 for each of {width} \
                 dimensions)",
                bytes.len(),
                8 * width
            )));
        }
        let numbers: Vec<f32> = bytes
            .chunks_exact(4)
            .filter_map(|four| four.try_into().ok().map(f32::from_le_bytes))
            .collect();
        let (mean, variance) = numbers.split_at(width.min(numbers.len()));
        let finite = numbers.iter().all(|number| number.is_finite());
        if !finite || variance.iter().any(|v| *v < 0.0) || variance.iter().all(|v| *v == 0.0) {
            return Err(wrong(
                "numbers must be finite, variances 0 or over, some of them over 0".to_owned(),
            ));
        }
        Ok(Self {
            mean: mean.to_vec(),
            variance: variance.to_vec(),
        })
    }
}
