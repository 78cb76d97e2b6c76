//! Hashes of tokens. Tokens are random, so a plain hash gives nothing away.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The hash of a token, as the file has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TokenHash {
    Sha256([u8; 32]),
    Blake3([u8; 32]),
}

impl TokenHash {
    pub fn parse(text: &str) -> Result<TokenHash, String> {
        let wrong = || {
            "hash must be \"sha256:\" or \"blake3:\" and 64 hexadecimal digits (`tipserve token \
             new` prints an entry)"
                .to_owned()
        };
        let (kind, digits) = text.split_once(':').ok_or_else(wrong)?;
        // blake3's parser of 64 hexadecimal digits does for both.
        let bytes = *blake3::Hash::from_hex(digits)
            .map_err(|_| wrong())?
            .as_bytes();
        match kind {
            "sha256" => Ok(TokenHash::Sha256(bytes)),
            "blake3" => Ok(TokenHash::Blake3(bytes)),
            _ => Err(wrong()),
        }
    }
}

/// A token as a client presents it, hashed.
pub(super) struct Presented {
    sha256: [u8; 32],
    blake3: [u8; 32],
}

impl Presented {
    pub fn new(token: &str) -> Presented {
        Presented {
            sha256: Sha256::digest(token.as_bytes()).into(),
            blake3: *blake3::hash(token.as_bytes()).as_bytes(),
        }
    }

    pub fn is(&self, hash: &TokenHash) -> bool {
        match hash {
            TokenHash::Sha256(bytes) => self.sha256.ct_eq(bytes).into(),
            TokenHash::Blake3(bytes) => self.blake3.ct_eq(bytes).into(),
        }
    }
}
