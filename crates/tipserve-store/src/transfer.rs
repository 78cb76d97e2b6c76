//! Export and import: a version as one safetensors file that carries its
//! manifest, between stores and servers.

use std::{collections::HashMap, fmt};

use bytes::Bytes;
use serde::{
    Deserializer as _,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use sha2::{Digest as _, Sha256};

use super::{
    Store, StoreError,
    backend::working,
    manifest::{Details, Draft, Manifest},
    name::{CacheId, VersionNumber},
    sealed::{hex, seal, unseal},
    tensors::{TensorFile, header},
};

/// Key of the manifest in an exported file's `__metadata__`.
pub const MANIFEST_KEY: &str = "tipserve.manifest";
/// Key of the digest of the tensors: SHA-256, lower-case hex, over each tensor
/// in the order of their names' bytes: name, line feed, dtype as in the header,
/// line feed, shape in decimal with commas, line feed, elements.
const TENSORS_KEY: &str = "tipserve.tensors_sha256";
/// Most tensors of an imported file, several times as many as versions have.
/// Parsed, each takes far more memory than the bytes that declare it.
const MOST_TENSORS: usize = 256;

/// A version as one file, in pieces that share the store's memory.
#[derive(Clone, Debug)]
pub struct Export {
    /// The manifest of the exported version.
    pub manifest: Manifest,
    /// Size of the file, bytes.
    pub size: u64,
    /// The file: these pieces, one after the other.
    pub pieces: Vec<Bytes>,
}

impl Export {
    /// The file in pieces of at most `bytes` each, for messages.
    pub fn chunks(&self, bytes: usize) -> impl Iterator<Item = Bytes> + Send + 'static {
        let bytes = bytes.max(1);
        let pieces = self.pieces.clone();
        pieces.into_iter().flat_map(move |piece| {
            (0..piece.len())
                .step_by(bytes)
                .map(move |at| piece.slice(at..at.saturating_add(bytes).min(piece.len())))
        })
    }
}

impl Store {
    /// A version as one safetensors file: the same tensors, and in the file's
    /// metadata its manifest and a SHA-256 of the tensors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn export(&self, id: &CacheId, number: VersionNumber) -> Result<Export, StoreError> {
        let (manifest, file) = self.load(id, number).await?;
        let what = manifest.resource_name();
        let sealed = seal(&what, &manifest)?;
        let hashed = file.clone();
        let digest = working("exporting", file.data().len(), move || digest(&hashed)).await?;
        let text = String::from_utf8_lossy(&sealed).into_owned();
        let metadata = HashMap::from([
            (MANIFEST_KEY.to_owned(), text),
            (TENSORS_KEY.to_owned(), digest),
        ]);
        let pieces = vec![header(Some(metadata), file.layout())?, file.data()];
        Ok(Export {
            manifest,
            size: pieces.iter().map(|p| p.len() as u64).sum(),
            pieces,
        })
    }

    /// Publishes an exported file as the next version of the cache `id`, which
    /// may have another name than the one exported. Number and date are new;
    /// the rest of the manifest stays as it was, but for its parent (which is
    /// in another store) and the counts of examples that its making took in.
    /// The tensors are checked to be those that were exported, not to make
    /// sense: use [`Self::read_export`] to check that first.
    ///
    /// # Errors
    /// [`StoreError::InvalidDraft`] where the file is no export, or not whole;
    /// [`StoreError::NewerFormat`]; else as [`Self::create_version`].
    pub async fn import(&self, id: &CacheId, file: Bytes) -> Result<Manifest, StoreError> {
        let imported = Self::read_export(file).await?;
        self.create_version(id, imported.draft()).await
    }

    /// Reads an exported file and checks that it is whole. Publishes nothing.
    ///
    /// # Errors
    /// [`StoreError::InvalidDraft`] where the file is no export, or not whole;
    /// [`StoreError::NewerFormat`].
    pub async fn read_export(file: Bytes) -> Result<Imported, StoreError> {
        working("importing", file.len(), move || read_export(file)).await?
    }
}

/// An exported file that has been read and verified.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The manifest that the file carries.
    pub manifest: Manifest,
    /// The tensors that the file carries.
    pub tensors: TensorFile,
}

impl Imported {
    /// What is to be published.
    pub fn draft(&self) -> Draft {
        let names = self.tensors.names();
        Draft {
            details: Details {
                // Counts of examples that were sent: none were, here. And a
                // version of another store.
                source: None,
                parent: None,
                ..self.manifest.details.clone()
            },
            tensors: names
                .iter()
                .filter_map(|name| self.tensors.tensor(name))
                .collect(),
            request: None,
        }
    }
}

fn digest(file: &TensorFile) -> String {
    let mut hasher = Sha256::new();
    for name in file.names() {
        let Some(tensor) = file.get(name) else {
            continue; // cannot be: a parsed file holds what it names
        };
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let dtype = tensor.dtype;
        hasher.update(format!("{name}\n{dtype}\n{}\n", shape.join(",")));
        hasher.update(tensor.bytes);
    }
    hex(&hasher.finalize())
}

/// Counts the entries of a safetensors header without keeping any.
struct FewEntries;

impl<'de> Visitor<'de> for FewEntries {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a safetensors header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut entries = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            entries += 1;
            // Its metadata is an entry, too.
            if entries > MOST_TENSORS + 1 {
                let reason = format!("it has more than {MOST_TENSORS} tensors");
                return Err(A::Error::custom(reason));
            }
        }
        Ok(())
    }
}

/// Refuses a file with more than [`MOST_TENSORS`] before they are parsed.
fn check_entries(file: &[u8]) -> Result<(), String> {
    // What is no header is refused by the parser, with its reason.
    let Some((length, rest)) = file.split_first_chunk() else {
        return Ok(());
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some(header) = rest.get(..length) else {
        return Ok(());
    };
    serde_json::Deserializer::from_slice(header)
        .deserialize_map(FewEntries)
        .map_err(|error| error.to_string())
}

pub(super) fn read_export(file: Bytes) -> Result<Imported, StoreError> {
    const WHAT: &str = "the imported file";
    check_entries(&file)
        .map_err(|e| StoreError::invalid(WHAT, format!("no whole safetensors file: {e}")))?;
    let file = TensorFile::parse(file)
        .map_err(|e| StoreError::invalid(WHAT, format!("no whole safetensors file: {e}")))?;
    let entry = |key: &str| {
        file.metadata().get(key).ok_or_else(|| {
            StoreError::invalid(WHAT, format!("its metadata has no {key:?}: not an export"))
        })
    };
    let manifest = unseal(WHAT, MANIFEST_KEY, entry(MANIFEST_KEY)?.as_bytes());
    let manifest: Manifest = manifest.map_err(|e| match e {
        // Damage to an uploaded file is not damage to the store.
        StoreError::Damaged { what, detail } => StoreError::InvalidDraft { what, detail },
        other => other,
    })?;
    if digest(&file) != *entry(TENSORS_KEY)? {
        return Err(StoreError::invalid(
            WHAT,
            "its tensors are not those that were exported",
        ));
    }
    Ok(Imported {
        manifest,
        tensors: file,
    })
}
