//! Bearer tokens: a TOML file with one entry a token. The file holds hashes
//! only; tokens are random, so that a plain hash of one gives nothing away.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    AuthError, OpenError,
    rates::{RateSettings, Rates},
    reload::FromFiles,
};
use crate::telemetry;
use tipserve_api::{
    methods::{Access, Method, Role},
    tokens::{check_name, check_prefix},
};
use tipserve_store::CacheId;

const WHAT: &str = "the tokens file (--tokens)";
/// Longest token that is looked at, bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// The tokens of a server.
pub struct Tokens {
    by_hash: HashMap<TokenHash, Arc<Token>>,
}

/// One token, by all but its secret.
pub struct Token {
    /// Its name, as logs and audit lines have it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What the ids of the caches that it may touch begin with; empty: all.
    pub prefix: String,
    /// When it ends.
    pub expires: Option<DateTime<Utc>>,
    /// How fast it may call.
    pub rates: Arc<Rates>,
    /// What it is known by in the file.
    hash: TokenHash,
}

impl Token {
    /// Whether its role lets it call a method.
    ///
    /// # Errors
    /// [`AuthError::Role`].
    pub fn may_call(&self, method: &Method) -> Result<(), AuthError> {
        match method.access {
            Access::Needs(needed) if self.role < needed => Err(AuthError::Role {
                name: self.name.clone(),
                role: self.role,
                needed,
                method: method.name.to_owned(),
            }),
            Access::Needs(_) | Access::Open => Ok(()),
        }
    }

    /// Whether its prefix lets it touch a cache.
    ///
    /// # Errors
    /// [`AuthError::Cache`].
    pub fn allows(&self, cache: &CacheId) -> Result<(), AuthError> {
        if cache.as_str().starts_with(&self.prefix) {
            return Ok(());
        }
        Err(AuthError::Cache {
            name: self.name.clone(),
            prefix: self.prefix.clone(),
            cache: cache.to_string(),
        })
    }

