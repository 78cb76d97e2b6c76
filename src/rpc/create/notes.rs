//! What an example brings besides its input: where it came from, metadata, and
//! the picture that a thumbnail is made from.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    thread,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::{error::ApiError, request::RequestError};
use crate::catalog::{CatalogError, ExampleNotes, check_metadata, check_uri};
use tipserve_api::v1 as pb;
use tipserve_clip::{ExifOrientation, Picture, PictureLimits, thumbnail, thumbnail_of_file};
use tipserve_engine::{Content, EngineError, Source};

/// Thumbnails made at once by all calls together: each holds a decoded picture.
static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let threads = thread::available_parallelism().map_or(2, usize::from);
    Arc::new(Semaphore::new(threads))
});

/// A place to make one thumbnail in.
pub type Place = OwnedSemaphorePermit;

/// Waits for a place.
///
/// # Errors
/// None: the places are never closed.
pub async fn place() -> Result<Place, CatalogError> {
    let place = Arc::clone(&PLACES).acquire_owned().await;
    place.map_err(CatalogError::internal)
}

/// An example's address and metadata, checked.
///
/// # Errors
/// What cannot be kept.
pub fn checked(example: &mut pb::Example) -> Result<ExampleNotes, RequestError> {
    check_uri(&example.uri).map_err(|problem| RequestError::invalid("examples.uri", problem))?;
    check_metadata(example.metadata.iter())
        .map_err(|problem| RequestError::invalid("examples.metadata", problem))?;
    let metadata = std::mem::take(&mut example.metadata);
    Ok(ExampleNotes {
        uri: std::mem::take(&mut example.uri),
        metadata: metadata.into_iter().collect::<BTreeMap<_, _>>(),
        picture: Bytes::new(),
    })
}

/// The picture that an example's thumbnail is made of, if it has one.
pub fn pictured(thumbnail: Bytes, content: &Content) -> Option<Source> {
    if !thumbnail.is_empty() {
        return Some(Source::File {
            bytes: thumbnail,
            exif_orientation: ExifOrientation::Apply,
        });
    }
    match content {
        Content::Picture { source, .. } => Some(source.clone()),
        Content::Embedding(_) => None,
    }
}

/// Makes a thumbnail. Blocks.
///
/// # Errors
/// A picture that cannot be decoded.
pub fn make(source: &Source, limits: &PictureLimits) -> Result<Bytes, ApiError> {
    let made = match source {
        Source::File { bytes, .. } => thumbnail_of_file(bytes, limits),
        Source::Rgb {
            width,
            height,
            data,
        } => {
            Picture::from_raw(*width, *height, data, limits).and_then(|picture| thumbnail(&picture))
        }
    };
    Ok(made.map_err(EngineError::Picture)?.into())
}
