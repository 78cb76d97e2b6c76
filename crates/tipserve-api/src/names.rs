//! Ids, version numbers and the references that requests carry.
//!
//! A [`CacheId`] or [`AliasName`] can be made only by parsing, so a value of
//! these types is proof that it is a single, harmless path segment.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use thiserror::Error;

/// Longest cache id and alias, in bytes.
pub const MAX_ID_LEN: usize = 63;

const CACHE_RULE: &str = "1 to 63 of a-z, 0-9, '-', '_' and '.', first a letter or digit, \
                          without \"..\" and not ending in '.'";
const ALIAS_RULE: &str = "1 to 63 of a-z, 0-9, '-' and '_', first a letter, not \"latest\"";
const VERSION_RULE: &str = "a whole number from 1, without sign or leading zeros";
const REFERENCE_RULE: &str = "one of caches/CACHE, caches/CACHE/versions/NUMBER, \
                              caches/CACHE/aliases/ALIAS, CACHE, CACHE@NUMBER, CACHE@ALIAS, \
                              CACHE@latest";

/// The id of a cache: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, first a letter
/// or digit, without `..` and not ending in `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheId(String);

/// The name of an alias: 1 to 63 of `a-z`, `0-9`, `-` and `_`, first a letter;
/// not `latest`, which always stands for the newest version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(String);

/// The number of a version, from 1. At most `i64::MAX`, since that is what the
/// API carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct VersionNumber(u64);

/// What a [`Reference`] says about the version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// The newest version that is not deleted.
    Latest,
    /// The version with this number.
    Number(VersionNumber),
    /// The one that the alias points at.
    Alias(AliasName),
}

/// A cache and which of its versions. Parses every form that the API takes and
/// displays as a resource name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The cache that is meant.
    pub cache: CacheId,
    /// Which of its versions is meant.
    pub version: VersionSelector,
}

impl CacheId {
    /// The id as text, as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource name, `caches/{cache}`.
    pub fn resource_name(&self) -> String {
        format!("caches/{}", self.0)
    }

    /// The resource name, `caches/{cache}/versions/{version}`.
    pub fn version_name(&self, version: VersionNumber) -> String {
        format!("caches/{}/versions/{version}", self.0)
    }

    /// The resource name, `caches/{cache}/aliases/{alias}`.
    pub fn alias_name(&self, alias: &AliasName) -> String {
        format!("caches/{}/aliases/{alias}", self.0)
    }

    /// Parses `caches/{cache}` or the bare id.
    ///
    /// # Errors
    /// [`NameError`] with the rule.
    pub fn parse_name(name: &str) -> Result<Self, NameError> {
        name.strip_prefix("caches/").unwrap_or(name).parse()
    }
}

impl AliasName {
    /// The alias as text, as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl VersionNumber {
    /// The number of a cache's first version.
    pub const FIRST: Self = Self(1);

    /// `number` as a version; none for 0 and for more than `i64::MAX`.
    pub fn new(number: u64) -> Option<Self> {
        (number > 0 && i64::try_from(number).is_ok()).then_some(Self(number))
    }

    /// The number as the wire and the store write it.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number as the API carries it.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// A name that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct NameError {
    /// "cache id", "alias", "version" or "reference".
    pub kind: &'static str,
    /// What was given, shortened for the message.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

fn invalid(kind: &'static str, value: &str, rule: &'static str) -> NameError {
    let mut shown: String = value.chars().take(80).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    NameError {
        kind,
        value: shown,
        rule,
    }
}

impl FromStr for CacheId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=MAX_ID_LEN).contains(&id.len())
            && id.bytes().all(allowed)
            && id.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !id.contains("..")
            && !id.ends_with('.');
        if good {
            Ok(Self(id.to_owned()))
        } else {
            Err(invalid("cache id", id, CACHE_RULE))
        }
    }
}

impl FromStr for AliasName {
    type Err = NameError;

    fn from_str(alias: &str) -> Result<Self, NameError> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        let good = (1..=MAX_ID_LEN).contains(&alias.len())
            && alias.bytes().all(allowed)
            && alias.starts_with(|c: char| c.is_ascii_lowercase())
            && alias != "latest";
        if good {
            Ok(Self(alias.to_owned()))
        } else {
            Err(invalid("alias", alias, ALIAS_RULE))
        }
    }
}

impl FromStr for VersionNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        canonical
            .then(|| text.parse().ok().and_then(Self::new))
            .flatten()
            .ok_or_else(|| invalid("version", text, VERSION_RULE))
    }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(rest) = text.strip_prefix("caches/") {
            let mut parts = rest.split('/');
            let found = (parts.next(), parts.next(), parts.next(), parts.next());
            let (cache, version) = match found {
                (Some(cache), None, ..) => (cache, VersionSelector::Latest),
                (Some(cache), Some("versions"), Some(number), None) => {
                    (cache, VersionSelector::Number(number.parse()?))
                }
                (Some(cache), Some("aliases"), Some("latest"), None) => {
                    (cache, VersionSelector::Latest)
                }
                (Some(cache), Some("aliases"), Some(alias), None) => {
                    (cache, VersionSelector::Alias(alias.parse()?))
                }
                _ => return Err(invalid("reference", text, REFERENCE_RULE)),
            };
            let cache = cache.parse()?;
            return Ok(Self { cache, version });
        }
        let (cache, version) = match text.split_once('@') {
            None => (text, VersionSelector::Latest),
            Some((cache, "latest")) => (cache, VersionSelector::Latest),
            Some((cache, at)) if at.starts_with(|c: char| c.is_ascii_digit()) => {
                (cache, VersionSelector::Number(at.parse()?))
            }
            Some((cache, at)) => (cache, VersionSelector::Alias(at.parse()?)),
        };
        let cache = cache.parse()?;
        Ok(Self { cache, version })
    }
}

impl fmt::Display for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            VersionSelector::Latest => write!(f, "caches/{}", self.cache),
            VersionSelector::Number(number) => {
                write!(f, "caches/{}/versions/{number}", self.cache)
            }
            VersionSelector::Alias(alias) => write!(f, "caches/{}/aliases/{alias}", self.cache),
        }
    }
}

impl TryFrom<String> for CacheId {
    type Error = NameError;

    fn try_from(id: String) -> Result<Self, NameError> {
        id.parse()
    }
}

impl From<CacheId> for String {
    fn from(id: CacheId) -> Self {
        id.0
    }
}

impl TryFrom<String> for AliasName {
    type Error = NameError;

    fn try_from(alias: String) -> Result<Self, NameError> {
        alias.parse()
    }
}

impl From<AliasName> for String {
    fn from(alias: AliasName) -> Self {
        alias.0
    }
}

impl TryFrom<u64> for VersionNumber {
    type Error = NameError;

    fn try_from(number: u64) -> Result<Self, NameError> {
        Self::new(number).ok_or_else(|| invalid("version", &number.to_string(), VERSION_RULE))
    }
}

impl From<VersionNumber> for u64 {
    fn from(number: VersionNumber) -> Self {
        number.0
    }
}