    fn check_time(&self, now: DateTime<Utc>) -> Result<(), AuthError> {
        match self.expires {
            Some(at) if at <= now => Err(AuthError::TokenExpired {
                name: self.name.clone(),
                at: at.to_rfc3339(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {:?}", self.name)
    }
}

/// The hash of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum TokenHash {
    Sha256([u8; 32]),
    Blake3([u8; 32]),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

/// As [`RateSettings`], which `flatten` and `deny_unknown_fields` do not let
/// in whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    hash: String,
    role: Role,
    #[serde(default)]
    prefix: String,
    expires: Option<toml::value::Datetime>,
    requests_per_second: Option<f64>,
    requests_burst: Option<u32>,
    items_per_second: Option<f64>,
    items_burst: Option<u32>,
    max_streams: Option<usize>,
}

impl TokenHash {
    fn parse(text: &str) -> Result<TokenHash, String> {
        let wrong = || {
            "hash must be \"sha256:\" or \"blake3:\" and 64 hexadecimal digits (`tipserve token \
             new` prints an entry)"
                .to_owned()
        };
        let (kind, digits) = text.split_once(':').ok_or_else(wrong)?;
        // blake3's parser of 64 hexadecimal digits does for both.
        let bytes = *blake3::Hash::from_hex(digits)
            .map_err(|_| wrong())?
            .as_bytes();
        match kind {
            "sha256" => Ok(TokenHash::Sha256(bytes)),
            "blake3" => Ok(TokenHash::Blake3(bytes)),
            _ => Err(wrong()),
        }
    }
}

/// A token as a client shows it, hashed.
struct Shown {
    sha256: [u8; 32],
    blake3: [u8; 32],
}

impl Shown {
    fn new(token: &str) -> Shown {
        Shown {
            sha256: Sha256::digest(token.as_bytes()).into(),
            blake3: *blake3::hash(token.as_bytes()).as_bytes(),
        }
    }

    fn is(&self, hash: &TokenHash) -> bool {
        match hash {
            TokenHash::Sha256(bytes) => self.sha256.ct_eq(bytes).into(),
            TokenHash::Blake3(bytes) => self.blake3.ct_eq(bytes).into(),
        }
    }
}

impl Entry {
    fn into_token(self, previous: Option<&Tokens>) -> Result<Token, String> {
        check_name(&self.name)?;
        check_prefix(&self.prefix)?;
        let hash = TokenHash::parse(&self.hash)?;
        let expires = match self.expires {
            None => None,
            Some(at) => {
                let at = at.to_string();
                let parsed = DateTime::parse_from_rfc3339(&at).map_err(|_| {
                    format!("expires = {at} needs date, time and offset, as 2027-01-31T00:00:00Z")
                })?;
                Some(parsed.with_timezone(&Utc))
            }
        };
        let settings = RateSettings {
            requests_per_second: self.requests_per_second,
            requests_burst: self.requests_burst,
            items_per_second: self.items_per_second,
            items_burst: self.items_burst,
            max_streams: self.max_streams,
        };
        // What is used up stays so when the file changes elsewhere.
        let known = previous.and_then(|previous| previous.named(&self.name));
        let rates = match known {
            Some(known) if *known.rates.settings() == settings => Arc::clone(&known.rates),
            _ => Arc::new(Rates::new(settings)?),
        };
        Ok(Token {
            name: self.name,
            role: self.role,
            prefix: self.prefix,
            expires,
            rates,
            hash,
        })
    }
}

impl Tokens {
    /// The tokens of a file's text.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold none of its values but names.
    pub fn parse(text: &str, previous: Option<&Tokens>) -> Result<Tokens, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            // Not its Display, which quotes the line: somebody may have put a
            // token there.
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(0, |before| before.matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        let mut names = HashSet::with_capacity(file.token.len());
        let mut tokens = Tokens {
            by_hash: HashMap::with_capacity(file.token.len()),
        };
        for (index, entry) in file.token.into_iter().enumerate() {
            let name = entry.name.clone();
            let wrong = |problem: String| format!("token {} ({name:?}): {problem}", index + 1);
            let token = entry.into_token(previous).map_err(wrong)?;
            if !names.insert(token.name.clone()) {
                return Err(wrong("another token has this name".to_owned()));
            }
            if tokens.by_hash.contains_key(&token.hash) {
                return Err(wrong("another token has this hash".to_owned()));
            }
            tokens.by_hash.insert(token.hash, Arc::new(token));
        }
        Ok(tokens)
    }

    fn named(&self, name: &str) -> Option<&Arc<Token>> {
        self.by_hash.values().find(|token| token.name == name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// The token that a client shows. Every entry is compared, each in constant
    /// time.
    ///
    /// # Errors
    /// [`AuthError::TokenUnknown`], [`AuthError::TokenExpired`].
    pub fn find(&self, shown: &str, now: DateTime<Utc>) -> Result<Arc<Token>, AuthError> {
        if shown.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TokenUnknown);
        }
        let shown = Shown::new(shown);
        let mut found = None;
        for (hash, token) in &self.by_hash {
            if shown.is(hash) {
                found = Some(token);
            }
        }
        let token = found.ok_or(AuthError::TokenUnknown)?;
        token.check_time(now)?;
        Ok(Arc::clone(token))
    }
}

impl Tokens {
    /// What the file has now for a token that was found in it before.
    ///
    /// # Errors
    /// [`AuthError::TokenUnknown`], [`AuthError::TokenExpired`].
    pub fn current(&self, before: &Token, now: DateTime<Utc>) -> Result<Arc<Token>, AuthError> {
        let token = self
            .by_hash
            .get(&before.hash)
            .ok_or(AuthError::TokenUnknown)?;
        token.check_time(now)?;
        Ok(Arc::clone(token))
    }
}

impl FromFiles for Tokens {
    type Files = PathBuf;
    const KIND: &'static str = "tokens";

    fn files(path: &PathBuf) -> Vec<(&'static str, PathBuf)> {
        vec![(WHAT, path.clone())]
    }

    fn make(
        path: &PathBuf,
        bytes: &[Vec<u8>],
        previous: Option<&Tokens>,
    ) -> Result<Tokens, OpenError> {
        let wrong = |reason: String| OpenError::invalid(WHAT, path, reason);
        let bytes = bytes.first().map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        Tokens::parse(text, previous).map_err(wrong)
    }

    fn took_effect(&self) {
        telemetry::tokens_known(self.len());
        if self.is_empty() {
            tracing::warn!("there is no token: every call but health checks is refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipserve_api::tokens::{MARK, generate};

    fn now() -> DateTime<Utc> {
        "2026-06-01T12:00:00Z".parse().expect("a time")
    }

    fn parse(text: &str) -> Tokens {
        Tokens::parse(text, None).expect("valid")
    }

    fn refused(text: &str) -> String {
        Tokens::parse(text, None).err().expect("refused")
    }

    #[test]
    fn the_right_token_is_found_and_no_other() {
        let made: Vec<_> = (0..5).map(|_| generate().expect("random")).collect();
        let mut file = String::new();
        for (index, (token, hash)) in made.iter().enumerate() {
            // Either hash does.
            let hash = if index % 2 == 0 {
                hash.clone()
            } else {
                format!("blake3:{}", blake3::hash(token.as_bytes()).to_hex())
            };
            file += &format!("[[token]]\nname = 't{index}'\nhash = '{hash}'\nrole = 'write'\n");
        }
        let tokens = parse(&file);
        for (index, (token, _)) in made.iter().enumerate() {
            assert!(token.starts_with(MARK) && token.len() == MARK.len() + 64);
            assert_eq!(
                tokens.find(token, now()).expect("known").name,
                format!("t{index}")
            );
            for wrong in [
                &token[..token.len() - 1],
                &token.to_uppercase(),
                "",
                &"x".repeat(5000),
            ] {
                assert_eq!(
                    tokens.find(wrong, now()).err(),
                    Some(AuthError::TokenUnknown)
                );
            }
        }
        assert!(
            !file.contains(&made[0].0[MARK.len()..]),
            "the file holds a token"
        );
    }

    #[test]
    fn a_token_ends_when_it_says() {
        let (token, hash) = generate().expect("random");
        let file =
            |at: &str| format!("[[token]]\nname='a'\nhash='{hash}'\nrole='admin'\nexpires={at}\n");
        let before = parse(&file("2026-06-01T14:00:01+02:00"));
        assert!(before.find(&token, now()).is_ok());
        let after = parse(&file("2026-06-01T14:00:00+02:00"));
        assert!(matches!(
            after.find(&token, now()),
            Err(AuthError::TokenExpired { .. })
        ));
        assert!(refused(&file("2026-06-01")).contains("needs date, time and offset"));
    }

    #[test]
    fn a_wrong_file_is_said_so_without_its_secrets() {
        let good = format!("hash = 'sha256:{}'\nrole = 'write'\n", "0".repeat(64));
        for (text, words) in [
            (
                format!("[[token]]\nname = 'a b'\n{good}"),
                "must be 1 to 64",
            ),
            (
                format!("[[token]]\nname = 'a'\nprefix = 'A'\n{good}"),
                "the prefix",
            ),
            (
                format!("[[token]]\nname = 'a'\nsecret = 'b'\n{good}"),
                "unknown field",
            ),
            (
                "[[token]]\nname = 'a'\nhash = 'hunter2'\nrole = 'write'\n".to_owned(),
                "hash must be",
            ),
            (
                "[[token]]\nname = 'a'\nhash = 'md5:00'\nrole = 'root'\n".to_owned(),
                "unknown variant",
            ),
            (
                format!("[[token]]\nname='a'\n{good}[[token]]\nname='a'\n{good}"),
                "this name",
            ),
            (
                format!("[[token]]\nname='a'\n{good}[[token]]\nname='b'\n{good}"),
                "this hash",
            ),
            (
                format!("[[token]]\nname='a'\nmax_streams=0\n{good}"),
                "max_streams = 0",
            ),
        ] {
            let error = refused(&text);
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let mistake = refused("[[token]]\nname = 'a'\nhash = hunter2\n");
        assert!(
            mistake.starts_with("line 3") && !mistake.contains("hunter2"),
            "{mistake}"
        );
    }

    #[test]
    fn what_is_used_up_stays_so_over_a_reload() {
        let (token, hash) = generate().expect("random");
        let file = |rate: &str, role: &str| {
            format!(
                "[[token]]\nname='a'\nhash='{hash}'\nrole='{role}'\nrequests_per_second={rate}\n\
                 requests_burst=1\n"
            )
        };
        let first = parse(&file("0.000001", "write"));
        first
            .find(&token, now())
            .expect("known")
            .rates
            .begin("a", 9)
            .expect("the first call");
        let second = Tokens::parse(&file("0.000001", "admin"), Some(&first)).expect("valid");
        let same = second.find(&token, now()).expect("known");
        assert_eq!(same.role, Role::Admin);
        assert!(
            same.rates.begin("a", 9).is_err(),
            "the bucket was filled by the reload"
        );
        let third = Tokens::parse(&file("0.000002", "admin"), Some(&second)).expect("valid");
        third
            .find(&token, now())
            .expect("known")
            .rates
            .begin("a", 9)
            .expect("a new limit");
    }
}
