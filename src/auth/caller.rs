//! Who calls, which caches they may use, and whether they still may.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chrono::Utc;
use http::Extensions;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{AuthError, Authenticator, peer::network, tls, tokens::Token};
use tipserve_api::methods::{Access, Method, Role};
use tipserve_store::CacheId;

/// Between a lapse and the end of the call: items that are under way by then
/// are answered, new ones refused.
const GRACE: Duration = Duration::from_millis(500);
/// How often a long call is checked again even if nothing was reloaded: clocks
/// are set, certificates expire.
const RECHECK: Duration = Duration::from_secs(30);

/// Who calls. Put into each request's extensions by the auth layer; without one
/// (a service used on its own) the caller is anonymous and may do everything.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    authenticator: Option<Arc<Authenticator>>,
    token: Option<Arc<Token>>,
    method: Option<&'static Method>,
    certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
    peer: Option<SocketAddr>,
    request_id: Option<String>,
}

impl Caller {
    /// A caller of a method at an address, with a certificate or without.
    pub fn new(
        authenticator: &Arc<Authenticator>,
        method: Option<&'static Method>,
        certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
        peer: Option<SocketAddr>,
        request_id: Option<String>,
    ) -> Caller {
        Caller {
            authenticator: Some(Arc::clone(authenticator)),
            token: None,
            method,
            certificates,
            peer,
            request_id,
        }
    }

    /// It has shown this token.
    pub fn identify(&mut self, token: Arc<Token>) {
        self.token = Some(token);
    }

    /// Whether it is known who calls.
    pub fn is_known(&self) -> bool {
        self.token.is_some() || self.certificates.is_some()
    }

    /// The caller of a request.
    pub fn of(extensions: &Extensions) -> Caller {
        extensions.get::<Caller>().cloned().unwrap_or_default()
    }

    /// Whether the caller may use a cache. Each method checks this before it
    /// looks the cache up, so that the answer is the same whether or not it
    /// exists. (The role is checked by the auth layer.)
    ///
    /// # Errors
    /// [`AuthError::Cache`] if the token's prefix does not allow it.
    pub fn check(&self, cache: &CacheId) -> Result<(), AuthError> {
        match &self.token {
            Some(token) => token.allows(cache),
            None => Ok(()),
        }
    }

    /// Refuses callers whose token is for some caches only: they must not
    /// change what all caches share.
    ///
    /// # Errors
    /// [`AuthError::AllCaches`].
    pub fn check_all_caches(&self) -> Result<(), AuthError> {
        match &self.token {
            Some(token) if !token.prefix.is_empty() => Err(AuthError::AllCaches {
                name: token.name.clone(),
                prefix: token.prefix.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a cache may be seen in lists.
    pub fn sees(&self, cache: &CacheId) -> bool {
        cache.as_str().starts_with(self.prefix())
    }

    /// The prefix of the ids of the caches that the caller may use.
    pub fn prefix(&self) -> &str {
        self.token.as_ref().map_or("", |token| &token.prefix)
    }

    /// What it may do. If the server requires no tokens, everybody may do
    /// everything.
    pub fn role(&self) -> Role {
        self.token.as_ref().map_or(Role::Admin, |token| token.role)
    }

    /// Who it is, as audit lines say it.
    pub fn who(&self) -> String {
        if let Some(token) = &self.token {
            return token.name.clone();
        }
        self.certificate().unwrap_or_else(|| "anonymous".to_owned())
    }

    /// Who it is, if that is known: whose flow its work belongs to.
    pub fn identity(&self) -> Option<String> {
        self.is_known()
            .then(|| format!("{} {}", self.known_by(), self.who()))
    }

    /// Whose share of what all callers share it uses: its own if it is known,
    /// else its address's. Peers of a socket file, which have no address, have
    /// no share: the file's permissions say who they are.
    pub fn quota(&self) -> Option<String> {
        let address = || self.peer.map(|peer| format!("address {}", network(peer)));
        self.identity().or_else(address)
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

    /// The id of its request, or nothing.
    pub fn request_id(&self) -> &str {
        self.request_id.as_deref().unwrap_or_default()
    }

    /// Who made a version: the token's name if there is one, whatever the
    /// client says; else what it says.
    pub fn created_by(&self, stated: String) -> String {
        match &self.token {
            Some(token) => token.name.clone(),
            None => stated,
        }
    }

    /// Counts items against the token's rate, if the token is still good: a
    /// stream may last longer than it.
    ///
    /// # Errors
    /// [`AuthError::Rate`], [`AuthError::Burst`]; those of
    /// [`Caller::standing`].
    pub fn items(&self, count: usize) -> Result<(), AuthError> {
        match self.current_token()? {
            Some(token) => token.rates.items(&token.name, count),
            None => Ok(()),
        }
    }

    /// The token as the file has it now.
    fn current_token(&self) -> Result<Option<Arc<Token>>, AuthError> {
        let (Some(shown), Some(authenticator)) = (&self.token, &self.authenticator) else {
            return Ok(None);
        };
        match authenticator.tokens() {
            Some(tokens) => tokens.current(shown, Utc::now()).map(Some),
            None => Ok(None),
        }
    }

    /// Whether the caller still may do what it does: its token is in the file,
    /// has not expired, and has the role that the method needs; its
    /// certificate has neither expired nor been revoked. With `cache`, whether
    /// it may still touch that one; without, everything that it could touch
    /// when it called.
    ///
    /// # Errors
    /// What has changed.
    pub fn standing(&self, cache: Option<&CacheId>) -> Result<(), AuthError> {
        if let (Some(authenticator), Some(certificates)) = (&self.authenticator, &self.certificates)
        {
            authenticator.check_certificates(certificates)?;
        }
        let Some(token) = self.current_token()? else {
            return Ok(());
        };
        if let Some(method) = self.method {
            token.may_call(method)?;
        }
        match cache {
            Some(cache) => token.allows(cache),
            None if self.prefix().starts_with(&token.prefix) => Ok(()),
            None => Err(AuthError::Narrowed {
                name: token.name.clone(),
                prefix: token.prefix.clone(),
            }),
        }
    }

    /// Whether [`Caller::lapse`] could ever come.
    pub fn can_lapse(&self) -> bool {
        self.is_known() && !matches!(self.method.map(|method| method.access), Some(Access::Open))
    }

    /// Waits until the caller may no longer do what it does (see
    /// [`Caller::standing`]); for ever if that never comes. A reload is noticed
    /// at once, and so is the end of a token's time.
    pub async fn lapse(&self, cache: Option<&CacheId>) -> AuthError {
        let Some(authenticator) = self.authenticator.as_ref().filter(|_| self.can_lapse()) else {
            return std::future::pending().await;
        };
        let mut reloads = authenticator.reloads();
        loop {
            reloads.borrow_and_update();
            if let Err(error) = self.standing(cache) {
                tokio::time::sleep(GRACE).await;
                return error;
            }
            let token = self.current_token().ok().flatten();
            let left = token.and_then(|token| token.expires).map_or(RECHECK, |at| {
                // Whole milliseconds: one more, so as not to wake too early.
                let left = at.signed_duration_since(Utc::now()).to_std();
                left.unwrap_or_default() + Duration::from_millis(1)
            });
            tokio::select! {
                changed = reloads.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
                () = tokio::time::sleep(left.min(RECHECK)) => {}
            }
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
        Caller {
            token: Some(token),
            ..Caller::default()
        }
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
