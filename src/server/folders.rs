//! The folders that bundles are loaded from, as the operator configured them. A
//! name from the wire is the name of one of them and never a path.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;
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
    /// [`NotFound`], if there is none or several.
    pub fn find(&self, name: &str) -> Result<PathBuf, NotFound> {
        let all = self.list();
        let mut called = all.iter().filter(|path| folder_name(path) == name);
        let problem = match called.next() {
            None => "is not among the folders of bundles that this server was started with",
            Some(found) if called.all(|other| is_same(found, other)) => return Ok(found.clone()),
            Some(_) => "is the name of several folders of bundles: rename all but one",
        };
        Err(NotFound {
            problem,
            known: all.iter().map(|path| folder_name(path)).collect(),
        })
    }

    /// Two folders that have the same name, by which neither is found.
    pub fn namesakes(&self) -> Option<Namesakes> {
        let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
        for second in self.list() {
            let name = folder_name(&second);
            match known.get(&name) {
                Some(first) if is_same(first, &second) => {}
                Some(first) => {
                    return Some(Namesakes {
                        first: first.clone(),
                        name,
                        second,
                    });
                }
                None => {
                    known.insert(name, second);
                }
            }
        }
        None
    }
}

/// Why no folder is found by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// What is wrong with the name, in words.
    pub problem: &'static str,
    /// The existing names.
    pub known: Vec<String>,
}

/// Two folders of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "two folders of bundles are called {name:?}: {} and {}. LoadBundle, which takes a folder's \
     name, loads neither until one of them is renamed",
    first.display(),
    second.display()
)]
pub struct Namesakes {
    name: String,
    first: PathBuf,
    second: PathBuf,
}

/// Whether two paths lead to the same folder: a bundle may be named itself and
/// be in a folder of bundles.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
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
        let known = single.find("b").expect_err("its neighbour").known;
        assert_eq!(known, ["a"]);
        assert_eq!(names(&BundleFolders::new(&[one], &[path]).list()).len(), 4);
    }

    #[test]
    fn two_folders_of_one_name_are_told_and_one_that_is_named_twice_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|name| parent.path().join(name));
        for folder in [&here, &there] {
            std::fs::create_dir(folder).unwrap();
            bundle(folder, "a");
        }
        let one = here.join("a");
        let folders = BundleFolders::new(&[one.clone(), here.clone()], from_ref(&here));
        assert_eq!(folders.namesakes(), None);
        assert_eq!(folders.find("a"), Ok(one.clone()));

        for (paths, parents) in [
            (vec![one.clone(), there.join("a")], vec![]),
            (vec![one.clone()], vec![there.clone()]),
            (vec![here, there.clone()], vec![]),
        ] {
            let folders = BundleFolders::new(&paths, &parents);
            let told = folders.namesakes().expect("namesakes").to_string();
            assert!(told.contains(&one.display().to_string()), "{told}");
            assert!(
                told.contains(&there.join("a").display().to_string()),
                "{told}"
            );
            let problem = folders.find("a").expect_err("two").problem;
            assert!(problem.contains("several"), "{problem}");
        }
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
