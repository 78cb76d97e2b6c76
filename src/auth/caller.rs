//! Who calls, and what they may touch.

use std::sync::Arc;

use chrono::Utc;
use http::Extensions;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{GuardError, tls, tokens::Token};
use tipserve_store::CacheId;

/// Who calls. Put into each request's extensions by the server's door; where
/// there is no door (a service used on its own), nobody in particular, who may
/// do everything.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    token: Option<Arc<Token>>,
    certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
    request_id: Option<String>,
}

impl Caller {
    /// A caller with a token, a certificate, both or neither.
    pub fn new(
        token: Option<Arc<Token>>,
        certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
        request_id: Option<String>,
    ) -> Caller {
        Caller {
            token,
            certificates,
            request_id,
        }
    }

    /// It has shown this token.
    pub fn identify(&mut self, token: Arc<Token>) {
        self.token = Some(token);
    }

    /// The caller of a request.
    pub fn of(extensions: &Extensions) -> Caller {
        extensions.get::<Caller>().cloned().unwrap_or_default()
    }

    /// Whether a cache may be touched: what each method asks before it looks
    /// for the cache, so that the answer is the same whether there is one or
    /// not. (The role is checked at the door, by [`super::roles`].)
    ///
    /// # Errors
    /// [`GuardError::Cache`] where the token's prefix does not allow it.
    pub fn check(&self, cache: &CacheId) -> Result<(), GuardError> {
        match &self.token {
            Some(token) if !cache.as_str().starts_with(&token.prefix) => Err(GuardError::Cache {
                name: token.name.clone(),
                prefix: token.prefix.clone(),
                cache: cache.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a cache may be seen in lists.
    pub fn sees(&self, cache: &CacheId) -> bool {
        cache.as_str().starts_with(self.prefix())
    }

    /// What the ids of all caches begin with that may be touched.
    pub fn prefix(&self) -> &str {
        self.token.as_ref().map_or("", |token| &token.prefix)
    }

    /// Who it is, as audit lines say it.
    pub fn who(&self) -> String {
        if let Some(token) = &self.token {
            return token.name.clone();
        }
        self.certificate().unwrap_or_else(|| "anonymous".to_owned())
    }

    /// How it is known: "token", "certificate" or "nothing".
    pub fn known_by(&self) -> &'static str {
        match (&self.token, &self.certificates) {
            (Some(_), _) => "token",
            (None, Some(_)) => "certificate",
            (None, None) => "nothing",
        }
    }

    /// The subject of its certificate.
    pub fn certificate(&self) -> Option<String> {
        let own = self.certificates.as_ref()?.first()?;
        Some(tls::subject(own))
    }

    /// The id of its request, where it has one.
    pub fn request_id(&self) -> &str {
        self.request_id.as_deref().unwrap_or_default()
    }

    /// Who made a version: the token's name where there is one, whatever the
    /// client says; else what it says.
    pub fn created_by(&self, stated: String) -> String {
        match &self.token {
            Some(token) => token.name.clone(),
            None => stated,
        }
    }

    /// Counts items against the token's rate, where the token is still good: a
    /// stream may last longer than it.
    ///
    /// # Errors
    /// [`GuardError::Rate`], [`GuardError::Burst`]; those of [`Token::check`].
    pub fn items(&self, count: usize) -> Result<(), GuardError> {
        match &self.token {
            Some(token) => {
                token.check(Utc::now())?;
                token.rates.items(&token.name, count)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tokens::Tokens, *};

    fn caller(prefix: &str) -> Caller {
        let (token, hash) = tipserve_api::tokens::generate().expect("random");
        let file = format!("[[token]]\nname='t'\nhash='{hash}'\nrole='write'\nprefix='{prefix}'\n");
        let tokens = Tokens::parse(&file, None).expect("valid");
        let token = tokens.find(&token, chrono::Utc::now()).expect("known");
        Caller::new(Some(token), None, None)
    }

    #[test]
    fn a_prefix_bounds_what_may_be_touched() {
        let caller = caller("team-");
        let id = |text: &str| text.parse::<CacheId>().expect("an id");
        assert!(caller.check(&id("team-a")).is_ok() && caller.sees(&id("team-a")));
        for other in ["team", "tea", "other", "a-team-"] {
            let error = caller.check(&id(other)).expect_err("refused");
            assert!(error.to_string().contains("\"team-\""), "{error}");
            assert!(!caller.sees(&id(other)), "{other}");
        }
        assert!(Caller::default().check(&id("other")).is_ok());
    }

    #[test]
    fn who_made_a_version_cannot_be_made_up() {
        assert_eq!(caller("").created_by("somebody".into()), "t");
        assert_eq!(Caller::default().created_by("somebody".into()), "somebody");
    }
}
