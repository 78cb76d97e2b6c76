//! `tipserve pull`: fetches a bundle, checks every byte of it, and keeps it by
//! its content.

mod address;
mod bucket;
mod download;
mod error;
mod index;
mod kept;
mod listing;
mod local;
mod picture;
mod redirect;
mod signature;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::{
    failure::{Completion, Failure},
    files::readable,
    screen::{Screen, bytes, table},
    terminal::escaped_line,
};
use address::Address;
use download::{Downloader, File};
pub(crate) use error::PullError;
use index::Index;
use kept::Kept;
use listing::{LISTING, Listing};
pub(crate) use picture::{PictureReader, is_readable};

/// Most bytes of a bundle.toml.
const LISTING_BYTES: u64 = 1 << 20;

/// Most bytes of one of its files, and how much larger than the index says.
const FILE_BYTES: u64 = 64 << 30;
const LARGER: u64 = 2;

/// Flags of `tipserve pull`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tipserve pull --list
  tipserve pull https://models.example.org/vit-b-32 --sha256 9f2c…
  tipserve pull hf://org/name@main
  tipserve pull s3://models/vit-b-32 --public-key RWQf6LRC…
  tipserve serve --bundle \"$(tipserve pull hf://org/name --path)\"

What is fetched is kept in $TIPSERVE_CACHE, else $XDG_CACHE_HOME/tipserve, else
~/.cache/tipserve, by its content: nothing is fetched twice, and what was cut off
goes on where it ended. A token for Hugging Face is read from HF_TOKEN; another
hub's address from HF_ENDPOINT.")]
pub struct PullArgs {
    /// A name in the index, the https:// address of a bundle's folder,
    /// hf://ORG/NAME[/FOLDER][@REVISION], or s3://BUCKET/FOLDER (endpoint and
    /// keys from AWS_… as for a store).
    #[arg(required_unless_present = "list", value_name = "NAME|ADDRESS")]
    pub bundle: Option<String>,
    /// The bundle's fingerprint: refuse it if its bundle.toml has another.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub sha256: Option<String>,
    /// Refuse the bundle unless its bundle.toml.minisig was signed with this
    /// minisign key: "RW…", or a file with it [default: the index's, if it
    /// names one].
    #[arg(long, value_name = "KEY|FILE", env = "TIPSERVE_PUBLIC_KEY")]
    pub public_key: Option<String>,
    /// Put the bundle into this new folder, too.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Another index of names: a file or an https:// address.
    #[arg(long, value_name = "FILE|ADDRESS", env = "TIPSERVE_INDEX")]
    pub index: Option<String>,
    /// Only show what the index names.
    #[arg(long, conflicts_with_all = ["bundle", "to", "sha256"])]
    pub list: bool,
    /// Print the bundle's folder and nothing else, for scripts.
    #[arg(long)]
    pub path: bool,
}

/// The document of `pull --json`.
#[derive(Debug, Serialize)]
struct PulledDocument {
    name: String,
    address: String,
    sha256: String,
    path: String,
    size_bytes: u64,
    /// Without what was there already.
    downloaded_bytes: u64,
}

/// Fetches a bundle, or lists what the index names.
///
/// # Errors
/// What [`PullError`] says.
pub async fn run(args: PullArgs, screen: &Screen) -> Result<Completion, Failure> {
    let downloader = Downloader::new()?;
    if let Some(folder) = &args.to {
        kept::is_new(folder)?;
    }
    let Some(bundle) = &args.bundle else {
        let index = Index::open(args.index.as_deref(), &downloader).await?;
        list(&index, screen)?;
        return Ok(Completion::Done);
    };
    let mut trust = Trust {
        sha256: args.sha256.clone(),
        public_key: args.public_key.clone().filter(|key| !key.trim().is_empty()),
        file_bytes: FILE_BYTES,
    };
    let address = if bundle.contains("://") {
        Address::parse(bundle)?
    } else {
        let index = Index::open(args.index.as_deref(), &downloader).await?;
        let (address, entry) = index.find(bundle)?;
        trust.sha256 = trust.sha256.or_else(|| entry.sha256.clone());
        trust.public_key = trust.public_key.or_else(|| entry.public_key.clone());
        let most = entry
            .size_bytes
            .unwrap_or(FILE_BYTES)
            .saturating_mul(LARGER);
        trust.file_bytes = trust.file_bytes.min(most);
        address
    };
    let pulled = pull(&downloader, &address, &trust, screen).await?;
    let path = match &args.to {
        Some(folder) => pulled.kept.copy_to(&pulled.path, folder)?,
        None => pulled.path.clone(),
    };
    let document = PulledDocument {
        name: pulled.listing.name,
        address: address.to_string(),
        sha256: pulled.sha256,
        path: readable(&path),
        size_bytes: pulled.size_bytes,
        downloaded_bytes: pulled.downloaded_bytes,
    };
    if screen.json {
        screen.document(&document)?;
    } else if args.path {
        screen.line(&document.path)?;
    } else {
        report(screen, &document, &trust)?;
    }
    Ok(Completion::Done)
}

