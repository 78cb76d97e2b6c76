//! A folder of the parts of a data set (train, val, test) is not a folder of
//! classes.

use std::path::{Path, PathBuf};

use crate::{failure::Failure, files};

const TRAINING: [&str; 2] = ["train", "training"];
const VALIDATION: [&str; 4] = ["val", "valid", "validation", "dev"];
const TEST: [&str; 2] = ["test", "testing"];

/// Refuses a folder whose folders are all named as parts of a data set and all
/// hold folders, and says what to type. A class may be called "test": then
/// there are pictures in its folder, and no folders.
pub(crate) fn refuse(root: &Path, flag: &str, folders: &[PathBuf]) -> Result<(), Failure> {
    let mut parts = [None, None, None];
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_ascii_lowercase();
        let part = [&TRAINING[..], &VALIDATION, &TEST]
            .iter()
            .position(|names| names.iter().any(|known| name == *known));
        let Some(part) = part.and_then(|part| parts.get_mut(part)) else {
            return Ok(());
        };
        if files::subfolders(folder)?.0.is_empty() {
            return Ok(());
        }
        part.get_or_insert(folder);
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
    fn paths_can_be_typed_as_they_are_printed() {
        assert_eq!(quoted(Path::new("/a/b-1/train")), "/a/b-1/train");
        assert_eq!(quoted(Path::new("my pets/it's")), r"'my pets/it'\''s'");
    }
}
