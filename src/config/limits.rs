//! The limits on requests.

use super::{
    ConfigError, Given,
    range::{bytes, count, within},
};
use tipserve_clip::PictureLimits;

/// Limits on what one request may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest gRPC message taken, bytes.
    pub max_message_bytes: usize,
    /// Most unanswered items of one stream.
    pub stream_window: usize,
    /// Most classes of a cache.
    pub max_classes: usize,
    /// Most examples in one CreateCache.
    pub max_examples: usize,
    /// Most bytes of features in one CreateCache.
    pub max_create_bytes: usize,
    /// Largest exported version taken, bytes.
    pub max_import_bytes: usize,
    /// Limits on what one picture may cost.
    pub picture: PictureLimits,
    /// Most calls under way in the server.
    pub max_streams: usize,
    /// Most calls under way in one connection.
    pub max_connection_streams: u32,
    /// Most calls under way of a token that has no limit of its own.
    pub max_token_streams: usize,
    /// Most connections to the API.
    pub max_connections: usize,
    /// Most of them from one address.
    pub max_address_connections: usize,
    /// Seconds that a connection may live before it is asked to go; 0: for ever.
    pub max_connection_age_seconds: u64,
    /// Most bytes of messages that have begun to arrive.
    pub max_unfinished_bytes: usize,
    /// Seconds that a message may take to arrive.
    pub message_seconds: u64,
    /// Most prompts of one version.
    pub max_prompts: usize,
}

impl Limits {
    /// The limits that these settings make.
    pub(super) fn resolve(given: &Given) -> Result<Limits, ConfigError> {
        Ok(Limits {
            max_message_bytes: bytes("max_message_bytes", given.max_message_bytes, 32 << 20)?,
            stream_window: count("stream_window", given.stream_window, 512)?,
            max_classes: count("max_classes", given.max_classes, 100_000)?,
            max_examples: count("max_examples", given.max_examples, 2_000_000)?,
            max_create_bytes: bytes("max_create_bytes", given.max_create_bytes, 8 << 30)?,
            max_import_bytes: bytes("max_import_bytes", given.max_import_bytes, 4 << 30)?,
            picture: picture(given)?,
            max_streams: count("max_streams", given.max_streams, 10_000)?,
            max_connection_streams: within(
                "max_connection_streams",
                given.max_connection_streams.unwrap_or(1024),
                1,
                1_000_000,
                "1 to 1,000,000",
            )?,
            max_token_streams: count("max_token_streams", given.max_token_streams, 1000)?,
            max_connections: count("max_connections", given.max_connections, 4096)?,
            max_address_connections: count(
                "max_address_connections",
                given.max_address_connections,
                512,
            )?,
            max_connection_age_seconds: within(
                "max_connection_age_seconds",
                given.max_connection_age_seconds.unwrap_or(3600),
                0,
                31_536_000,
                "0 to 31,536,000",
            )?,
            max_unfinished_bytes: bytes(
                "max_unfinished_bytes",
                given.max_unfinished_bytes,
                512 << 20,
            )?,
            message_seconds: within(
                "message_seconds",
                given.message_seconds.unwrap_or(60),
                1,
                86_400,
                "1 to 86,400",
            )?,
            max_prompts: count("max_prompts", given.max_prompts, 1_000_000)?,
        })
    }
}

/// The limits of one picture.
fn picture(given: &Given) -> Result<PictureLimits, ConfigError> {
    let defaults = PictureLimits::default();
    Ok(PictureLimits {
        encoded_bytes: within(
            "max_picture_bytes",
            given.max_picture_bytes.unwrap_or(defaults.encoded_bytes),
            1,
            1 << 32,
            "1 to 4 GiB",
        )?,
        pixels: within(
            "max_pixels",
            given.max_pixels.unwrap_or(defaults.pixels),
            1,
            1 << 32,
            "1 to 2^32",
        )?,
        side: within(
            "max_side",
            given.max_side.unwrap_or(defaults.side),
            1,
            1 << 20,
            "1 to 1,048,576",
        )?,
        frames: within(
            "max_frames",
            given.max_frames.unwrap_or(defaults.frames),
            1,
            1 << 32,
            "1 to 2^32",
        )?,
        decoder_bytes: within(
            "max_decoder_bytes",
            given.max_decoder_bytes.unwrap_or(defaults.decoder_bytes),
            1 << 10,
            1 << 40,
            "1 KiB to 1 TiB",
        )?,
    })
}
