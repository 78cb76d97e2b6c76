//! Where labelled examples come from: a folder with one folder a class, an .npz
//! file, or a list of pictures with their labels.

use std::path::Path;

use crate::{failure::Failure, files, folder, label_list, labelled::Labelled, npz};

/// Lists what lies at `path`, which `flag` names. `names`, a file of lines
/// `folder<TAB>display name`, overrides the display names of folders.
pub(crate) fn open(path: &Path, flag: &str, names: Option<&Path>) -> Result<Labelled, Failure> {
    if files::existing(path, flag)?.is_dir() {
        let names = names.map(folder::read_names).transpose()?;
        return folder::open(path, flag, names.unwrap_or_default());
    }
    if label_list::is_list(path) && names.is_none() {
        return label_list::open(path, flag);
    }
    if names.is_some() {
        return Err(Failure::Usage(format!(
            "--names goes with a folder of pictures, but {} is a file",
            files::readable(path)
        )));
    }
    npz::list(path)
}
