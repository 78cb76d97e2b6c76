//! `tipserve caches …`: caches, their versions and aliases.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Subcommand;
use serde::Serialize;

use super::{
    Global,
    connect::Connection,
    documents::{CacheDocument, VersionDocument},
    failure::{Failure, Outcome},
    report,
    screen::{Screen, bytes, table},
};
use crate::proto::v1::{
    DeleteAliasRequest, DeleteCacheRequest, GetCacheRequest, GetVersionRequest, ListCachesRequest,
    ListVersionsRequest, SetAliasRequest,
};

/// How many caches or versions a call asks for.
const PAGE: i32 = 100;

/// `tipserve caches …`.
#[derive(Clone, Debug, Subcommand)]
pub enum CachesCommand {
    /// List all caches.
    List,
    /// Show a version in full: classes, head, and how it was chosen.
    Show {
        /// CACHE (its newest version and its aliases), CACHE@VERSION or
        /// CACHE@ALIAS.
        #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
        cache: String,
    },
    /// List a cache's versions, newest first.
    Versions {
        /// The cache.
        cache: String,
    },
    /// Delete a cache with all its versions and aliases.
    Delete {
        /// The cache.
        cache: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Point an alias at a version.
    Alias {
        /// The cache.
        cache: String,
        /// The alias: "stable".
        alias: String,
        /// The version's number.
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        version: i64,
    },
    /// Remove an alias. Its version stays.
    Unalias {
        /// The cache.
        cache: String,
        /// The alias.
        alias: String,
    },
}

#[derive(Serialize)]
struct CachesDocument {
    caches: Vec<CacheDocument>,
}

#[derive(Serialize)]
struct VersionsDocument {
    versions: Vec<VersionDocument>,
}

#[derive(Serialize)]
struct DeletedDocument {
    deleted: String,
}

/// Runs `tipserve caches …`.
pub async fn run(
    command: CachesCommand,
    global: &Global,
    screen: &Screen,
) -> Result<Outcome, Failure> {
    if let CachesCommand::Delete { cache, yes: false } = &command {
        confirm(cache)?;
    }
    let connection = Connection::open(&global.server).await?;
    let mut caches = connection.caches();
    match command {
        CachesCommand::List => list(&connection, screen).await?,
        CachesCommand::Show { cache } => show(&connection, &cache, screen).await?,
        CachesCommand::Versions { cache } => versions(&connection, &cache, screen).await?,
        CachesCommand::Delete { cache, .. } => {
            let answer = caches
                .delete_cache(DeleteCacheRequest {
                    name: cache.clone(),
                    ..Default::default()
                })
                .await;
            answer.map_err(|status| connection.failure(&format!("deleting {cache:?}"), status))?;
            if screen.json {
                screen.document(&DeletedDocument { deleted: cache })?;
            } else {
                screen.line(&format!("deleted {cache}"))?;
            }
        }
        CachesCommand::Alias {
            cache,
            alias,
            version,
        } => {
            let doing = format!("pointing {cache}@{alias} at version {version}");
            let answer = caches
                .set_alias(SetAliasRequest {
                    cache,
                    alias,
                    version,
                    ..Default::default()
                })
                .await;
            let answer = answer.map_err(|status| connection.failure(&doing, status))?;
            aliases(screen, answer.into_inner().into())?;
        }
        CachesCommand::Unalias { cache, alias } => {
            let doing = format!("removing the alias {cache}@{alias}");
            let answer = caches
                .delete_alias(DeleteAliasRequest {
                    cache,
                    alias,
                    ..Default::default()
                })
                .await;
            let answer = answer.map_err(|status| connection.failure(&doing, status))?;
            aliases(screen, answer.into_inner().into())?;
        }
    }
    Ok(Outcome::Done)
}

async fn list(connection: &Connection, screen: &Screen) -> Result<(), Failure> {
    let mut caches: Vec<CacheDocument> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListCachesRequest {
            page_size: PAGE,
            page_token,
            read_mask: None,
            ..Default::default()
        };
        let page = connection.caches().list_caches(request).await;
        let page = page
            .map_err(|status| connection.failure("listing caches", status))?
            .into_inner();
        caches.extend(page.caches.into_iter().map(CacheDocument::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if screen.json {
        return screen.document(&CachesDocument { caches });
    }
    if caches.is_empty() {
        screen.note("there are no caches; make one with tipserve create CACHE --from DIR");
        return Ok(());
    }
    let rows = caches
        .iter()
        .map(|cache| {
            let latest = cache.latest.as_ref();
            let of =
                |text: &dyn Fn(&VersionDocument) -> String| latest.map(text).unwrap_or_default();
            vec![
                cache.cache.clone(),
                of(&|it| it.version.to_string()),
                of(&|it| it.classes.len().to_string()),
                of(&|it| it.key_count.to_string()),
                of(&|it| {
                    it.head
                        .as_ref()
                        .map_or_else(String::new, |head| head.method.clone())
                }),
                of(&|it| bytes(it.size_bytes)),
                of(&|it| it.create_time.clone().unwrap_or_default()),
                alias_list(cache),
            ]
        })
        .collect();
    let headers = [
        "cache", "latest", "classes", "keys", "method", "size", "made", "aliases",
    ];
    screen.line(&table(&headers, &[1, 2, 3, 5], rows))
}

async fn show(connection: &Connection, name: &str, screen: &Screen) -> Result<(), Failure> {
    let failed = |status| connection.failure(&format!("looking up {name:?}"), status);
    let is_version = name.contains('@') || name.matches('/').count() > 1;
    if is_version {
        let request = GetVersionRequest {
            name: name.to_owned(),
            read_mask: None,
        };
        let version = connection
            .caches()
            .get_version(request)
            .await
            .map_err(failed)?;
        let version = VersionDocument::from(version.into_inner());
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
    let cache = connection
        .caches()
        .get_cache(request)
        .await
        .map_err(failed)?;
    let cache = CacheDocument::from(cache.into_inner());
    if screen.json {
        return screen.document(&cache);
    }
    let rows = vec![
        vec!["cache".into(), cache.cache.clone()],
        vec!["versions".into(), cache.version_count.to_string()],
        vec!["aliases".into(), alias_list(&cache)],
    ];
    screen.line(&table(&[], &[], rows))?;
    match &cache.latest {
        Some(version) => report::version(screen, version),
        None => Ok(()),
    }
}

async fn versions(connection: &Connection, cache: &str, screen: &Screen) -> Result<(), Failure> {
    let failed = |status| connection.failure(&format!("listing the versions of {cache:?}"), status);
    let mut versions: Vec<VersionDocument> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListVersionsRequest {
            parent: cache.to_owned(),
            page_size: PAGE,
            page_token,
            read_mask: None,
        };
        let page = connection
            .caches()
            .list_versions(request)
            .await
            .map_err(failed)?
            .into_inner();
        versions.extend(page.versions.into_iter().map(VersionDocument::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if screen.json {
        return screen.document(&VersionsDocument { versions });
    }
    let rows = versions
        .iter()
        .map(|version| {
            vec![
                version.version.to_string(),
                version
                    .head
                    .as_ref()
                    .map(report::numbers)
                    .unwrap_or_default(),
                version.key_count.to_string(),
                bytes(version.size_bytes),
                version.create_time.clone().unwrap_or_default(),
                version.parent.clone().unwrap_or_default(),
                version.description.clone(),
            ]
        })
        .collect();
    let headers = [
        "version",
        "head",
        "keys",
        "size",
        "made",
        "parent",
        "description",
    ];
    screen.line(&table(&headers, &[0, 2, 3], rows))
}

fn aliases(screen: &Screen, cache: CacheDocument) -> Result<(), Failure> {
    if screen.json {
        return screen.document(&cache);
    }
    let list = alias_list(&cache);
    screen.line(&format!(
        "{}: {}",
        cache.cache,
        if list.is_empty() { "no aliases" } else { &list }
    ))
}

fn alias_list(cache: &CacheDocument) -> String {
    let aliases = cache
        .aliases
        .iter()
        .map(|(alias, version)| format!("{alias} → {version}"));
    aliases.collect::<Vec<_>>().join(", ")
}

/// Asks before deleting; where nobody can be asked, --yes must say so.
fn confirm(cache: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(format!(
            "deleting {cache:?} with all its versions cannot be undone; say --yes"
        )));
    }
    let _ = write!(
        io::stderr(),
        "delete {cache} with all its versions and aliases? [y/N] "
    );
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Input(format!("{cache} was not deleted"))),
    }
}
