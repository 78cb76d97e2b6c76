//! The folders that bundles are loaded from, as the operator configured them. A
//! name from the wire is the name of one of them and never a path.

use std::{
    io,
    path::{Path, PathBuf},
};

use tipserve_clip::BundleError;

/// The file that makes a folder a bundle.
const MANIFEST: &str = "bundle.toml";

/// The folders that the operator named.
#[derive(Clone, Debug, Default)]
pub struct BundleFolders {
    /// Folders of single bundles.
    bundles: Vec<PathBuf>,
    /// Folders that contain bundles.
    parents: Vec<PathBuf>,
}

impl BundleFolders {
    /// Reads paths to bundles and to folders of bundles. A path to neither
    /// counts as a bundle's, so that opening it reports the problem.
    pub fn new(paths: &[PathBuf], parents: &[PathBuf]) -> BundleFolders {
        let mut folders = BundleFolders {
            parents: parents.to_vec(),
            ..BundleFolders::default()
        };
        for path in paths {
            if !path.join(MANIFEST).exists() && !bundles_in(path).is_empty() {
                folders.parents.push(path.clone());
            } else {
                folders.bundles.push(path.clone());
            }
        }
        folders
    }

    /// The bundles that these paths name, in their order; of a folder of bundles
    /// those that are in it now, by name.
    pub fn expand(paths: &[PathBuf]) -> Vec<PathBuf> {
        let bundles = paths.iter().flat_map(|path| {
            let inside = match path.join(MANIFEST).exists() {
                true => Vec::new(),
                false => bundles_in(path),
            };
            match inside.is_empty() {
                true => vec![path.clone()],
                false => inside,
            }
        });
        bundles.collect()
    }

    /// Every bundle's folder that exists now.
    pub fn list(&self) -> Vec<PathBuf> {
        let inside = self.parents.iter().flat_map(|parent| bundles_in(parent));
        self.bundles.iter().cloned().chain(inside).collect()
    }

    /// The folder of this name.
    ///
    /// # Errors
    /// The existing names, if there is none of this name.
    pub fn find(&self, name: &str) -> Result<PathBuf, Vec<String>> {
        let all = self.list();
        let found = all.iter().find(|path| folder_name(path) == name);
        found
            .cloned()
            .ok_or_else(|| all.iter().map(|path| folder_name(path)).collect())
    }
}

/// The name of a bundle's folder.
pub fn folder_name(path: &Path) -> String {
    let name = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    // "." and ".." have none of their own.
    let found = name(path).or_else(|| name(&path.canonicalize().ok()?));
    found.unwrap_or_default()
}

/// The bundles in a folder, by name. Hidden ones are left out: an incomplete
/// copy can be made in one and then renamed.
fn bundles_in(parent: &Path) -> Vec<PathBuf> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(parent)?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect()
    };
    let mut found = read().unwrap_or_default();
    found.retain(|path| !folder_name(path).starts_with('.') && path.join(MANIFEST).is_file());
    found.sort();
    found
}

/// A bundle that is loaded twice.
pub fn same_twice(name: &str, first: &str, second: &str) -> BundleError {
    BundleError::Missing {
        dir: PathBuf::from(second),
        reason: format!("it is {name}, which {first} is too"),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| folder_name(path)).collect()
    }

    fn bundle(parent: &Path, name: &str) {
        let folder = parent.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(MANIFEST), "").unwrap();
    }

    #[test]
    fn a_folder_of_bundles_has_those_that_are_in_it_by_name() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".being-copied"] {
            bundle(parent.path(), name);
        }
        std::fs::create_dir(parent.path().join("notes")).unwrap();
        let path = parent.path().to_path_buf();
        let one = path.join("a");
        assert_eq!(names(&BundleFolders::expand(from_ref(&path))), ["a", "b"]);
        assert_eq!(names(&BundleFolders::expand(from_ref(&one))), ["a"]);

        let folders = BundleFolders::new(from_ref(&path), &[]);
        bundle(parent.path(), "later");
        assert_eq!(folders.find("later"), Ok(path.join("later")));
        // The one bundle alone, not its neighbours.
        let single = BundleFolders::new(from_ref(&one), &[]);
        assert_eq!(names(&single.list()), ["a"]);
        assert_eq!(single.find("b"), Err(vec!["a".to_owned()]));
        assert_eq!(names(&BundleFolders::new(&[one], &[path]).list()).len(), 4);
    }

    #[test]
    fn a_name_is_no_path() {
        let parent = tempfile::tempdir().unwrap();
        bundle(parent.path(), "a");
        let inside = parent.path().join("a");
        bundle(&inside, "inner");
        let folders = BundleFolders::new(&[parent.path().to_path_buf()], &[]);
        let absolute = inside.to_string_lossy().into_owned();
        for name in [
            "",
            ".",
            "..",
            "a/inner",
            "../a",
            "./a",
            absolute.as_str(),
            ".a",
        ] {
            assert!(folders.find(name).is_err(), "{name}");
        }
        assert!(folders.find("a").is_ok());
    }

    #[test]
    fn what_is_no_bundle_is_left_for_opening_to_complain_about() {
        let parent = tempfile::tempdir().unwrap();
        let paths = [parent.path().to_path_buf()];
        assert_eq!(BundleFolders::expand(&paths), paths);
        assert_eq!(BundleFolders::new(&paths, &[]).list(), paths);
    }
}
