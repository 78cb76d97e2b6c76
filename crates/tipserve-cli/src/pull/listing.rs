//! What of a `bundle.toml` says which files there are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{PullError, signature};

/// The file that lists the others.
pub(super) const LISTING: &str = "bundle.toml";

/// Most files of a bundle.
const MAX_FILES: usize = 64;

/// A bundle's name and files, each with its sha256. All else is the server's to
/// read.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The bundle's name, for people.
    pub name: String,
    /// sha256 by name, lower-case hexadecimal; those of [`Listing::int8`], too.
    pub files: BTreeMap<String, String>,
    /// The 8-bit archives, which `bundle.toml` lists apart.
    #[serde(default)]
    int8: Int8,
}

#[derive(Debug, Default, Deserialize)]
struct Int8 {
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl Listing {
    /// Reads it.
    ///
    /// # Errors
    /// [`PullError::Malformed`]: no bundle.toml, or one that names a file that
    /// would not lie in its folder.
    pub fn parse(text: &[u8], what: &str) -> Result<Listing, PullError> {
        let malformed = |problem: String| PullError::Malformed {
            what: format!("{what}: bundle.toml"),
            problem,
        };
        let text = std::str::from_utf8(text).map_err(|error| malformed(error.to_string()))?;
        let mut listing: Listing =
            toml::from_str(text).map_err(|error| malformed(error.message().to_owned()))?;
        for (name, sha256) in std::mem::take(&mut listing.int8.files) {
            if let Some(other) = listing.files.insert(name.clone(), sha256.clone())
                && other != sha256
            {
                return Err(malformed(format!("{name:?} is listed with two sha256")));
            }
        }
        if listing.files.len() > MAX_FILES {
            let count = listing.files.len();
            return Err(malformed(format!(
                "it has {count} files, at most {MAX_FILES} are taken"
            )));
        }
        // Where upper and lower case are the same file, one name would overwrite the other.
        let mut taken = BTreeSet::from([LISTING.to_owned(), signature::FILE.to_owned()]);
        for (name, sha256) in &listing.files {
            if !taken.insert(name.to_lowercase()) {
                return Err(malformed(format!(
                    "{name:?} is the name of another of its files"
                )));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return Err(malformed(format!(
                    "{name:?} is no name of a file in a bundle"
                )));
            }
            super::sha256(sha256)
                .ok()
                .filter(|digits| digits == sha256)
                .ok_or_else(|| malformed(format!("the sha256 of {name:?} is none: {sha256:?}")))?;
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        let digits = "ab".repeat(32);
        let of = |name: &str, sha256: &str| {
            let text = format!("name = \"x\"\nother = 1\n[files]\n{name:?} = {sha256:?}\n");
            Listing::parse(text.as_bytes(), "x").map(|listing| listing.files.len())
        };
        assert_eq!(of("image.pt", &digits).ok(), Some(1));
        for name in ["../image.pt", "/etc/x", "a/b", ".hidden", "", "a\\b"] {
            assert!(of(name, &digits).is_err(), "{name}");
        }
        for name in ["bundle.toml", "Bundle.TOML", "bundle.toml.minisig"] {
            assert!(of(name, &digits).is_err(), "{name}");
        }
        for wrong in ["", "ab", &digits.to_uppercase(), &"xy".repeat(32)] {
            assert!(of("image.pt", wrong).is_err(), "{wrong}");
        }
        let two = format!("name = \"x\"\n[files]\nA = \"{digits}\"\na = \"{digits}\"\n");
        assert!(Listing::parse(two.as_bytes(), "x").is_err());
        assert!(Listing::parse(b"\xff", "x").is_err());
        assert!(Listing::parse(b"<html>", "x").is_err());
    }

    #[test]
    fn archives_of_8_bits_are_files_too() {
        let (digits, others) = ("ab".repeat(32), "cd".repeat(32));
        let of = |name: &str, sha256: &str| {
            let text = format!(
                "name = \"x\"\n[files]\n\"image.pt\" = \"{digits}\"\n\
                 [int8]\nimage = \"image.int8.pt\"\n[int8.files]\n{name:?} = {sha256:?}\n"
            );
            Listing::parse(text.as_bytes(), "x").map(|listing| listing.files)
        };
        let files = of("image.int8.pt", &others).expect("a listing");
        assert_eq!(files.get("image.int8.pt"), Some(&others));
        assert_eq!(files.len(), 2);
        assert!(of("../image.int8.pt", &others).is_err());
        assert!(of("image.pt", &others).is_err());
    }
}
