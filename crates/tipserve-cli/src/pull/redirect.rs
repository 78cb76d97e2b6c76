//! Where an answer may lead: never from TLS to where there is none.

use reqwest::{Url, redirect::Policy};

use super::local::is_local;

/// Most redirects that are followed, one after the other.
const MOST: usize = 10;

/// Follows redirects as long as others can see no more of them than before.
pub(super) fn policy() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last();
        if attempt.previous().len() > MOST {
            attempt.error(format!("over {MOST} redirects, one after the other"))
        } else if from.is_some_and(|from| !keeps_to_itself(from, attempt.url())) {
            let to = super::address::shown(attempt.url());
            attempt.error(format!("it leads to {to}, which has no TLS"))
        } else {
            attempt.follow()
        }
    })
}

/// Whether a redirect goes to TLS, stays on this machine, or had no TLS anyway.
fn keeps_to_itself(from: &Url, to: &Url) -> bool {
    let plain = to.scheme() == "http" && from.scheme() == "http";
    to.scheme() == "https" || plain && (is_local(to) || !is_local(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_never_left() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        for (from, to, follows) in [
            ("https://a.org/x", "https://b.org/x", true),
            ("https://a.org/x", "http://a.org/x", false),
            ("https://a.org/x", "http://127.0.0.1/x", false),
            ("http://127.0.0.1/x", "http://127.0.0.1:81/x", true),
            ("http://127.0.0.1/x", "https://a.org/x", true),
            ("http://127.0.0.1/x", "http://a.org/x", false),
            ("http://a.org/x", "http://b.org/x", true),
            ("https://a.org/x", "ftp://a.org/x", false),
        ] {
            assert_eq!(
                keeps_to_itself(&url(from), &url(to)),
                follows,
                "{from} {to}"
            );
        }
    }
}
