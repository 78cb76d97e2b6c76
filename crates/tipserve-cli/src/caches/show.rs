//! `tipserve caches show`.

use crate::{
    connect::Connection,
    documents::{CacheDocument, VersionDocument},
    failure::Failure,
    report,
    screen::{Screen, table},
};
use tipserve_api::v1::{GetCacheRequest, GetVersionRequest};

/// A cache with its newest version, or one version.
pub async fn show(connection: &Connection, name: &str, screen: &Screen) -> Result<(), Failure> {
    let doing = format!("looking up {name:?}");
    let mut client = connection.caches();
    let is_version = name.contains('@') || name.matches('/').count() > 1;
    if is_version {
        let request = GetVersionRequest {
            name: name.to_owned(),
            read_mask: None,
        };
        let version = connection
            .unary(&doing, client.get_version(request))
            .await?;
        let version = VersionDocument::from(version);
        return if screen.json {
            screen.document(&version)
        } else {
            report::version(screen, &version)
        };
    }
    let request = GetCacheRequest {
        name: name.to_owned(),
        read_mask: None,
    };
    let cache = connection.unary(&doing, client.get_cache(request)).await?;
    let cache = CacheDocument::from(cache);
    if screen.json {
        return screen.document(&cache);
    }
    let rows = vec![
        vec!["cache".into(), cache.cache.clone()],
        vec!["versions".into(), cache.version_count.to_string()],
        vec!["aliases".into(), cache.alias_list()],
        vec!["etag".into(), cache.etag.clone()],
    ];
    screen.line(&table(&[], &[], rows))?;
    match &cache.latest {
        Some(version) => report::version(screen, version),
        None => Ok(()),
    }
}
