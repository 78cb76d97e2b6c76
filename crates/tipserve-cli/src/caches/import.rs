//! `tipserve caches import`: a version of an exported file.

use std::path::Path;

use bytes::BytesMut;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::{fs::File, io::AsyncReadExt as _};

use crate::{
    batch::Fed,
    connect::Connection,
    documents::VersionDocument,
    failure::Failure,
    files,
    making::whole,
    report,
    requests::{self, Requests},
    screen::Screen,
};
use tipserve_api::v1::{ImportSpec, ImportVersionRequest, import_version_request::Payload};

/// Bytes of the file in one message, where the server takes so large ones.
const CHUNK: usize = 1 << 20;

/// Where an import goes.
#[derive(Debug)]
pub struct Whither {
    /// The cache that gets the version.
    pub cache: String,
    /// Whether to take what another bundle made.
    pub allow_other_bundle: bool,
    /// The etag that the cache must have; empty: whichever.
    pub etag: String,
}

/// What `--json` prints.
#[derive(Serialize)]
struct ImportedDocument {
    version: VersionDocument,
    file: String,
    size_bytes: u64,
}

/// Makes a version of the file.
pub async fn import(
    connection: &Connection,
    path: &Path,
    whither: Whither,
    screen: &Screen,
) -> Result<(), Failure> {
    let found = files::existing(path, "FILE")?;
    if !found.is_file() {
        return Err(Failure::Input(format!(
            "{} is no regular file; its size must be known beforehand",
            path.display()
        )));
    }
    let file = File::open(path)
        .await
        .map_err(|error| unreadable(path, &error))?;
    let size = found.len();
    let limit = connection.message_limit().await?;
    let doing = format!("importing {} into {:?}", path.display(), whither.cache);
    let bar = screen.byte_bar();
    bar.set_length(size);
    let (requests, stream) = requests::channel();
    let spec = ImportSpec {
        cache_id: whither.cache,
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        allow_other_bundle: whither.allow_other_bundle,
        etag: whither.etag,
    };
    let spec = Payload::Spec(spec);
    requests
        .send(ImportVersionRequest {
            payload: Some(spec),
        })
        .await;
    let chunk = CHUNK.min((limit / 2).max(1));
    let path_there = path.to_owned();
    let bar_there = bar.clone();
    let feeding = tokio::spawn(async move {
        feed(file, size, chunk, requests, bar_there)
            .await
            .map_err(|error| unreadable(&path_there, &error))?;
        Ok(Fed::default())
    });
    let mut client = connection.caches();
    let answering = async {
        let answer = client.import_version(stream).await;
        Ok(answer
            .map_err(|status| connection.failure(&doing, status))?
            .into_inner())
    };
    let (_, version) = whole(feeding, answering).await?;
    bar.finish_and_clear();
    let version = VersionDocument::from(version);
    if screen.json {
        return screen.document(&ImportedDocument {
            version,
            file: path.display().to_string(),
            size_bytes: size,
        });
    }
    screen.line(&format!("imported {}", report::summary(&version)))
}

/// Sends exactly `size` bytes. A file that is shorter by now is an error, and
/// the requests then do not end.
async fn feed(
    mut file: File,
    size: u64,
    chunk: usize,
    requests: Requests<ImportVersionRequest>,
    bar: ProgressBar,
) -> std::io::Result<()> {
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(chunk).min(chunk);
        let mut buffer = BytesMut::zeroed(take);
        file.read_exact(&mut buffer).await?;
        let payload = Some(Payload::Chunk(buffer.freeze()));
        // A closed channel means that the call has ended; its answer says why.
        if !requests.send(ImportVersionRequest { payload }).await {
            return Ok(());
        }
        left = left.saturating_sub(take as u64);
        bar.inc(take as u64);
    }
    requests.finish();
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Input(format!("cannot read {}: {error}", path.display()))
}
