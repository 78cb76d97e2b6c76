//! Where a bundle's files are.

use std::fmt;

use reqwest::Url;

use super::PullError;

/// Hugging Face's hub, unless `HF_ENDPOINT` names another.
const HUB: &str = "https://huggingface.co";

/// A folder on the web that holds a bundle.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    /// The address as it was given, for messages.
    given: String,
    /// The folder's URL, which ends in a slash.
    folder: Url,
}

impl Address {
    /// Reads `https://…`, `http://…` (this machine alone) or `hf://…`.
    ///
    /// # Errors
    /// [`PullError::Address`].
    pub fn parse(given: &str) -> Result<Address, PullError> {
        let hub = std::env::var("HF_ENDPOINT").ok();
        let hub = hub.as_deref().map(str::trim).filter(|hub| !hub.is_empty());
        Address::parse_with(given, hub.unwrap_or(HUB))
    }

    fn parse_with(given: &str, hub: &str) -> Result<Address, PullError> {
        let wrong = |problem| PullError::Address {
            given: given.to_owned(),
            problem,
        };
        let text = match given.strip_prefix("hf://") {
            Some(path) => on_hub(path, hub)
                .ok_or_else(|| wrong("Hugging Face's are hf://ORG/NAME[/FOLDER][@REVISION]"))?,
            None => given
                .strip_suffix("/bundle.toml")
                .unwrap_or(given)
                .to_owned(),
        };
        let url = format!("{}/", text.trim_end_matches('/'));
        let folder = Url::parse(&url).map_err(|_| wrong("it is no URL"))?;
        let local = matches!(folder.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        match folder.scheme() {
            "https" => {}
            // Hashes would tell; what is fetched would still be seen by others.
            "http" if local => {}
            "http" => return Err(wrong("http:// is taken of this machine only; use https://")),
            _ => return Err(wrong("it is neither https:// nor hf://")),
        }
        if folder.query().is_some() || folder.fragment().is_some() {
            return Err(wrong("a folder has neither '?' nor '#'"));
        }
        Ok(Address {
            given: given.to_owned(),
            folder,
        })
    }

    /// The address of a file in it, whose name has been checked.
    pub fn file(&self, name: &str) -> Url {
        self.folder
            .join(name)
            .unwrap_or_else(|_| self.folder.clone())
    }
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
            .map(|address| address.file("image.pt").to_string())
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
            ("ftp://a.org/x", "neither https:// nor hf://"),
            ("hf://o", "hf://ORG/NAME"),
            ("hf://o/../n", "hf://ORG/NAME"),
            ("https://a.org/x?y", "neither '?' nor '#'"),
            ("https://", "no URL"),
        ] {
            let error = file(given).expect_err(given);
            assert!(error.contains(words), "{given}: {error}");
        }
    }
}
