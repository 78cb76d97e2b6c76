//! Opening a store's objects: a local folder, S3, Google Cloud Storage or Azure
//! Blob Storage.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt as _;
use object_store::{
    BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};

use tipserve_api::environment::{variable, variables};

use super::{
    StoreError,
    backend::{Backend, Surroundings, chain},
    wire::{Observed, RequestObserver},
};

impl Backend {
    /// Opens the storage at `url`: a path, `file://`, `s3://`, `gs://` or
    /// `az://`. `settings` overrules what the environment says, by
    /// object_store's own keys ("aws_endpoint").
    pub(crate) async fn open(
        url: &str,
        settings: &[(String, String)],
        surroundings: Surroundings,
    ) -> Result<Self, StoreError> {
        let shown = shown(url);
        let observer = &surroundings.observer;
        let fail = |e: &dyn std::error::Error| StoreError::Open {
            url: shown.clone(),
            detail: chain(e),
        };
        let backend = match url.split_once("://") {
            None => Self::open_folder(url.into(), surroundings).map_err(|e| fail(&e))?,
            Some(("file", path)) => {
                Self::open_folder(path.into(), surroundings).map_err(|e| fail(&e))?
            }
            Some((scheme, rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let objects = open_bucket(scheme, bucket, settings, observer)
                    .ok_or_else(|| StoreError::Open {
                        url: shown.clone(),
                        detail: "a store is a folder, or file://, s3://, gs:// or az:// with \
                                 a bucket"
                            .into(),
                    })?
                    .map_err(|e| fail(&e))?;
                let prefix = Path::parse(prefix.trim_matches('/')).map_err(|e| fail(&e))?;
                let objects: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
                    objects
                } else {
                    Arc::new(PrefixStore::new(objects, prefix))
                };
                // Reports a missing bucket or refused access now, not at the
                // first request.
                let probe = objects.list(Some(&Path::from("caches"))).next().await;
                if let Some(Err(e)) = probe {
                    return Err(fail(&e));
                }
                Self::over(objects, surroundings)
            }
        };
        Ok(backend)
    }

    fn open_folder(path: PathBuf, surroundings: Surroundings) -> Result<Self, object_store::Error> {
        let generic = |e: io::Error| object_store::Error::Generic {
            store: "folder",
            source: format!("{}: {e}", path.display()).into(),
        };
        std::fs::create_dir_all(&path).map_err(generic)?;
        let folder = path.canonicalize().map_err(generic)?;
        if let Some(parent) = folder.parent() {
            // The folder itself must survive too; a parent that cannot be
            // opened is not ours.
            let _ = File::open(parent).and_then(|f| f.sync_all());
        }
        let objects = LocalFileSystem::new_with_prefix(&folder)?
            .with_fsync(true)
            // A deleted cache leaves no empty folders for listings to walk.
            .with_automatic_cleanup(true);
        Ok(Self::in_folder(objects, folder, surroundings))
    }
}

/// The address without anything that could be a secret.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{rest}")
        }
        None => url.to_owned(),
    }
}

/// What `from_env` of a builder reads, without blank variables: an endpoint or
/// a session token that is blank would make every request fail.
macro_rules! from_environment {
    ($builder:ty, $prefix:literal) => {
        variables($prefix).fold(<$builder>::new(), |builder, (name, value)| {
            match name.to_ascii_lowercase().parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            }
        })
    };
}

type Opened = Result<Arc<dyn ObjectStore>, object_store::Error>;

fn open_bucket(
    scheme: &str,
    bucket: &str,
    settings: &[(String, String)],
    observer: &Arc<dyn RequestObserver>,
) -> Option<Opened> {
    if bucket.is_empty() {
        return None;
    }
    // reqwest takes the process's cryptography; another crate may have set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Bounded, so that a bucket that is away is an error within seconds; the
    // caller decides about trying again.
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(15),
    };
    macro_rules! build {
        ($builder:expr) => {{
            let mut builder = $builder
                .with_retry(retry)
                .with_http_connector(Observed(Arc::clone(observer)));
            for (key, value) in settings {
                match key.parse() {
                    Ok(key) => builder = builder.with_config(key, value),
                    Err(e) => return Some(Err(e)),
                }
            }
            Some(builder.build().map(|b| Arc::new(b) as Arc<dyn ObjectStore>))
        }};
    }
    match scheme {
        "s3" | "s3a" => {
            let s3 = from_environment!(AmazonS3Builder, "AWS_");
            build!(s3.with_bucket_name(bucket))
        }
        "gs" => {
            let mut gcs = from_environment!(GoogleCloudStorageBuilder, "GOOGLE_");
            if let Some(path) = variable("SERVICE_ACCOUNT") {
                gcs = gcs.with_service_account_path(path);
            }
            build!(gcs.with_bucket_name(bucket))
        }
        "az" | "azure" => {
            let mut azure = from_environment!(MicrosoftAzureBuilder, "AZURE_");
            if let Some(endpoint) = variable("IDENTITY_ENDPOINT") {
                azure = azure.with_msi_endpoint(endpoint);
            }
            build!(azure.with_container_name(bucket))
        }
        _ => None,
    }
}
