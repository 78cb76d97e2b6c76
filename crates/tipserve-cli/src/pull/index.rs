//! The names that `pull` knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Address, Downloader, PullError, local::is_local};

/// The index that comes with the program.
const OWN: &str = include_str!("index.toml");

/// Most bytes of an index.
const INDEX_BYTES: u64 = 1 << 20;

/// The bundles that can be pulled by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    /// What is known of each.
    pub bundles: BTreeMap<String, Entry>,
}

/// What is known of a bundle.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Where it is published; none if it has to be made.
    pub address: Option<String>,
    /// sha256 of its bundle.toml, which names all its files with theirs.
    #[serde(default, deserialize_with = "digits")]
    pub sha256: Option<String>,
    /// The minisign key that its bundle.toml is signed with.
    pub public_key: Option<String>,
    /// Bytes of all its files.
    pub size_bytes: Option<u64>,
    /// The licence of its weights.
    pub licence: String,
    /// How good it is, and by whose figures.
    pub accuracy: String,
    /// The command that makes it.
    pub command: Option<String>,
}

/// A sha256 in lower case: it becomes a file's name.
fn digits<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let digits = text.map(|text| {
        super::sha256(&text)
            .map_err(|problem| de::Error::custom(format!("sha256 {text:?} {problem}")))
    });
    digits.transpose()
}

impl Index {
    /// The program's own, or that of a file or an address.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub async fn open(other: Option<&str>, downloader: &Downloader) -> Result<Index, PullError> {
        let Some(other) = other else {
            return Index::parse(OWN, "the program's own index");
        };
        let text = match other.contains("://") {
            true => {
                let wrong = |problem| PullError::Address {
                    given: other.to_owned(),
                    problem,
                };
                let url = reqwest::Url::parse(other).map_err(|_| wrong("it is no URL"))?;
                // It says which bytes are the right ones.
                if url.scheme() != "https" && !(url.scheme() == "http" && is_local(&url)) {
                    return Err(wrong(
                        "an index is read from a file or an https:// address; http:// is taken of \
                         this machine only",
                    ));
                }
                downloader.read(&url, INDEX_BYTES).await?
            }
            false => std::fs::read(other).map_err(PullError::disk(other))?,
        };
        Index::parse(&String::from_utf8_lossy(&text), other)
    }

    fn parse(text: &str, what: &str) -> Result<Index, PullError> {
        toml::from_str(text).map_err(|error| PullError::Malformed {
            what: what.to_owned(),
            problem: error.message().to_owned(),
        })
    }

    /// The place of a bundle, and what the index says about it.
    ///
    /// # Errors
    /// [`PullError::Unknown`]; [`PullError::NotPublished`].
    pub fn find(&self, name: &str) -> Result<(Address, &Entry), PullError> {
        let entry = self.bundles.get(name).ok_or_else(|| PullError::Unknown {
            name: name.to_owned(),
            known: self.bundles.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        match &entry.address {
            Some(address) => Ok((Address::parse(address)?, entry)),
            None => Err(PullError::NotPublished {
                name: name.to_owned(),
                command: entry.command.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_index_reads() {
        let index = Index::parse(OWN, "own").expect("an index");
        assert!(!index.bundles.is_empty());
        for (name, entry) in &index.bundles {
            // Whatever is published is pinned; whatever is not can be made.
            assert_eq!(entry.address.is_some(), entry.sha256.is_some(), "{name}");
            assert!(entry.address.is_some() || entry.command.is_some(), "{name}");
        }
    }

    #[test]
    fn a_sha256_is_digits_in_lower_case() {
        let of = |sha256: &str| {
            let text = format!(
                "[bundles.x]\nsha256 = {sha256:?}\nlicence = \"MIT\"\naccuracy = \"none\"\n"
            );
            Index::parse(&text, "x")
        };
        let index = of(&"AB".repeat(32)).expect("an index");
        let entry = index.bundles.get("x").expect("an entry");
        assert_eq!(entry.sha256, Some("ab".repeat(32)));
        for wrong in ["", "ab", "/dev/zero", "../../../etc/passwd"] {
            let error = of(wrong).expect_err(wrong).to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }
}
