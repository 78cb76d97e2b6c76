//! Compressed messages and bodies: gzip, deflate and zstd, from clients that
//! send them and, in kind, to them.
//!
//! Compression is undone here and not in tonic: bytes are inflated as they
//! arrive, a little at a time between other work of the thread, and no further
//! than the method's limit on messages allows. A message that would inflate to
//! more is refused there, whatever it claims.

mod answers;
mod bodies;
mod deflater;
mod inflater;

use tonic::{Code, Status};

use super::error::ApiError;
pub use answers::CompressionLayer;
pub use bodies::HttpCompression;
pub(in crate::rpc) use bodies::{HTTP_WINDOW, InflatedBody};
pub(in crate::rpc) use inflater::{Fault, Inflater};

/// What a request or an answer names its encoding in.
pub(in crate::rpc) const GRPC_ENCODING: &str = "grpc-encoding";
/// What names the encodings that a peer can undo.
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// The encodings that the server can undo.
const ACCEPTED: &str = "identity,gzip,deflate,zstd";
/// Messages and answers smaller than this are sent as they are: they fit into a
/// packet.
const WORTHWHILE: usize = 1024;
/// Bytes that are handled before other work of the thread gets its turn.
pub(in crate::rpc) const TURN: usize = 128 << 10;

/// A compression format of gRPC messages and HTTP bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Encoding {
    /// gzip, RFC 1952.
    Gzip,
    /// The zlib format (RFC 1950), which HTTP and gRPC call so.
    Deflate,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Encoding {
    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    /// Its name in HTTP and gRPC.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Zstd => "zstd",
        }
    }

    /// The encoding of this name.
    pub fn of(name: &[u8]) -> Option<Encoding> {
        let name = match name.trim_ascii() {
            name if name.eq_ignore_ascii_case(b"x-gzip") => b"gzip",
            name => name,
        };
        let mut all = Encoding::ALL.into_iter();
        all.find(|encoding| name.eq_ignore_ascii_case(encoding.name().as_bytes()))
    }

    /// The refusal of a message or body that this encoding did not make.
    pub fn malformed(self, what: &str, why: &str) -> Status {
        let name = self.name();
        ApiError::new(
            Code::InvalidArgument,
            "ENCODING_INVALID",
            format!("the {what} is not what {name} makes: {why}"),
        )
        .fact("encoding", name)
        .into()
    }
}
