//! Buckets of S3 and compatible stores: files are fetched by presigned URLs, so
//! that ranges, resuming and limits work as for HTTPS.

use std::time::Duration;

use object_store::{
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::{Method, Signer as _},
};
use reqwest::Url;
use tipserve_api::environment::{variable, variables};

use super::{PullError, download::use_ring, local::is_local};

/// How long a URL is valid: longer than a large file takes over a slow
/// connection.
const SIGNED_FOR: Duration = Duration::from_secs(12 * 60 * 60);

/// A folder in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    access: Access,
    folder: Path,
}

#[derive(Clone, Debug)]
enum Access {
    /// Signed with the environment's keys.
    Signed(Box<AmazonS3>),
    /// Unsigned (`AWS_SKIP_SIGNATURE`): the public bucket's own URL.
    Public(Url),
}

impl Bucket {
    /// `BUCKET/FOLDER`; endpoint, region and keys come from the environment,
    /// under the names that the server's store reads.
    ///
    /// # Errors
    /// A missing bucket, or an invalid environment.
    pub fn open(path: &str, given: &str) -> Result<Bucket, PullError> {
        let wrong = |problem: &str| PullError::Bucket {
            given: given.to_owned(),
            problem: problem.to_owned(),
        };
        let (bucket, folder) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(wrong("expected s3://BUCKET/FOLDER"));
        }
        let folder =
            Path::parse(folder.trim_end_matches('/')).map_err(|error| wrong(&error.to_string()))?;
        let access = if is_set("AWS_SKIP_SIGNATURE") {
            let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
            let endpoint = endpoint.into_iter().find_map(variable);
            let url = match endpoint {
                Some(endpoint) => format!("{}/{bucket}/", endpoint.trim_end_matches('/')),
                None => format!("https://{bucket}.s3.amazonaws.com/"),
            };
            let url = Url::parse(&url).map_err(|_| wrong("the endpoint is no URL"))?;
            Access::Public(url)
        } else {
            use_ring();
            // As the store does it.
            let s3 = variables("AWS_").fold(AmazonS3Builder::new(), |s3, (name, value)| match name
                .to_ascii_lowercase()
                .parse()
            {
                Ok(key) => s3.with_config(key, value),
                Err(_) => s3,
            });
            let built = s3.with_bucket_name(bucket).build();
            Access::Signed(Box::new(built.map_err(|error| wrong(&error.to_string()))?))
        };
        Ok(Bucket { access, folder })
    }

    /// The URL of a file in it.
    ///
    /// # Errors
    /// Missing keys, or an endpoint without TLS, which must not see a
    /// signature.
    pub async fn url(&self, name: &str, given: &str) -> Result<Url, PullError> {
        let wrong = |problem: String| PullError::Bucket {
            given: given.to_owned(),
            problem,
        };
        let path = self.folder.clone().join(name);
        let url = match &self.access {
            Access::Public(bucket) => bucket
                .join(path.as_ref())
                .map_err(|error| wrong(error.to_string()))?,
            Access::Signed(s3) => s3
                .signed_url(Method::GET, &path, SIGNED_FOR)
                .await
                .map_err(|error| {
                    wrong(format!(
                        "{error}; keys are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                         for a public bucket set AWS_SKIP_SIGNATURE=true"
                    ))
                })?,
        };
        match url.scheme() {
            "https" => Ok(url),
            "http" if is_local(&url) || is_set("AWS_ALLOW_HTTP") => Ok(url),
            _ => Err(wrong(
                "its endpoint is not https://; AWS_ALLOW_HTTP=true takes it all the same"
                    .to_owned(),
            )),
        }
    }
}

fn is_set(name: &str) -> bool {
    variable(name).is_some_and(|value| matches!(&*value, "1" | "true" | "TRUE" | "True"))
}
