//! Where a bundle's files are.

use std::fmt;

use reqwest::Url;
use tipserve_api::environment::variable;

use super::{PullError, bucket::Bucket, local::is_local};

/// Hugging Face's hub, unless `HF_ENDPOINT` names another.
const HUB: &str = "https://huggingface.co";

/// A folder that holds a bundle, on the web or in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// The address as it was given, for messages.
    given: String,
    folder: Folder,
}

#[derive(Clone, Debug)]
enum Folder {
    /// Its URL, which ends in a slash.
    Web(Url),
    /// In S3 or a compatible store.
    Bucket(Bucket),
}

impl Address {
    /// Reads `https://…`, `http://…` (only on this machine), `hf://…` or
    /// `s3://…`.
    ///
    /// # Errors
    /// [`PullError::Address`].
    pub fn parse(given: &str) -> Result<Address, PullError> {
        let hub = variable("HF_ENDPOINT");
        Address::parse_with(given, hub.as_deref().unwrap_or(HUB))
    }

    fn parse_with(given: &str, hub: &str) -> Result<Address, PullError> {
        let wrong = |problem| PullError::Address {
            given: given.to_owned(),
            problem,
        };
        let text = given.strip_suffix("/bundle.toml").unwrap_or(given);
        if let Some(path) = text.strip_prefix("s3://") {
            return Ok(Address {
                given: given.to_owned(),
                folder: Folder::Bucket(Bucket::open(path, given)?),
            });
        }
        let text = match given.strip_prefix("hf://") {
            Some(path) => on_hub(path, hub)
                .ok_or_else(|| wrong("Hugging Face's are hf://ORG/NAME[/FOLDER][@REVISION]"))?,
            None => text.to_owned(),
        };
        let url = format!("{}/", text.trim_end_matches('/'));
        let folder = Url::parse(&url).map_err(|_| wrong("it is no URL"))?;
        match folder.scheme() {
            "https" => {}
            // Hashes would tell; what is fetched would still be seen by others.
            "http" if is_local(&folder) => {}
            "http" => return Err(wrong("http:// is taken of this machine only; use https://")),
            _ => return Err(wrong("it is none of https://, hf:// and s3://")),
        }
        if folder.query().is_some() || folder.fragment().is_some() {
            return Err(wrong("a folder has neither '?' nor '#'"));
        }
        let given = match folder.username().is_empty() && folder.password().is_none() {
            true => given.to_owned(),
            false => shown(&folder),
        };
        Ok(Address {
            given,
            folder: Folder::Web(folder),
        })
    }

    /// The URL of one of its files; the caller has checked the file's name.
    ///
    /// # Errors
    /// A bucket for which no request can be signed.
    pub async fn file(&self, name: &str) -> Result<Url, PullError> {
        match &self.folder {
            Folder::Web(folder) => Ok(folder.join(name).unwrap_or_else(|_| folder.clone())),
            Folder::Bucket(bucket) => bucket.url(name, &self.given).await,
        }
    }
}

/// A URL for messages: without a password, and without a signature.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // Only a URL without a host refuses these, and it has none to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

/// `ORG/NAME[/FOLDER][@REVISION]` as a folder of the hub.
fn on_hub(path: &str, hub: &str) -> Option<String> {
    let (path, revision) = path.split_once('@').unwrap_or((path, "main"));
    let plain = |part: &str| {
        let mut characters = part.chars();
        !part.is_empty()
            && !part.starts_with('.')
            && characters.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let [organisation, name, folder @ ..] = parts.as_slice() else {
        return None;
    };
    if !parts.iter().all(|part| plain(part)) || !revision.split('/').all(plain) {
        return None;
    }
    let folder: String = folder.iter().map(|part| format!("/{part}")).collect();
    let revision = revision.replace('/', "%2F");
    let hub = hub.trim_end_matches('/');
    Some(format!(
        "{hub}/{organisation}/{name}/resolve/{revision}{folder}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(given: &str) -> Result<String, String> {
        Address::parse_with(given, HUB)
            .and_then(|address| futures::executor::block_on(address.file("image.pt")))
            .map(|url| url.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_folders() {
        for (given, expected) in [
            ("https://a.org/m/vit", "https://a.org/m/vit/image.pt"),
            ("https://a.org/m/vit/", "https://a.org/m/vit/image.pt"),
            (
                "https://a.org/vit/bundle.toml",
                "https://a.org/vit/image.pt",
            ),
            ("http://127.0.0.1:80/x", "http://127.0.0.1/x/image.pt"),
            (
                "hf://o/n",
                "https://huggingface.co/o/n/resolve/main/image.pt",
            ),
            (
                "hf://o/n/sub@refs/pr/1",
                "https://huggingface.co/o/n/resolve/refs%2Fpr%2F1/sub/image.pt",
            ),
        ] {
            assert_eq!(file(given).as_deref(), Ok(expected), "{given}");
        }
        for (given, words) in [
            ("http://a.org/x", "use https://"),
            ("ftp://a.org/x", "none of https://"),
            ("s3://", "s3://BUCKET/FOLDER"),
            ("hf://o", "hf://ORG/NAME"),
            ("hf://o/../n", "hf://ORG/NAME"),
            ("https://a.org/x?y", "neither '?' nor '#'"),
            ("https://", "no URL"),
        ] {
            let error = file(given).expect_err(given);
            assert!(error.contains(words), "{given}: {error}");
        }
    }

    #[test]
    fn a_password_is_used_and_not_shown() {
        let address = Address::parse_with("https://me:secret@a.org/vit", HUB).expect("an address");
        assert_eq!(address.to_string(), "https://a.org/vit/");
        let file = futures::executor::block_on(address.file("image.pt")).expect("a file");
        assert_eq!(file.password(), Some("secret"));
        assert_eq!(shown(&file), "https://a.org/vit/image.pt");
    }
}
