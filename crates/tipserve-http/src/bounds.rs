//! What a server bounds a request's messages by.

use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;

/// Bounds on the messages of one call, while they arrive.
pub trait Bounds: Send + Sync + 'static {
    /// Largest message, bytes.
    fn largest(&self) -> usize;

    /// How long a sender may be waited for, of whose message `received` bytes
    /// have come.
    fn patience(&self, received: usize) -> Duration;

    /// Takes bytes for a message that arrives, once there are so many. They are
    /// given back when what is returned is dropped.
    fn reserve(&self, bytes: usize) -> BoxFuture<'static, Box<dyn Send + Sync>>;

    /// The refusal of a message over [`Bounds::largest`].
    fn too_large(&self, bytes: usize) -> Status;

    /// The refusal of one that takes too long.
    fn too_slow(&self, received: usize) -> Status;

    /// The refusal of one for which there were no bytes in time.
    fn no_room(&self) -> Status;
}
