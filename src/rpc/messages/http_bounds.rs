//! The bounds on messages, for bodies over HTTP that are turned into messages
//! as they arrive.

use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;

use super::{
    Bounds,
    body::{self, Sender},
    clock,
};

/// The bounds on one call's messages, and whose they are.
pub(super) struct HttpBounds {
    pub bounds: Bounds,
    pub sender: Sender,
}

impl tipserve_http::Bounds for HttpBounds {
    fn largest(&self) -> usize {
        self.bounds.largest
    }

    fn patience(&self, received: usize) -> Duration {
        self.bounds.patience + clock::slack(received)
    }

    fn reserve(&self, bytes: usize) -> BoxFuture<'static, Box<dyn Send + Sync>> {
        let bytes = self.sender.take(bytes);
        Box::pin(async move { Box::new(bytes.await) as Box<dyn Send + Sync> })
    }

    fn too_large(&self, bytes: usize) -> Status {
        self.bounds.too_large(bytes)
    }

    fn too_slow(&self, received: usize) -> Status {
        self.bounds.too_slow(received)
    }

    fn budget_exhausted(&self) -> Status {
        body::budget_exhausted()
    }
}
