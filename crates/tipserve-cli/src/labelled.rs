//! Labelled examples, listed but not yet read.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// Labelled examples, listed but not yet read.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    /// The folder or file that they are listed from.
    pub source: Source,
    /// The classes, in the order of their indices.
    pub classes: Vec<SourceClass>,
    /// The examples, in the order in which they are read. Their classes are
    /// indices into `classes`.
    pub examples: Vec<Example>,
}

/// What examples are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Training: they become keys. In `evaluate`, examples of known classes.
    Training,
    /// Validation: hyperparameters are chosen on them.
    Validation,
    /// Examples of none of the classes.
    Unknown,
    /// Unlabelled pictures.
    Unlabelled,
}

/// What examples come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// A folder with one folder a class.
    Folder(PathBuf),
    /// A file that lists pictures with their classes.
    Table(PathBuf),
    /// An .npz file with embeddings.
    Npz(PathBuf),
    /// A Parquet file with pictures.
    Parquet(PathBuf),
}

/// A class as its source has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceClass {
    /// The class's name, as people read it.
    pub display_name: String,
    /// Its row of the text classifier, if the source brings one.
    pub text_weight: Option<Vec<f32>>,
}

/// One example, not yet read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Example {
    /// Path from the source's folder, or row of the source's array.
    pub id: String,
    /// Index into the source's classes; 0 for an example with `labels`.
    pub class: usize,
    /// Its classes, if the source gives any number of classes for each picture.
    pub labels: Option<Vec<usize>>,
    /// Its path or address.
    pub place: Place,
}

/// Where an example's content is read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// A picture file, by its path.
    File(PathBuf),
    /// A picture at an address.
    Address(String),
    /// An address that is the picture itself, `data:image/png;base64,…`.
    Inline(String),
    /// An embedding that its source has beside its class.
    Values(Vec<f32>),
    /// A row of the .npz file's `features`, or of the Parquet file's pictures.
    Row(u64),
    /// Nowhere: its source says why it cannot be used.
    Unusable {
        /// The reason, as the server's have one.
        reason: &'static str,
        /// Why they cannot be used, as one line for people.
        message: String,
    },
}

impl Example {
    /// Its place, which is read once.
    pub fn take_place(&mut self) -> Place {
        std::mem::replace(&mut self.place, Place::Row(0))
    }

    /// Its class, or its classes.
    pub fn classes(&self) -> &[usize] {
        match &self.labels {
            Some(labels) => labels,
            None => std::slice::from_ref(&self.class),
        }
    }
}

impl Labelled {
    /// Whether its examples carry any number of classes.
    pub fn is_multi_label(&self) -> bool {
        self.examples.iter().any(|example| example.labels.is_some())
    }

