//! Where labelled examples come from: a folder with one folder a class, an .npz
//! file, or a file that lists pictures with their classes.

use std::path::Path;

use crate::{failure::Failure, files, folder, labelled::Labelled, npz, tables};

/// Lists what lies at `path`, which `flag` names. `names`, a file of lines
/// `folder<TAB>display name`, overrides the display names of folders.
pub(crate) fn open(path: &Path, flag: &str, names: Option<&Path>) -> Result<Labelled, Failure> {
    if files::existing(path, flag)?.is_dir() {
        let names = names.map(folder::read_names).transpose()?;
        return folder::open(path, flag, names.unwrap_or_default());
    }
    if names.is_some() {
        return Err(Failure::Usage(format!(
            "--names goes with a folder of pictures, but {} is a file",
            files::readable(path)
        )));
    }
    if let Some(listed) = tables::open(path, flag) {
        return listed;
    }
    let extension = path.extension().unwrap_or_default();
    if !extension.is_empty() && !extension.eq_ignore_ascii_case("npz") {
        return Err(Failure::Input(format!(
            "{flag} {} is a file: labelled pictures come from a folder with one folder a class, or \
             an .npz, .csv, .tsv, .jsonl, .parquet or COCO .json file",
            files::readable(path)
        )));
    }
    npz::list(path)
}
