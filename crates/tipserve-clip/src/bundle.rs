//! The model on disk: a folder with `bundle.toml` and the files it names.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    thread,
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    image_spec::ImageSpec,
    int8::{self, Int8Archives},
    prompts::check_template,
    statistics::{Statistics, StatisticsSpec},
    text_spec::TextSpec,
    violation::{Violation, ensure},
};

/// The bundle format that this version reads.
pub const FORMAT: u32 = 1;

/// Widest embedding that is served, D.
pub const MAX_WIDTH: usize = 65_536;

/// A bundle whose files have been checked against their sha256.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The model's name, for people.
    pub name: String,
    /// D, the width of an embedding.
    pub width: usize,
    /// s, what cosines are multiplied by to make logits.
    pub logit_scale: f64,
    /// b, what a sigmoid loss adds to its logits; none if the loss was a
    /// softmax, which does not depend on it.
    pub logit_bias: Option<f64>,
    /// Prompt templates used where a caller names none; `{}` stands for the
    /// class. May be empty.
    pub templates: Vec<String>,
    /// Where the weights come from, for people.
    pub source: Option<String>,
    /// The weights' licence, as `bundle.toml` names it.
    pub licence: Option<String>,
    /// How pictures are prepared and encoded; none in a bundle that takes
    /// embeddings only.
    pub image: Option<ImageSpec>,
    /// How texts are prepared and encoded; none if there is no encoder.
    pub text: Option<TextSpec>,
    /// Mean and variance of its embeddings; none if it brings none.
    pub statistics: Option<Statistics>,
    /// The encoders in 8 bits; none if the bundle has none.
    pub int8: Option<Int8Archives>,
    /// sha256, in hexadecimal, of `bundle.toml`, which holds every file's; of
    /// what comes before its table `[int8]`, if it has one.
    pub fingerprint: String,
    /// The folder that the bundle was opened from.
    pub dir: PathBuf,
    /// Every file's sha256, but for those of `int8`.
    files: BTreeMap<String, String>,
    statistics_spec: Option<StatisticsSpec>,
}

/// Why a bundle cannot be served.
#[derive(Debug, Error)]
pub enum BundleError {
    /// There is no bundle in the folder.
    #[error("there is no bundle at {}: {reason}", dir.display())]
    Missing {
        /// The folder that was asked for.
        dir: PathBuf,
        /// Why there is none: no such folder, not a folder, no `bundle.toml`.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("the bundle's file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file, with the bundle's folder.
        path: PathBuf,
        /// The system's reason for refusing.
        source: io::Error,
    },
    /// `bundle.toml` is not TOML, lacks a key, or has one of another type.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The path of `bundle.toml`.
        path: PathBuf,
        /// The parser's reason, with line and column.
        reason: String,
    },
    /// A format from the future, or none.
    #[error("{}: bundle format {found}; this version of tipserve reads format {FORMAT}{}",
        path.display(),
        if *found > i64::from(FORMAT) { ": a newer tipserve is needed" } else { "" })]
    Format {
        /// The path of `bundle.toml`.
        path: PathBuf,
        /// The format number that it states.
        found: i64,
    },
    /// A value that cannot be.
    #[error("{}: {key} = {value}: {rule}", path.display())]
    Value {
        /// The path of `bundle.toml`.
        path: PathBuf,
        /// The key, dotted: `image.parts[0].size`.
        key: String,
        /// The value that it has.
        value: String,
        /// What is asked of it.
        rule: &'static str,
    },
    /// A file that is not what it was when the bundle was made.
    #[error("{} does not match bundle.toml: its sha256 is {found}, {expected} is expected",
        path.display())]
    Mismatch {
        /// The file, with the bundle's folder.
        path: PathBuf,
        /// The sha256 that `bundle.toml` states.
        expected: String,
        /// The sha256 that the file has.
        found: String,
    },
}

/// What is read first, so that a newer format says so, whatever else it has.
#[derive(Deserialize)]
struct Preamble {
    format: i64,
}

