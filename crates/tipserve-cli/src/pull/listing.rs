//! What of a `bundle.toml` says which files there are.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PullError;

/// Most files of a bundle.
const MAX_FILES: usize = 64;

/// A bundle's name and files, each with its sha256. All else is the server's to
/// read.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The bundle's name, for people.
    pub name: String,
    /// sha256 by name, lower-case hexadecimal.
    pub files: BTreeMap<String, String>,
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
        let listing: Listing =
            toml::from_str(text).map_err(|error| malformed(error.message().to_owned()))?;
        if listing.files.len() > MAX_FILES {
            let count = listing.files.len();
            return Err(malformed(format!(
                "it has {count} files, at most {MAX_FILES} are taken"
            )));
        }
        for (name, sha256) in &listing.files {
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
        for wrong in ["", "ab", &digits.to_uppercase(), &"xy".repeat(32)] {
            assert!(of("image.pt", wrong).is_err(), "{wrong}");
        }
        assert!(Listing::parse(b"\xff", "x").is_err());
        assert!(Listing::parse(b"<html>", "x").is_err());
    }
}
