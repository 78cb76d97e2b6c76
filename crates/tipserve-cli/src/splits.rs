//! A folder of the parts of a data set (train, val, test) is not a folder of
//! classes.

use std::path::{Path, PathBuf};

use crate::{failure::Failure, files};

const TRAINING: [&str; 2] = ["train", "training"];
const VALIDATION: [&str; 6] = ["val", "valid", "validation", "dev", "eval", "evaluation"];
const TEST: [&str; 3] = ["test", "testing", "holdout"];

/// Refuses a folder of the parts of a data set, and says what to type: its
/// folders all hold folders, and either all are named as parts, or one is for
/// training and one for validation or testing. A class may be called "test":
/// then there are pictures in its folder, and no folders. The clients in Python
/// and Go have the same rule.
pub(crate) fn refuse(root: &Path, flag: &str, folders: &[PathBuf]) -> Result<(), Failure> {
    let mut parts = [None; 3];
    let mut others = false;
    for folder in folders {
        let part = part_of(&files::readable(folder.file_name().unwrap_or_default()));
        match part.and_then(|part| parts.get_mut(part)) {
            Some(part) => {
                part.get_or_insert(folder);
            }
            None => others = true,
        }
    }
    let [train, validation, test] = parts;
    if others && (train.is_none() || (validation.is_none() && test.is_none())) {
        return Ok(());
    }
    for folder in folders {
        if files::subfolders(folder)?.0.is_empty() {
            return Ok(());
        }
    }
    let [train, validation, test] = parts.map(|part| part.map(|path| quoted(path)));
    let mut text = format!(
        "{flag} {} holds the parts of a data set, not classes; type",
        files::readable(root)
    );
    if let Some(train) = &train {
        text += &format!("\n  tipserve create CACHE --from {train}");
        if let Some(validation) = &validation {
            text += &format!(" --validation {validation}");
        }
    }
    if let Some(test) = test.or(validation.filter(|_| train.is_none())) {
        text += &format!("\n  tipserve evaluate CACHE --from {test}");
    }
    Err(Failure::Input(text))
}

/// Which part a name is that of: for training, validation or testing, by
/// position. A year and a word for pictures may follow, as in `val2017`.
fn part_of(name: &str) -> Option<usize> {
    const SEPARATORS: [char; 3] = ['_', '-', ' '];
    let name = name.to_ascii_lowercase();
    let mut plain: &str = &name;
    let digits = plain.len() - plain.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 4 {
        plain = plain.split_at(plain.len() - digits).0;
        plain = plain.strip_suffix(SEPARATORS).unwrap_or(plain);
    }
    let suffixes = ["set", "images", "data", "split"];
    if let Some(short) = suffixes.iter().find_map(|word| plain.strip_suffix(word)) {
        plain = short.strip_suffix(SEPARATORS).unwrap_or(short);
    }
    [&TRAINING[..], &VALIDATION, &TEST]
        .iter()
        .position(|names| names.contains(&plain))
}

/// A path as a POSIX shell takes it.
fn quoted(path: &Path) -> String {
    let text = files::readable(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_many_names() {
        for (part, names) in [
            &[
                "train",
                "Training",
                "trainset",
                "training_set",
                "TRAIN-SET",
                "train_images",
                "train_2012",
            ][..],
            &["val", "Valid", "validation set", "dev", "eval", "val2017"],
            &[
                "TEST",
                "testing",
                "test_set",
                "testset",
                "holdout",
                "test data 2014",
            ],
        ]
        .iter()
        .enumerate()
        {
            for name in *names {
                assert_eq!(part_of(name), Some(part), "{name}");
            }
        }
        for name in [
            "",
            "set",
            "trains",
            "train_2",
            "train20170",
            "2017",
            "images",
            "dataset",
            "contest",
            "pre-train",
        ] {
            assert_eq!(part_of(name), None, "{name}");
        }
    }

    #[test]
    fn paths_can_be_typed_as_they_are_printed() {
        assert_eq!(quoted(Path::new("/a/b-1/train")), "/a/b-1/train");
        assert_eq!(quoted(Path::new("my pets/it's")), r"'my pets/it'\''s'");
    }
}