fn report(screen: &Screen, pulled: &PulledDocument, trust: &Trust) -> Result<(), Failure> {
    let size = |count: u64| bytes(i64::try_from(count).unwrap_or(i64::MAX));
    let fetched = match pulled.downloaded_bytes {
        0 => "all of it was here".to_owned(),
        count => format!("{} fetched", size(count)),
    };
    screen.line(&format!(
        "{}: {} ({fetched}), sha256 {}",
        escaped_line(&pulled.name),
        size(pulled.size_bytes),
        pulled.sha256
    ))?;
    if trust.sha256.is_none() && trust.public_key.is_none() {
        screen.note(&format!(
            "note: whatever {} holds today was taken; to get this bundle and no other, add\n  \
             --sha256 {}",
            pulled.address, pulled.sha256
        ));
    }
    screen.line(&format!(
        "serve it with\n  tipserve serve --bundle {}",
        pulled.path
    ))
}

fn list(index: &Index, screen: &Screen) -> Result<(), Failure> {
    if screen.json {
        return screen.document(&index.bundles);
    }
    let rows = index.bundles.iter().map(|(name, entry)| {
        vec![
            name.clone(),
            entry.size_bytes.map_or_else(String::new, |size| {
                bytes(i64::try_from(size).unwrap_or(i64::MAX))
            }),
            entry.licence.clone(),
            entry.accuracy.clone(),
            match &entry.address {
                Some(address) => address.clone(),
                None => "to be made: see tipserve pull NAME".to_owned(),
            },
        ]
    });
    screen.line(&table(
        &["name", "size", "licence", "accuracy", "address"],
        &[1],
        rows.collect(),
    ))
}

/// What a bundle is verified against.
struct Trust {
    /// The sha256 of its bundle.toml.
    sha256: Option<String>,
    /// The key that its bundle.toml is signed with.
    public_key: Option<String>,
    /// Most bytes of one of its files.
    file_bytes: u64,
}

/// A bundle that is here.
struct Pulled {
    listing: Listing,
    sha256: String,
    path: PathBuf,
    size_bytes: u64,
    downloaded_bytes: u64,
    kept: Kept,
}

async fn pull(
    downloader: &Downloader,
    address: &Address,
    trust: &Trust,
    screen: &Screen,
) -> Result<Pulled, PullError> {
    let kept = Kept::open()?;
    let text = listing_text(downloader, &kept, address, trust).await?;
    let sha256 = kept::digest(&text);
    let listing = Listing::parse(&text, &address.to_string())?;
    let bar = screen.byte_bar();
    let mut downloaded_bytes = 0;
    for (name, sha256) in &listing.files {
        let file = File {
            address: address.file(name).await?,
            sha256: sha256.clone(),
            most: trust.file_bytes,
        };
        downloaded_bytes += kept.fetch(downloader, &file, &bar).await?;
    }
    bar.finish_and_clear();
    let (path, size_bytes) = kept.assemble(&listing, &sha256, &text)?;
    Ok(Pulled {
        listing,
        sha256,
        path,
        size_bytes,
        downloaded_bytes,
        kept,
    })
}

/// The bundle.toml, pinned and signed as it has to be.
async fn listing_text(
    downloader: &Downloader,
    kept: &Kept,
    address: &Address,
    trust: &Trust,
) -> Result<Vec<u8>, PullError> {
    let key = trust.public_key.as_deref().map(signature::public_key);
    let key = key.transpose()?;
    let what = format!("{address}: {LISTING}");
    let pinned = trust.sha256.as_deref();
    // What is pinned and whole is not asked for again, with a network or not.
    if let Some(sha256) = pinned
        && let Some(text) = kept.listing(sha256)?
    {
        let signed = |key| {
            let signature = kept.signature(sha256);
            signature.is_some_and(|it| signature::check(key, &it, &text, &what).is_ok())
        };
        if key.as_ref().is_none_or(signed) {
            return Ok(text);
        }
    }
    let url = address.file(LISTING).await?;
    let text = downloader.read(&url, LISTING_BYTES).await?;
    let sha256 = kept::digest(&text);
    if let Some(key) = &key {
        let url = address.file(signature::FILE).await?;
        let signed = downloader.read(&url, signature::BYTES).await?;
        signature::check(key, &signed, &text, &what)?;
        kept.keep_signature(&sha256, &signed)?;
    }
    match pinned.filter(|pinned| *pinned != sha256) {
        None => Ok(text),
        Some(pinned) => Err(PullError::WrongHash {
            what,
            found: sha256,
            expected: pinned.to_owned(),
        }),
    }
}

/// 64 hexadecimal digits, in lower case.
fn sha256(text: &str) -> Result<String, String> {
    let text = text.to_lowercase();
    if text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("must be 64 hexadecimal digits".to_owned())
    }
}
