//! `tipserve caches import`: a version of an exported file.

use std::path::Path;

use bytes::BytesMut;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::{fs::File, io::AsyncReadExt as _};

use crate::{
    connect::Connection,
    documents::VersionDocument,
    failure::Failure,
    files, report,
    requests::{self, RequestSender},
    screen::Screen,
    upload,
};
use tipserve_api::v1::{ImportSpec, ImportVersionRequest, import_version_request::Payload};

/// Bytes of the file in one message, if the server takes messages that large.
const CHUNK: usize = 1 << 20;

/// What an import makes, and on what condition.
#[derive(Debug)]
pub struct ImportOptions {
    /// The cache that gets the version.
    pub cache: String,
    /// Whether to accept features that another bundle made.
    pub allow_other_bundle: bool,
    /// The etag that the cache must have; empty: any.
    pub etag: String,
}

/// What `import --json` prints on standard output.
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
    options: ImportOptions,
    screen: &Screen,
) -> Result<(), Failure> {
    let found = files::existing(path, "FILE")?;
    if !found.is_file() {
        return Err(Failure::Input(format!(
            "{} is not a regular file; its size must be known beforehand",
            files::readable(path)
        )));
    }
    let file = File::open(path)
        .await
        .map_err(|error| unreadable(path, &error))?;
    let size = found.len();
    let limit = connection.message_limit().await?;
    let doing = format!(
        "importing {} into {:?}",
        files::readable(path),
        options.cache
    );
    let bar = screen.byte_bar();
    bar.set_length(size);
    let (requests, stream) = requests::channel();
    let spec = ImportSpec {
        cache_id: options.cache,
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        allow_other_bundle: options.allow_other_bundle,
        etag: options.etag,
        ..ImportSpec::default()
    };
    let spec = Payload::Spec(spec);
    requests
        .send(ImportVersionRequest {
            payload: Some(spec),
        })
        .await;
    let chunk = CHUNK.min((limit / 2).max(1));
    let file_path = path.to_owned();
    let sent_bar = bar.clone();
    let upload = tokio::spawn(async move {
        send(file, size, chunk, requests, sent_bar)
            .await
            .map_err(|error| unreadable(&file_path, &error))
    });
    let mut client = connection.caches();
    let answer = async {
        let answer = client.import_version(stream).await;
        Ok(answer
            .map_err(|status| connection.failure(&doing, status))?
            .into_inner())
    };
    let ((), version) = upload::with_answer(upload, answer).await?;
    bar.finish_and_clear();
    let version = VersionDocument::from(version);
    if screen.json {
        return screen.document(&ImportedDocument {
            version,
            file: files::readable(path),
            size_bytes: size,
        });
    }
    screen.line(&format!("imported {}", report::summary(&version)))
}

/// Sends exactly `size` bytes. A file that is shorter by now is an error, and
/// the requests then do not end.
async fn send(
    mut file: File,
    size: u64,
    chunk: usize,
    requests: RequestSender<ImportVersionRequest>,
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
    Failure::Input(format!("cannot read {}: {error}", files::readable(path)))
}
