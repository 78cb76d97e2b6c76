//! The bounds that a server sets on a request's messages.

use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;

/// Bounds on the messages of one call, while they arrive.
pub trait Bounds: Send + Sync + 'static {
    /// Most bytes of one message.
    fn largest(&self) -> usize;

    /// How long to wait for the rest of a message of which `received` bytes
    /// have arrived.
    fn patience(&self, received: usize) -> Duration;

    /// Waits until `bytes` bytes are free and reserves them for an arriving
    /// message. Dropping what is returned releases them.
    fn reserve(&self, bytes: usize) -> BoxFuture<'static, Box<dyn Send + Sync>>;

    /// The refusal of a message over [`Bounds::largest`].
    fn too_large(&self, bytes: usize) -> Status;

    /// The refusal of one that takes too long.
    fn too_slow(&self, received: usize) -> Status;

    /// The refusal of one for which there were no bytes in time.
    fn budget_exhausted(&self) -> Status;
}