#[derive(Deserialize)]
struct Manifest {
    name: String,
    width: usize,
    logit_scale: f64,
    logit_bias: Option<f64>,
    #[serde(default)]
    templates: Vec<String>,
    source: Option<String>,
    licence: Option<String>,
    image: Option<ImageSpec>,
    text: Option<TextSpec>,
    statistics: Option<StatisticsSpec>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl Bundle {
    /// Reads `dir/bundle.toml` and checks every file that it names.
    ///
    /// # Errors
    /// [`BundleError`], naming the file, and the key and value where there
    /// are any.
    pub fn open(dir: &Path) -> Result<Self, BundleError> {
        let mut bundle = Bundle::read(dir)?;
        bundle.verify()?;
        bundle.read_statistics()?;
        Ok(bundle)
    }

    /// Checks every file that `bundle.toml` names against its SHA-256; reads
    /// all of them once. It may run in parallel to loading them: one then finds
    /// the other's reads in the page cache.
    ///
    /// # Errors
    /// [`BundleError::Mismatch`], [`BundleError::Unreadable`].
    pub fn verify(&self) -> Result<(), BundleError> {
        verify(&self.dir, &self.files)?;
        match &self.int8 {
            Some(int8) => verify(&self.dir, &int8.files),
            None => Ok(()),
        }
    }

    /// Reads the mean and variance of its embeddings, if it has them.
    ///
    /// # Errors
    /// [`BundleError::Unreadable`].
    pub fn read_statistics(&mut self) -> Result<(), BundleError> {
        if let Some(spec) = &self.statistics_spec {
            let path = self.dir.join(&spec.file);
            let read = Statistics::read(&path, self.width);
            let found = read.map_err(|source| BundleError::Unreadable { path, source })?;
            self.statistics = Some(found);
        }
        Ok(())
    }

    /// Reads only `dir/bundle.toml`: the files that it names are unchecked
    /// until [`Bundle::verify`], and its statistics are absent until
    /// [`Bundle::read_statistics`].
    ///
    /// # Errors
    /// As [`Bundle::open`], except for files that do not match.
    pub fn read(dir: &Path) -> Result<Self, BundleError> {
        if !dir.is_dir() {
            let reason = match dir.try_exists() {
                Ok(true) => "it is not a folder".into(),
                Ok(false) => "no such folder".into(),
                Err(error) => error.to_string(),
            };
            return Err(BundleError::Missing {
                dir: dir.into(),
                reason,
            });
        }
        let path = dir.join("bundle.toml");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BundleError::Missing {
                    dir: dir.into(),
                    reason: "it has no bundle.toml".into(),
                });
            }
            read => read.map_err(|source| BundleError::Unreadable {
                path: path.clone(),
                source,
            })?,
        };
        let syntax = |error: toml::de::Error| BundleError::Syntax {
            path: path.clone(),
            reason: error.to_string(),
        };
        let (text, suffix) = int8::split(&text);
        let Preamble { format } = toml::from_str(text).map_err(syntax)?;
        if format != i64::from(FORMAT) {
            return Err(BundleError::Format {
                path,
                found: format,
            });
        }
        let manifest: Manifest = toml::from_str(text).map_err(syntax)?;
        let int8 = int8::read(suffix).map_err(syntax)?;
        let int8_holds = int8.as_ref().map_or(Ok(()), Int8Archives::check);
        int8_holds.and_then(|()| manifest.check(&int8)).map_err(
            |Violation { key, value, rule }| BundleError::Value {
                path: path.clone(),
                key,
                value,
                rule,
            },
        )?;
        Ok(Self {
            name: manifest.name,
            width: manifest.width,
            logit_scale: manifest.logit_scale,
            logit_bias: manifest.logit_bias,
            templates: manifest.templates,
            source: manifest.source,
            licence: manifest.licence,
            image: manifest.image,
            text: manifest.text,
            statistics: None,
            int8,
            fingerprint: hex(&Sha256::digest(text)),
            dir: dir.into(),
            files: manifest.files,
            statistics_spec: manifest.statistics,
        })
    }
}

impl Manifest {
    fn check(&self, int8: &Option<Int8Archives>) -> Result<(), Violation> {
        ensure(
            (1..=256).contains(&self.name.trim().len()),
            "name",
            &self.name,
            "1 to 256 characters are needed",
        )?;
        ensure(
            (1..=MAX_WIDTH).contains(&self.width),
            "width",
            self.width,
            "must be from 1 to 65536",
        )?;
        ensure(
            self.logit_scale.is_finite() && self.logit_scale > 0.0 && self.logit_scale <= 1e6,
            "logit_scale",
            self.logit_scale,
            "must be over 0 and at most 1e6",
        )?;
        ensure(
            self.logit_bias
                .is_none_or(|bias| bias.is_finite() && bias.abs() <= 1e6),
            "logit_bias",
            self.logit_bias.unwrap_or_default(),
            "must be from -1e6 to 1e6",
        )?;
        for template in &self.templates {
            ensure(
                check_template(template).is_ok(),
                "templates",
                template,
                "each must have {} exactly once",
            )?;
        }
        let int8 = int8.iter().flat_map(|int8| &int8.files);
        for (file, sha256) in self.files.iter().chain(int8) {
            ensure(
                is_inside(file),
                "files",
                file,
                "must name a file inside the bundle's folder",
            )?;
            ensure(
                sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()),
                &format!("files.{file:?}"),
                sha256,
                "must be a sha256 in 64 hexadecimal digits",
            )?;
        }
        if let Some(image) = &self.image {
            image.check()?;
            image.check_shares(self.width)?;
            self.check_listed("image.file", &image.file)?;
        }
        if let Some(text) = &self.text {
            text.check()?;
            self.check_listed("text.file", &text.file)?;
            self.check_listed("text.tokenizer", &text.tokenizer)?;
        }
        if let Some(statistics) = &self.statistics {
            self.check_listed("statistics.file", &statistics.file)?;
            ensure(
                statistics.pictures >= 2,
                "statistics.pictures",
                statistics.pictures,
                "must be at least 2",
            )?;
        }
        Ok(())
    }

    fn check_listed(&self, key: &str, file: &str) -> Result<(), Violation> {
        ensure(
            self.files.contains_key(file),
            key,
            file,
            "must be listed with its sha256 under [files]",
        )
    }
}

/// A relative path without `..`.
fn is_inside(file: &str) -> bool {
    !file.is_empty()
        && !file.contains('\\')
        && Path::new(file)
            .components()
            .all(|component| matches!(component, Component::Normal(_)))
}

/// Hashes all files at once, one thread each.
fn verify(dir: &Path, files: &BTreeMap<String, String>) -> Result<(), BundleError> {
    thread::scope(|scope| {
        let checks: Vec<_> = files
            .iter()
            .map(|(file, expected)| {
                let path = dir.join(file);
                scope.spawn(move || {
                    let found = match sha256(&path) {
                        Ok(found) => found,
                        Err(source) => return Err(BundleError::Unreadable { path, source }),
                    };
                    if found.eq_ignore_ascii_case(expected) {
                        Ok(())
                    } else {
                        Err(BundleError::Mismatch {
                            path,
                            expected: expected.clone(),
                            found,
                        })
                    }
                })
            })
            .collect();
        for check in checks {
            match check.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk)?;
        match chunk.get(..read) {
            None | Some([]) => return Ok(hex(&hash.finalize())),
            Some(bytes) => hash.update(bytes),
        }
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
