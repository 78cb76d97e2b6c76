//! The limits on requests.

use std::collections::BTreeMap;

use super::{ConfigError, Given, given::declared};
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
    /// Most bytes that uploads under way have been sent.
    pub upload_bytes: usize,
    /// Limits on what one picture may cost.
    pub picture: PictureLimits,
    /// Most calls under way in the server.
    pub max_streams: usize,
    /// Most calls under way in one connection.
    pub max_connection_streams: u32,
    /// Most calls under way of a token that has no limit of its own.
    pub max_token_streams: usize,
    /// Most calls under way of one certificate or address, without tokens.
    pub max_peer_streams: usize,
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
    /// The limits that `GetServerInfo` reports, except those whose default
    /// depends on the device.
    pub named: BTreeMap<&'static str, i64>,
}

impl Limits {
    /// The limits that these settings make.
    pub(super) fn resolve(given: &Given) -> Result<Limits, ConfigError> {
        Ok(Limits {
            max_message_bytes: declared::max_message_bytes.value(given.max_message_bytes)?,
            stream_window: declared::stream_window.value(given.stream_window)?,
            max_classes: declared::max_classes.value(given.max_classes)?,
            max_examples: declared::max_examples.value(given.max_examples)?,
            max_create_bytes: declared::max_create_bytes.value(given.max_create_bytes)?,
            max_import_bytes: declared::max_import_bytes.value(given.max_import_bytes)?,
            upload_bytes: declared::upload_bytes.value(given.upload_bytes)?,
            picture: picture(given)?,
            max_streams: declared::max_streams.value(given.max_streams)?,
            max_connection_streams: declared::max_connection_streams
                .value(given.max_connection_streams)?,
            max_token_streams: declared::max_token_streams.value(given.max_token_streams)?,
            max_peer_streams: declared::max_peer_streams.value(given.max_peer_streams)?,
            max_connections: declared::max_connections.value(given.max_connections)?,
            max_address_connections: declared::max_address_connections
                .value(given.max_address_connections)?,
            max_connection_age_seconds: declared::max_connection_age_seconds
                .value(given.max_connection_age_seconds)?,
            max_unfinished_bytes: declared::max_unfinished_bytes
                .value(given.max_unfinished_bytes)?,
            message_seconds: declared::message_seconds.value(given.message_seconds)?,
            max_prompts: declared::max_prompts.value(given.max_prompts)?,
            named: given.limits(),
        })
    }
}

/// The limits of one picture.
fn picture(given: &Given) -> Result<PictureLimits, ConfigError> {
    Ok(PictureLimits {
        encoded_bytes: declared::max_picture_bytes.value(given.max_picture_bytes)?,
        pixels: declared::max_pixels.value(given.max_pixels)?,
        side: declared::max_side.value(given.max_side)?,
        frames: declared::max_frames.value(given.max_frames)?,
        decoder_bytes: declared::max_decoder_bytes.value(given.max_decoder_bytes)?,
    })
}
