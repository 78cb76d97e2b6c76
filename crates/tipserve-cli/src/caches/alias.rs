//! `tipserve caches alias`, `unalias` and `rollback`.

use super::pages::each_version;
use crate::{
    about::ConditionArgs, connect::Connection, documents::CacheDocument, failure::Failure,
    screen::Screen,
};
use tipserve_api::v1::{DeleteAliasRequest, GetCacheRequest, SetAliasRequest};

/// Points an alias at a version.
pub async fn set(
    connection: &Connection,
    cache: String,
    alias: String,
    version: i64,
    condition: ConditionArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    let doing = format!("pointing {cache}@{alias} at version {version}");
    let request = SetAliasRequest {
        cache,
        alias,
        version,
        etag: condition.if_etag,
    };
    let mut client = connection.caches();
    let cache = connection.change(&doing, client.set_alias(request)).await?;
    aliases(screen, &cache.into())
}

/// Removes an alias.
pub async fn remove(
    connection: &Connection,
    cache: String,
    alias: String,
    condition: ConditionArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    let doing = format!("removing the alias {cache}@{alias}");
    let request = DeleteAliasRequest {
        cache,
        alias,
        etag: condition.if_etag,
    };
    let mut client = connection.caches();
    let cache = connection
        .change(&doing, client.delete_alias(request))
        .await?;
    aliases(screen, &cache.into())
}

/// Points an alias at the version before the one that it points at, unless the
/// cache changes meanwhile.
pub async fn roll_back(
    connection: &Connection,
    cache: String,
    alias: String,
    condition: ConditionArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    let doing = format!("rolling back {cache}@{alias}");
    let mut client = connection.caches();
    let request = GetCacheRequest {
        name: cache.clone(),
        read_mask: None,
    };
    let before = connection.unary(&doing, client.get_cache(request)).await?;
    let before = CacheDocument::from(before);
    let Some(now) = before.aliases.get(&alias).copied() else {
        let known = before.alias_list();
        let known = if known.is_empty() {
            "no aliases"
        } else {
            &known
        };
        return Err(Failure::NotFound(format!(
            "{doing}: there is no such alias ({known})"
        )));
    };
    let mut earlier = None;
    each_version(connection, &cache, Some(&["version"]), |version| {
        if version.version < now {
            earlier = Some(version.version);
        }
        earlier.is_none()
    })
    .await?;
    let Some(earlier) = earlier else {
        return Err(Failure::Input(format!(
            "{doing}: it points at version {now}, and there is none before that"
        )));
    };
    let etag = Some(condition.if_etag)
        .filter(|etag| !etag.is_empty())
        .unwrap_or(before.etag);
    let request = SetAliasRequest {
        cache,
        alias: alias.clone(),
        version: earlier,
        etag,
    };
    let after = connection.change(&doing, client.set_alias(request)).await?;
    let after = CacheDocument::from(after);
    if screen.json {
        return screen.document(&after);
    }
    screen.line(&format!("{}@{alias}: {now} → {earlier}", after.cache))
}

fn aliases(screen: &Screen, cache: &CacheDocument) -> Result<(), Failure> {
    if screen.json {
        return screen.document(cache);
    }
    let list = cache.alias_list();
    screen.line(&format!(
        "{}: {}",
        cache.cache,
        if list.is_empty() { "no aliases" } else { &list }
    ))
}
