//! `tipserve caches list`, `versions` and `examples`.

use serde::Serialize;

use super::pages::{PAGE, each_version};
use crate::{
    connect::Connection,
    documents::{CacheDocument, ExampleDocument, VersionDocument},
    failure::Failure,
    report,
    screen::{Screen, bytes, table},
};
use tipserve_api::v1::{ListCachesRequest, ListExamplesRequest};

/// How many examples a call asks for.
const EXAMPLES_PAGE: i32 = 10_000;

#[derive(Serialize)]
struct CachesDocument {
    caches: Vec<CacheDocument>,
}

#[derive(Serialize)]
struct VersionsDocument {
    versions: Vec<VersionDocument>,
}

#[derive(Serialize)]
struct ExamplesDocument {
    examples: Vec<ExampleDocument>,
}

/// All caches that match the filter.
pub async fn caches(
    connection: &Connection,
    filter: String,
    screen: &Screen,
) -> Result<(), Failure> {
    let mut caches: Vec<CacheDocument> = Vec::new();
    let mut client = connection.caches();
    let mut page_token = String::new();
    loop {
        let request = ListCachesRequest {
            page_size: PAGE,
            page_token,
            read_mask: None,
            filter: filter.clone(),
        };
        let page = connection
            .unary("listing caches", client.list_caches(request))
            .await?;
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
        screen.note(if filter.is_empty() {
            "there are no caches; make one with: tipserve create CACHE --from DIR"
        } else {
            "no cache matches the filter"
        });
        return Ok(());
    }
    screen.line(&cache_table(&caches))
}

fn cache_table(caches: &[CacheDocument]) -> String {
    let rows = caches
        .iter()
        .map(|cache| {
            let latest = cache.latest.as_ref();
            let of =
                |text: &dyn Fn(&VersionDocument) -> String| latest.map(text).unwrap_or_default();
            vec![
                cache.cache.clone(),
                of(&|it| it.version.to_string()),
                of(&|it| it.class_count.to_string()),
                of(&|it| it.key_count.to_string()),
                of(&|it| {
                    it.head
                        .as_ref()
                        .map_or_else(String::new, |head| head.method.clone())
                }),
                of(&|it| bytes(it.size_bytes)),
                of(&|it| it.create_time.clone().unwrap_or_default()),
                cache.alias_list(),
            ]
        })
        .collect();
    let headers = [
        "cache", "latest", "classes", "keys", "method", "size", "made", "aliases",
    ];
    table(&headers, &[1, 2, 3, 5], rows)
}

/// A cache's versions, newest first.
pub async fn versions(
    connection: &Connection,
    cache: &str,
    screen: &Screen,
) -> Result<(), Failure> {
    let mut versions: Vec<VersionDocument> = Vec::new();
    each_version(connection, cache, None, |version| {
        versions.push(version.into());
        true
    })
    .await?;
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
                version.created_by.clone(),
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
        "by",
        "parent",
        "description",
    ];
    screen.line(&table(&headers, &[0, 2, 3], rows))
}

/// A version's examples. As text they are written page by page.
pub async fn examples(
    connection: &Connection,
    name: &str,
    filter: String,
    screen: &Screen,
) -> Result<(), Failure> {
    let doing = format!("listing the examples of {name:?}");
    let mut client = connection.caches();
    let mut all: Vec<ExampleDocument> = Vec::new();
    let mut page_token = String::new();
    let mut first = true;
    loop {
        let request = ListExamplesRequest {
            parent: name.to_owned(),
            page_size: EXAMPLES_PAGE,
            page_token,
            filter: filter.clone(),
        };
        let page = connection
            .unary(&doing, client.list_examples(request))
            .await?;
        all.extend(page.examples.into_iter().map(ExampleDocument::from));
        page_token = page.next_page_token;
        if !screen.json {
            lines(screen, &mut all, first)?;
            first = false;
        }
        if page_token.is_empty() {
            break;
        }
    }
    if screen.json {
        return screen.document(&ExamplesDocument { examples: all });
    }
    Ok(())
}

fn lines(screen: &Screen, page: &mut Vec<ExampleDocument>, first: bool) -> Result<(), Failure> {
    if page.is_empty() {
        if first {
            screen.note("no example matches");
        }
        return Ok(());
    }
    let rows = page
        .drain(..)
        .map(|example| {
            let (index, class) = match example.unknown {
                true => ("-".to_owned(), "(none)".to_owned()),
                false => (example.class_index.to_string(), example.display_name),
            };
            vec![
                index,
                class,
                if example.validation { "yes" } else { "" }.to_owned(),
                example.example_id,
            ]
        })
        .collect();
    let headers: &[&str] = if first {
        &["index", "class", "validation", "example"]
    } else {
        &[]
    };
    screen.line(&table(headers, &[0], rows))
}
