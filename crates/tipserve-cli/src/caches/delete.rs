//! `tipserve caches delete` and `prune`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::{about::ConditionArgs, connect::Connection, failure::Failure, screen::Screen};
use tipserve_api::v1::{DeleteCacheRequest, DeleteVersionRequest, PruneVersionsRequest};

#[derive(Serialize)]
struct DeletedDocument {
    deleted: String,
}

#[derive(Serialize)]
struct PrunedDocument {
    cache: String,
    deleted_versions: Vec<i64>,
    dry_run: bool,
}

/// Whether this names a version, as opposed to a cache.
fn is_version(name: &str) -> bool {
    name.contains('@') || name.contains("/versions/")
}

/// Refuses a version that is not named by its number, and asks for
/// confirmation; without a terminal to ask on, `yes` must say so.
pub fn check(name: &str, yes: bool) -> Result<(), Failure> {
    if let Some((cache, version)) = name.split_once('@')
        && version.parse::<u64>().is_err()
    {
        return Err(Failure::Usage(format!(
            "{name:?} names no version by its number: {cache}@7 deletes version 7, and \
             `tipserve caches unalias` removes an alias"
        )));
    }
    if yes {
        return Ok(());
    }
    let whole = if is_version(name) {
        ""
    } else {
        " with all its versions and aliases"
    };
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(format!(
            "deleting {name:?}{whole} cannot be undone; say --yes"
        )));
    }
    let _ = write!(io::stderr(), "delete {name}{whole}? [y/N] ");
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Input(format!("{name} was not deleted"))),
    }
}

/// Deletes a cache, or one version.
pub async fn delete(
    connection: &Connection,
    name: String,
    condition: ConditionArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    let etag = condition.if_etag;
    let mut caches = connection.caches();
    let doing = format!("deleting {name:?}");
    if is_version(&name) {
        let name = name.clone();
        let call = caches.delete_version(DeleteVersionRequest { name, etag });
        connection.change(&doing, call).await?;
    } else {
        let name = name.clone();
        let call = caches.delete_cache(DeleteCacheRequest { name, etag });
        connection.change(&doing, call).await?;
    }
    if screen.json {
        return screen.document(&DeletedDocument { deleted: name });
    }
    screen.line(&format!("deleted {name}"))
}

/// Deletes the older versions of a cache.
pub async fn prune(
    connection: &Connection,
    cache: String,
    keep: i32,
    dry_run: bool,
    condition: ConditionArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    let request = PruneVersionsRequest {
        name: cache.clone(),
        keep,
        validate_only: dry_run,
        etag: condition.if_etag,
    };
    let mut client = connection.caches();
    let pruned = connection
        .change(
            &format!("pruning {cache:?}"),
            client.prune_versions(request),
        )
        .await?;
    let deleted_versions = pruned.deleted_versions;
    if screen.json {
        return screen.document(&PrunedDocument {
            cache,
            deleted_versions,
            dry_run,
        });
    }
    let numbers: Vec<_> = deleted_versions.iter().map(ToString::to_string).collect();
    let would = if dry_run { "would delete" } else { "deleted" };
    screen.line(&match numbers.len() {
        0 => format!("{cache}: nothing to delete"),
        1 => format!("{cache}: {would} version {}", numbers.concat()),
        count => format!("{cache}: {would} {count} versions: {}", numbers.join(", ")),
    })
}
