//! Lists that come page by page.

use crate::{connect::Connection, failure::Failure};
use tipserve_api::v1::{ListVersionsRequest, Version};

/// How many caches or versions a call asks for.
pub(super) const PAGE: i32 = 100;

/// Goes through a cache's versions, newest first, until `take` says that it is
/// enough. `fields` names those to return; default: all.
pub(super) async fn each_version(
    connection: &Connection,
    cache: &str,
    fields: Option<&[&str]>,
    mut take: impl FnMut(Version) -> bool,
) -> Result<(), Failure> {
    let doing = format!("listing the versions of {cache:?}");
    let mut client = connection.caches();
    let mut page_token = String::new();
    loop {
        let request = ListVersionsRequest {
            parent: cache.to_owned(),
            page_size: PAGE,
            page_token,
            read_mask: fields.map(|fields| prost_types::FieldMask {
                paths: fields.iter().map(|field| (*field).to_owned()).collect(),
            }),
        };
        let page = connection
            .unary(&doing, client.list_versions(request))
            .await?;
        for version in page.versions {
            if !take(version) {
                return Ok(());
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}
