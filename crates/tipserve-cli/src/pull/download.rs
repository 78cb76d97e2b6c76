//! Files over HTTP: whole, or not at all; what was cut off goes on where it
//! ended.

use std::{
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Duration,
};

use indicatif::ProgressBar;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url, Version,
    header::{CONTENT_RANGE, RANGE, RETRY_AFTER, TRANSFER_ENCODING},
};
use sha2::{Digest as _, Sha256};
use tipserve_api::environment::variable;

use super::{PullError, address::shown, kept::hex, local::is_local, redirect};

/// How long connecting may take, and the server may be silent.
const CONNECT: Duration = Duration::from_secs(10);
const SILENT: Duration = Duration::from_secs(30);

/// Tries that bring no byte before it is given up, and the first pause between
/// two; each is twice the last.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A file of a bundle.
pub(super) struct File {
    /// The URL to fetch it from.
    pub address: Url,
    /// The sha256 that it must have, lower-case hexadecimal.
    pub sha256: String,
    /// Most bytes of it: what sends more, or says that it will, is not read.
    pub most: u64,
}

/// Makes ring the process's cryptography, which a client's building asks for;
/// whatever was set before stays.
pub(super) fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Fetches files, and goes on with those that were cut off.
pub(super) struct Downloader {
    client: Client,
    /// For this machine, to which no proxy leads.
    direct: Client,
    token: Option<String>,
}

/// How an attempt to fetch a file ended.
enum End {
    /// All of the file is there.
    Whole,
    /// The connection ended, and the server had not said when it would: this is
    /// all of the file, or it was cut off.
    Closed,
    /// It was cut off, or refused for now.
    Cut(PullError),
}

impl Downloader {
    /// A client that goes through the system's proxies and trusts its
    /// certificates.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Downloader, PullError> {
        use_ring();
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT)
                .read_timeout(SILENT)
                .redirect(redirect::policy())
                .user_agent(concat!("tipserve/", env!("CARGO_PKG_VERSION")))
        };
        let failed = |error| unreachable_at("https", &error);
        Ok(Downloader {
            client: builder().build().map_err(failed)?,
            direct: builder().no_proxy().build().map_err(failed)?,
            token: variable("HF_TOKEN"),
        })
    }

    fn get(&self, address: &Url) -> RequestBuilder {
        let client = match is_local(address) {
            true => &self.direct,
            false => &self.client,
        };
        let request = client.get(address.clone());
        match &self.token {
            // Nobody else's business.
            Some(token) if address.host_str() == Some("huggingface.co") => {
                request.bearer_auth(token)
            }
            _ => request,
        }
    }

    /// A small file, at most `most` bytes of it.
    ///
    /// # Errors
    /// It cannot be fetched, or is larger.
    pub async fn read(&self, address: &Url, most: u64) -> Result<Vec<u8>, PullError> {
        let mut tries = Tries::default();
        loop {
            match self.read_once(address, most).await {
                Ok(text) => return Ok(text),
                Err(error) => tries.pause_after(error, false).await?,
            }
        }
    }

    async fn read_once(&self, address: &Url, most: u64) -> Result<Vec<u8>, PullError> {
        let failed = |error: reqwest::Error| unreachable_at(&shown(address), &error);
        let mut response = accepted(self.get(address).send().await.map_err(failed)?)?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            text.extend_from_slice(&chunk);
            if text.len() as u64 > most {
                return Err(PullError::Malformed {
                    what: shown(address),
                    problem: format!("it has over {most} bytes"),
                });
            }
        }
        Ok(text)
    }

    /// Fetches a file into `part`, which may have its beginning already, and
    /// checks it. Returns the bytes that were fetched.
    ///
    /// # Errors
    /// [`PullError`]. What was fetched so far stays, except if it is wrong.
    pub async fn fetch(
        &self,
        file: &File,
        part: &Path,
        bar: &ProgressBar,
    ) -> Result<u64, PullError> {
        let mut writing = Writing::open(part)?;
        // What lies here from another day may be of another file.
        let mut trusted = writing.length == 0;
        bar.inc(writing.length);
        let (mut fetched, mut tries) = (0, Tries::default());
        loop {
            let before = fetched;
            let end = self
                .try_fetch(file, &mut writing, bar, &mut fetched)
                .await?;
            let closed = matches!(end, End::Closed);
            match end {
                End::Cut(error) => tries.pause_after(error, fetched > before).await?,
                End::Whole | End::Closed => {
                    let found = writing.digest()?;
                    if found == file.sha256 {
                        return Ok(fetched);
                    }
                    // Perhaps there is more of it.
                    if closed && fetched > before && tries.may_go_on() {
                        continue;
                    }
                    bar.set_position(bar.position().saturating_sub(writing.length));
                    writing.restart()?;
                    if trusted {
                        let _ = std::fs::remove_file(part);
                        return Err(PullError::WrongHash {
                            what: shown(&file.address),
                            found,
                            expected: file.sha256.clone(),
                        });
                    }
                    trusted = true;
                }
            }
        }
    }

    async fn try_fetch(
        &self,
        file: &File,
        writing: &mut Writing<'_>,
        bar: &ProgressBar,
        fetched: &mut u64,
    ) -> Result<End, PullError> {
        let cut = |error: reqwest::Error| End::Cut(unreachable_at(&shown(&file.address), &error));
        let mut request = self.get(&file.address);
        if writing.length > 0 {
            request = request.header(RANGE, format!("bytes={}-", writing.length));
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(cut(error)),
        };
        if writing.length > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // All of it is here, or it is no beginning of this file.
            return Ok(End::Whole);
        }
        let mut response = match accepted(response) {
            Ok(response) => response,
            Err(error) if error.is_for_now() => return Ok(End::Cut(error)),
            Err(error) => return Err(error),
        };
        let starts_at = starts_at(&response);
        if starts_at != writing.length {
            bar.set_position(bar.position().saturating_sub(writing.length));
            writing.restart()?;
        }
        if starts_at > 0 && writing.length == 0 {
            // Another part than was asked for: all of it, the next time.
            return Ok(End::Cut(PullError::Unreachable {
                address: shown(&file.address),
                cause: format!("it sent a part that begins at byte {starts_at}"),
            }));
        }
        let declared = response.content_length();
        let too_large = || PullError::TooLarge {
            what: shown(&file.address),
            most: file.most,
        };
        if let Some(rest) = declared {
            if rest > file.most.saturating_sub(writing.length) {
                writing.restart()?;
                return Err(too_large());
            }
            bar.set_length(bar.position().saturating_add(rest));
        }
        let ends_by_closing = declared.is_none() && !is_chunked(&response);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = file.most.saturating_sub(writing.length);
                    if chunk.len() as u64 > room {
                        writing.restart()?;
                        return Err(too_large());
                    }
                    writing.append(&chunk)?;
                    *fetched += chunk.len() as u64;
                    bar.inc(chunk.len() as u64);
                }
                Ok(None) if ends_by_closing => return Ok(End::Closed),
                Ok(None) => return Ok(End::Whole),
                Err(error) => return Ok(cut(error)),
            }
        }
    }
}

