//! `tipserve caches export`: a version as one file.

use std::{
    fs::{self, Permissions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::{
    connect::Connection,
    documents::VersionDocument,
    failure::Failure,
    files::readable,
    report,
    screen::{Screen, bytes},
};
use tipserve_api::v1::{ExportHeader, ExportVersionRequest, export_version_response::Payload};

/// What `export --json` prints on standard output.
#[derive(Serialize)]
struct ExportedDocument {
    version: VersionDocument,
    file: String,
    size_bytes: i64,
}

/// Refuses a place that cannot be written to, before anything is transferred.
pub fn check(file: &Path, force: bool, screen: &Screen) -> Result<(), Failure> {
    if is_stdout(file) {
        if screen.json {
            return Err(Failure::Usage(
                "--json writes to standard output, and so does the FILE \"-\"".to_owned(),
            ));
        }
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "standard output is a terminal; send it into a file or a program".to_owned(),
            ));
        }
        return Ok(());
    }
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(file, &error)),
        Ok(found) if !found.is_file() => Err(Failure::Input(format!(
            "{} is not a regular file",
            readable(file)
        ))),
        Ok(_) if !force => Err(Failure::Input(format!(
            "{} exists already; --force replaces it",
            readable(file)
        ))),
        Ok(_) => Ok(()),
    }
}

/// Writes the version into `file`, which appears only once it is complete.
pub async fn export(
    connection: &Connection,
    name: &str,
    file: &Path,
    force: bool,
    screen: &Screen,
) -> Result<(), Failure> {
    let receiving = Receiving {
        connection,
        doing: format!("exporting {name:?}"),
        bar: screen.byte_bar(),
    };
    if is_stdout(file) {
        let header = receiving.write(name, &mut io::stdout().lock()).await?;
        return note(screen, header, file);
    }
    // Beside the file, so that it can be renamed; through a link, where it leads.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut part = tempfile::Builder::new()
        .prefix(".tipserve-export-")
        // Less the umask, as any new file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(&folder)
        .map_err(|error| failed(file, &error))?;
    let header = receiving.write(name, part.as_file_mut()).await?;
    keep(part, &target, &folder, force).map_err(|error| failed(file, &error))?;
    note(screen, header, file)
}

fn keep(part: NamedTempFile, target: &Path, folder: &Path, force: bool) -> io::Result<()> {
    part.as_file().sync_all()?;
    if force {
        part.persist(target)?;
    } else {
        part.persist_noclobber(target)?;
    }
    fs::File::open(folder)?.sync_all()
}

struct Receiving<'a> {
    connection: &'a Connection,
    doing: String,
    bar: ProgressBar,
}

impl Receiving<'_> {
    async fn write(&self, name: &str, out: &mut impl Write) -> Result<ExportHeader, Failure> {
        let doing = self.doing.as_str();
        let failed = |status| self.connection.failure(doing, status);
        let broken = |why: String| Failure::Broken(format!("{doing}: {why}"));
        let request = ExportVersionRequest {
            name: name.to_owned(),
        };
        let mut client = self.connection.caches();
        let mut answers = client
            .export_version(request)
            .await
            .map_err(failed)?
            .into_inner();
        let mut header: Option<ExportHeader> = None;
        let mut written = 0;
        while let Some(answer) = answers.message().await.map_err(failed)? {
            match answer.payload {
                Some(Payload::Header(first)) => {
                    self.bar.set_length(first.size_bytes.max(0).unsigned_abs());
                    header = Some(first);
                }
                Some(Payload::Chunk(chunk)) => {
                    out.write_all(&chunk)
                        .map_err(|error| Failure::writing(doing, error))?;
                    written += chunk.len() as u64;
                    self.bar.inc(chunk.len() as u64);
                }
                None => {}
            }
        }
        out.flush()
            .map_err(|error| Failure::writing(doing, error))?;
        self.bar.finish_and_clear();
        let header = header.ok_or_else(|| broken("the server sent no header".to_owned()))?;
        if i64::try_from(written) != Ok(header.size_bytes) {
            return Err(broken(format!(
                "the server promised {} bytes and sent {written}",
                header.size_bytes
            )));
        }
        Ok(header)
    }
}

fn note(screen: &Screen, header: ExportHeader, file: &Path) -> Result<(), Failure> {
    let version = VersionDocument::from(header.version.unwrap_or_default());
    if is_stdout(file) {
        screen.note(&format!("exported {}", report::summary(&version)));
        return Ok(());
    }
    if screen.json {
        return screen.document(&ExportedDocument {
            version,
            file: readable(file),
            size_bytes: header.size_bytes,
        });
    }
    screen.line(&format!(
        "exported {}@{} to {}, {}",
        version.cache,
        version.version,
        readable(file),
        bytes(header.size_bytes)
    ))
}

fn is_stdout(file: &Path) -> bool {
    file == Path::new("-")
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    Failure::Input(format!("cannot write {}: {error}", readable(file)))
}