    /// Examples of each class.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for example in &self.examples {
            for class in example.classes() {
                if let Some(count) = counts.get_mut(*class) {
                    *count += 1;
                }
            }
        }
        counts
    }

    /// Display names of the classes that have fewer than `least` examples,
    /// with how many they have.
    pub fn short_classes(&self, least: usize) -> Vec<(String, usize)> {
        let names = self.classes.iter().map(|class| class.display_name.clone());
        names
            .zip(self.counts())
            .filter(|(_, count)| *count < least)
            .collect()
    }

    /// The classes' display names, by index.
    pub fn class_names(&self) -> Vec<&str> {
        self.classes
            .iter()
            .map(|class| class.display_name.as_str())
            .collect()
    }

    /// The draw of `shots` examples of each class, and the rest.
    ///
    /// Within a class, examples are ordered by SHA-256 of "SEED/ID" (the seed
    /// in decimal, the id in UTF-8) and the first are taken; a class that has
    /// fewer gives all. So the draw depends on nothing but the seed and the
    /// ids: not on the order of files, the platform, or a generator's version;
    /// any language repeats it in one line, and a file that is added changes
    /// at most one shot of its class.
    pub fn split(self, seed: u64, shots: usize) -> (Self, Self) {
        let mut order: Vec<(usize, [u8; 32], usize)> = self
            .examples
            .iter()
            .enumerate()
            .map(|(position, example)| {
                let hash = Sha256::digest(format!("{seed}/{}", example.id));
                (example.class, hash.into(), position)
            })
            .collect();
        order.sort_unstable();
        let drawn: std::collections::HashSet<usize> = order
            .chunk_by(|a, b| a.0 == b.0)
            .flat_map(|class| class.iter().take(shots))
            .map(|(_, _, position)| *position)
            .collect();
        let (mut taken, mut rest) = (Vec::new(), Vec::new());
        for (position, example) in self.examples.into_iter().enumerate() {
            if drawn.contains(&position) {
                taken.push(example);
            } else {
                rest.push(example);
            }
        }
        let part = |examples| Self {
            source: self.source.clone(),
            classes: self.classes.clone(),
            examples,
        };
        (part(taken), part(rest))
    }

    /// The examples with the indices of other classes: class c becomes
    /// `map[c]` of `classes`.
    ///
    /// # Errors
    /// If `map` has no entry for an example's class.
    pub fn renumber(mut self, map: &[usize], classes: Vec<SourceClass>) -> Result<Self, Failure> {
        for example in &mut self.examples {
            let id = &example.id;
            let renumbered = |class: usize| {
                map.get(class).copied().ok_or_else(|| {
                    Failure::Broken(format!(
                        "the example {id} is of class {class}, which was matched to none"
                    ))
                })
            };
            match &mut example.labels {
                Some(labels) => {
                    for class in labels {
                        *class = renumbered(*class)?;
                    }
                }
                None => example.class = renumbered(example.class)?,
            }
        }
        self.classes = classes;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(ids: impl IntoIterator<Item = (String, usize)>) -> Labelled {
        let examples = ids.into_iter().map(|(id, class)| Example {
            place: Place::File(PathBuf::from(&id)),
            id,
            class,
            labels: None,
        });
        Labelled {
            source: Source::Folder(PathBuf::new()),
            classes: Vec::new(),
            examples: examples.collect(),
        }
    }

    fn thirty() -> Vec<(String, usize)> {
        (0..30)
            .map(|i| (format!("c{}/{i}.png", i % 3), i % 3))
            .collect()
    }

    #[test]
    fn a_draw_is_exact_repeatable_and_free_of_order() {
        let (drawn, rest) = labelled(thirty()).split(7, 4);
        assert_eq!((drawn.examples.len(), rest.examples.len()), (12, 18));
        for class in 0..3 {
            assert_eq!(
                drawn
                    .examples
                    .iter()
                    .filter(|one| one.class == class)
                    .count(),
                4
            );
        }
        let (mut again, _) = labelled(thirty().into_iter().rev()).split(7, 4);
        again.examples.reverse();
        assert_eq!(drawn.examples, again.examples);
        assert_ne!(drawn.examples, labelled(thirty()).split(8, 4).0.examples);
        // More shots keep those of fewer.
        let (more, _) = labelled(thirty()).split(7, 5);
        assert!(drawn.examples.iter().all(|one| more.examples.contains(one)));
    }

    #[test]
    fn a_small_class_gives_all() {
        let (drawn, rest) = labelled(thirty()).split(1, 99);
        assert_eq!(drawn.examples, labelled(thirty()).examples);
        assert!(rest.examples.is_empty());
    }

    #[test]
    fn the_draw_is_the_documented_formula() {
        // python3 -c 'import hashlib
        // ids = [f"x/{i}" for i in range(8)]
        // print(sorted(ids, key=lambda i: hashlib.sha256(f"3/{i}".encode()).digest())[:3])'
        let (drawn, _) = labelled((0..8).map(|i| (format!("x/{i}"), 0))).split(3, 3);
        let drawn: Vec<_> = drawn.examples.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(drawn, ["x/1", "x/2", "x/6"]);
    }
}
