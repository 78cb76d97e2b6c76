//! Bearer tokens: a TOML file with one entry a token. The file holds hashes
//! only; tokens are random, so that a plain hash of one gives nothing away.

mod file;
mod hash;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use chrono::{DateTime, Utc};

use super::{AuthError, OpenError, rates::Rates, reload::FromFiles};
use crate::telemetry;
use file::File;
use hash::{Presented, TokenHash};
use tipserve_api::methods::{Access, Method, Role};
use tipserve_store::CacheId;

const WHAT: &str = "the tokens file (--tokens)";
/// Longest token that is hashed, in bytes; a longer one is unknown.
const MAX_TOKEN_BYTES: usize = 4096;

/// The tokens of a server.
pub struct Tokens {
    by_hash: HashMap<TokenHash, Arc<Token>>,
}

/// One token, without its secret.
pub struct Token {
    /// Its name, as logs and audit lines have it.
    pub name: String,
    /// What it may do, the lesser roles included.
    pub role: Role,
    /// The prefix of the ids of the caches that it may use; empty: all.
    pub prefix: String,
    /// When it stops being accepted; none: never.
    pub expires: Option<DateTime<Utc>>,
    /// How fast it may call.
    pub rates: Arc<Rates>,
    /// Its hash in the file.
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

    /// Whether its prefix allows a cache.
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

    /// The number of tokens in the file.
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether the file has no token.
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
        let shown = Presented::new(shown);
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
mod tests;