/// The file's byte that an answer begins at: 0 for a whole one, and for one that
/// does not say.
fn starts_at(response: &Response) -> u64 {
    let partial = response.status() == StatusCode::PARTIAL_CONTENT;
    let range = response.headers().get(CONTENT_RANGE);
    range
        .filter(|_| partial)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-')?.0.parse().ok())
        .unwrap_or(0)
}

/// Whether an answer of unstated length says where it ends.
fn is_chunked(response: &Response) -> bool {
    let over_http1 = matches!(response.version(), Version::HTTP_10 | Version::HTTP_11);
    !over_http1 || response.headers().contains_key(TRANSFER_ENCODING)
}

/// How long a server asks to be left alone.
fn asked_pause(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

fn accepted(response: Response) -> Result<Response, PullError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(PullError::Refused {
            address: shown(response.url()),
            status: status.as_u16(),
            pause: asked_pause(&response),
        }),
    }
}

fn unreachable_at(address: &str, error: &reqwest::Error) -> PullError {
    // The innermost cause is what the system said.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let (address, cause) = (address.to_owned(), cause.to_string());
    if error.is_redirect() {
        return PullError::Redirected {
            address,
            problem: cause,
        };
    }
    PullError::Unreachable { address, cause }
}

impl PullError {
    /// Whether the same request may do better in a moment.
    fn is_for_now(&self) -> bool {
        match self {
            PullError::Unreachable { .. } => true,
            PullError::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// How often it was tried in vain.
#[derive(Default)]
struct Tries(u32);

impl Tries {
    /// Waits before another try; gives the error back if there is to be none.
    async fn pause_after(&mut self, error: PullError, advanced: bool) -> Result<(), PullError> {
        if advanced {
            self.0 = 0;
        }
        if !error.is_for_now() || self.0 + 1 >= TRIES {
            return Err(error);
        }
        let own = PAUSE * 2_u32.pow(self.0);
        let asked = match error {
            PullError::Refused { pause, .. } => pause.unwrap_or_default().min(LONGEST_PAUSE),
            _ => Duration::ZERO,
        };
        tokio::time::sleep(own.max(asked)).await;
        self.0 += 1;
        Ok(())
    }

    /// Whether to go on after an end that may have been none.
    fn may_go_on(&mut self) -> bool {
        self.0 += 1;
        self.0 < TRIES
    }
}

/// A file that grows, and its digest.
struct Writing<'a> {
    path: &'a Path,
    file: std::fs::File,
    hasher: Sha256,
    length: u64,
}

impl Writing<'_> {
    /// With what is there already.
    fn open(path: &Path) -> Result<Writing<'_>, PullError> {
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(PullError::disk(path))?;
        let mut hasher = Sha256::new();
        let length = std::io::copy(&mut file, &mut hasher).map_err(PullError::disk(path))?;
        Ok(Writing {
            path,
            file,
            hasher,
            length,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file
            .write_all(bytes)
            .map_err(PullError::disk(self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), PullError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(PullError::disk(self.path))?;
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Of what is on the disk by then.
    fn digest(&self) -> Result<String, PullError> {
        self.file.sync_all().map_err(PullError::disk(self.path))?;
        Ok(hex(&self.hasher.clone().finalize()))
    }
}
