//! A folder with one folder a class.

use std::{collections::HashMap, path::Path};

use crate::{
    class_names::refuse_control_characters,
    failure::Failure,
    files,
    labelled::{Example, Labelled, Place, Source, SourceClass},
    lists, splits,
};
use tipserve_api::text::canonical;

/// Display names by those of folders, in NFC.
pub(crate) type Names = HashMap<String, String>;

/// Lists the examples in the folders of `root`, sorted by name (byte order).
pub(crate) fn open(root: &Path, flag: &str, mut names: Names) -> Result<Labelled, Failure> {
    let (folders, loose) = files::subfolders(root)?;
    if folders.is_empty() {
        let found = match loose {
            0 => "is empty".to_owned(),
            1 => "holds 1 file but no folder".to_owned(),
            count => format!("holds {count} files but no folder"),
        };
        return Err(Failure::Input(format!(
            "{flag} {} {found}; it must hold one folder a class, with the class's pictures in it",
            files::readable(root)
        )));
    }
    splits::refuse(root, flag, &folders)?;
    let mut classes = Vec::with_capacity(folders.len());
    let mut examples = Vec::new();
    for (class, folder) in folders.iter().enumerate() {
        classes.push(SourceClass {
            display_name: display_name(folder, &mut names)?,
            text_weight: None,
        });
        for path in files::walk(folder) {
            let path = path?;
            examples.push(Example {
                id: files::relative_id(root, &path),
                class,
                labels: None,
                place: Place::File(path),
            });
        }
    }
    if let Some(unknown) = names.keys().min() {
        return Err(Failure::Input(format!(
            "--names names the folder {unknown:?}, but {} has none of that name",
            files::readable(root)
        )));
    }
    Ok(Labelled {
        source: Source::Folder(root.to_owned()),
        classes,
        examples,
    })
}

/// What a class is called: as `names` says, else as its folder, '_' read as a
/// space.
fn display_name(folder: &Path, names: &mut Names) -> Result<String, Failure> {
    let name = files::readable(folder.file_name().unwrap_or_default());
    if let Some(given) = names.remove(canonical(&name).as_ref()) {
        return Ok(given);
    }
    refuse_control_characters(&name).map_err(|why| {
        Failure::Input(format!(
            "the folder {:?} {why}, and so would its class; rename it, or name the class with \
             --names",
            files::readable(folder)
        ))
    })?;
    Ok(name.replace('_', " "))
}

/// Reads lines `folder<TAB>display name`; empty lines and lines that begin
/// with '#' are skipped.
pub(crate) fn read_names(path: &Path) -> Result<Names, Failure> {
    let text = lists::read_text(path, "--names")?;
    let mut names = HashMap::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| {
            let path = files::readable(path);
            Failure::Input(format!("--names {path} line {number}: {why}"))
        };
        let (folder, name) = line
            .split_once('\t')
            .ok_or_else(|| wrong("is not \"folder<TAB>display name\""))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong("has an empty display name"));
        }
        refuse_control_characters(name)
            .map_err(|why| wrong(&format!("has a display name that {why}")))?;
        if names
            .insert(canonical(folder).into_owned(), name.to_owned())
            .is_some()
        {
            return Err(wrong(&format!("names the folder {folder:?} a second time")));
        }
    }
    Ok(names)
}
