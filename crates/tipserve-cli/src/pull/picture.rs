//! Pictures at addresses, as lists of pictures name them.

use reqwest::Url;

use super::{PullError, bucket::Bucket, download::Downloader};

/// Reads pictures at `https://`, `http://` and `s3://` addresses.
pub(crate) struct PictureReader {
    downloader: Downloader,
}

/// Whether an address is of a kind that is read.
pub(crate) fn is_readable(address: &str) -> bool {
    let scheme = address.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        let known = ["https", "http", "s3"];
        known.iter().any(|one| scheme.eq_ignore_ascii_case(one))
    })
}

impl PictureReader {
    /// One that goes through the system's proxies and trusts its certificates.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Self, PullError> {
        Ok(Self {
            downloader: Downloader::new()?,
        })
    }

    /// The bytes at an address, at most `most` of them; a server that refuses for now is asked
    /// again.
    ///
    /// # Errors
    /// It cannot be fetched, or is larger.
    pub async fn read(&self, address: &str, most: u64) -> Result<Vec<u8>, PullError> {
        let url = match address.split_once("://") {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("s3") => {
                let (folder, name) = path.rsplit_once('/').unwrap_or((path, ""));
                Bucket::open(folder, address)?.url(name, address).await?
            }
            _ => Url::parse(address).map_err(|error| PullError::Bucket {
                given: address.to_owned(),
                problem: error.to_string(),
            })?,
        };
        self.downloader.read(&url, most).await
    }
}
