//! The requests of a stream: its configuration, then what waits in its queue.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Instant,
};

use futures::Stream;

use super::state::Load;
use crate::{
    queue::{ItemQueue, Sending},
    wire::{Item, Items, StreamRequest},
};
use tipserve_api::v1::ClassifyStreamConfig;

/// The requests of a stream.
pub(super) struct Requests {
    queue: Arc<ItemQueue>,
    /// Weak, since the load holds the connections, which hold this.
    load: Weak<Load>,
    config: Option<ClassifyStreamConfig>,
    /// Most items of one message.
    pack: usize,
}

impl Requests {
    /// Sends the configuration, then the items of the queue.
    pub(super) fn new(
        queue: Arc<ItemQueue>,
        load: &Arc<Load>,
        config: ClassifyStreamConfig,
        pack: usize,
    ) -> Self {
        Self {
            queue,
            load: Arc::downgrade(load),
            config: Some(config),
            pack,
        }
    }
}

impl Stream for Requests {
    type Item = StreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(config) = self.config.take() {
            return Poll::Ready(Some(StreamRequest {
                config: Some(config),
                items: None,
            }));
        }
        let Some(load) = self.load.upgrade() else {
            return Poll::Ready(None);
        };
        loop {
            let now = Instant::now();
            let in_time = |item| load.time_left(item, now);
            let (sent, late) = match self.queue.send(self.pack, in_time, context) {
                Sending::Items { sent, late } => (sent, late),
                Sending::Nothing => return Poll::Pending,
                Sending::Closed => return Poll::Ready(None),
            };
            load.note_sent(sent.iter().map(|(item, _)| *item), now);
            load.note_late(&late);
            if sent.is_empty() {
                continue;
            }
            let items = sent.into_iter().map(|(item, left)| Item {
                input: load.input(item),
                time_limit: left.and_then(|left| left.try_into().ok()),
            });
            return Poll::Ready(Some(StreamRequest {
                config: None,
                items: Some(Items {
                    items: items.collect(),
                }),
            }));
        }
    }
}
