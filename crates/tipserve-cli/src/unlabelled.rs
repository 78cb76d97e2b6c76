//! Pictures without a class: files, folders, or the rows of an .npz file.

use std::path::{Path, PathBuf};

use crate::{
    failure::Failure,
    files,
    labelled::{Example, Labelled, Place, Source, SourceClass},
    npz,
};

/// The pictures of one folder or file, named by their paths within it.
pub(crate) fn within(path: &Path) -> Result<Labelled, Failure> {
    let mut found = open(&[path.to_owned()])?;
    for example in &mut found.examples {
        if let Place::File(file) = &example.place
            && let Ok(inner) = file.strip_prefix(path)
            && inner != Path::new("")
        {
            example.id = files::readable(inner);
        }
    }
    Ok(found)
}

/// The pictures, all of one nameless class.
pub(crate) fn open(paths: &[PathBuf]) -> Result<Labelled, Failure> {
    let classes = vec![SourceClass {
        display_name: String::new(),
        text_weight: None,
    }];
    let is_npz = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        extension.eq_ignore_ascii_case("npz")
    };
    if let [path] = paths
        && is_npz(path)
    {
        let (rows, _) = npz::Archive::open(path)?.matrix_shape("features")?;
        return Ok(Labelled {
            source: Source::Npz(path.clone()),
            classes,
            examples: (0..rows)
                .map(|row| Example {
                    id: row.to_string(),
                    class: 0,
                    labels: None,
                    place: Place::Row(row),
                })
                .collect(),
        });
    }
    let mut examples = Vec::new();
    let mut add = |path: PathBuf| {
        examples.push(Example {
            id: files::readable(&path),
            class: 0,
            labels: None,
            place: Place::File(path),
        });
    };
    for path in paths {
        if is_npz(path) {
            return Err(Failure::Usage(
                "an .npz file of embeddings goes alone".to_owned(),
            ));
        }
        if files::existing(path, "FILE|DIR")?.is_dir() {
            for file in files::walk(path) {
                add(file?);
            }
        } else {
            add(path.clone());
        }
    }
    Ok(Labelled {
        source: Source::Folder(PathBuf::new()),
        classes,
        examples,
    })
}
