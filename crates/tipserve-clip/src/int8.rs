//! The 8-bit half of a bundle: the table `[int8]` at the end of `bundle.toml`.
//!
//! It is not a part of the bundle's fingerprint. Features of the 8-bit encoders
//! stand for those of the float ones, so caches made before the 8-bit archives
//! were added, or by a server that does not use them, stay valid.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::violation::{Violation, ensure};

/// Most [`Agreement::noise`] at which 8-bit and float features may meet in one
/// cache (docs/performance.md, "8-bit encoders", has the measurements).
pub const MOST_NOISE: f64 = 0.01;

/// The 8-bit archives of a bundle.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Int8Archives {
    /// TorchScript: f32 [B, 3, size, size], normalised → f32 [B, D].
    pub image: Option<String>,
    /// TorchScript: int64 [n, context_length] → f32 [n, D].
    pub text: Option<String>,
    /// How near the picture encoder's features are to those of the float one.
    pub agreement: Agreement,
    /// The same of the text encoder, on prompts.
    pub text_agreement: Option<Agreement>,
    /// sha256, in hexadecimal, of each file that the table names.
    pub(crate) files: BTreeMap<String, String>,
}

/// How near 8-bit features of pictures are to float32's, as the export measured
/// it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Agreement {
    /// Which pictures were measured, for people.
    #[serde(default)]
    pub source: String,
    /// How many pictures were measured.
    pub count: u64,
    /// Least cosine of a picture's two features.
    pub cosine_least: f64,
    /// Mean cosine of a picture's two features.
    pub cosine_mean: f64,
    /// Mean squared difference of unit features, over the variance of the
    /// float ones.
    pub noise: f64,
    /// Share of pictures whose 8-bit feature has the same nearest float feature
    /// of another picture as its own float feature has.
    pub neighbour: f64,
    /// Share of pictures that a head on float features gives the same class by
    /// their 8-bit feature as by their float one.
    pub head: f64,
}

impl Agreement {
    /// Whether 8-bit and float features may meet in one cache.
    pub fn is_enough(&self) -> bool {
        self.noise <= MOST_NOISE
    }
}

#[derive(Deserialize)]
struct Suffix {
    int8: Int8Archives,
}

/// `bundle.toml` before the line `[int8]`, which is what the fingerprint is of,
/// and from there on.
pub(crate) fn split(text: &str) -> (&str, &str) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "[int8]" {
            return text.split_at(start);
        }
        start += line.len();
    }
    (text, "")
}

/// Reads what [`split`] gave second; none if it is empty.
pub(crate) fn read(suffix: &str) -> Result<Option<Int8Archives>, toml::de::Error> {
    if suffix.is_empty() {
        return Ok(None);
    }
    Ok(Some(toml::from_str::<Suffix>(suffix)?.int8))
}

impl Int8Archives {
    pub(super) fn check(&self) -> Result<(), Violation> {
        for (key, file) in [("int8.image", &self.image), ("int8.text", &self.text)] {
            if let Some(file) = file {
                ensure(
                    self.files.contains_key(file),
                    key,
                    file,
                    "must be listed with its sha256 under [int8.files]",
                )?;
            }
        }
        self.agreement.check("int8.agreement")?;
        match &self.text_agreement {
            Some(agreement) => agreement.check("int8.text_agreement"),
            None => Ok(()),
        }
    }

    /// Whether the text encoder's 8-bit features may stand for its float ones:
    /// there is an archive for it, and it was measured and found near enough.
    pub fn text_is_enough(&self) -> bool {
        let agreement = self.text_agreement.as_ref();
        self.text.is_some() && agreement.is_some_and(Agreement::is_enough)
    }
}

impl Agreement {
    fn check(&self, table: &str) -> Result<(), Violation> {
        for (key, value) in [
            ("cosine_least", self.cosine_least),
            ("cosine_mean", self.cosine_mean),
            ("neighbour", self.neighbour),
            ("head", self.head),
        ] {
            ensure(
                (-1.0..=1.0).contains(&value),
                &format!("{table}.{key}"),
                value,
                "must be from -1 to 1",
            )?;
        }
        ensure(
            self.noise >= 0.0,
            &format!("{table}.noise"),
            self.noise,
            "must be 0 or more",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_fingerprint_ends_where_int8_begins() {
        let float = "format = 1\n[files]\na = \"b\"\n";
        assert_eq!(split(float), (float, ""));
        let both = format!("{float}[int8]\nimage = \"c\"\n");
        assert_eq!(split(&both), (float, "[int8]\nimage = \"c\"\n"));
        // Windows line ends, and a name that only begins so.
        assert_eq!(split("a = 1\r\n[int8]\r\n"), ("a = 1\r\n", "[int8]\r\n"));
        assert_eq!(split("[int8x]\na = 1\n").1, "");
    }
}
