//! Batches items into messages that stay well below the server's limit, and
//! feeds labelled examples into a call.

use indicatif::ProgressBar;
use prost::Message;

use super::{
    documents::RejectedDocument,
    failure::Failure,
    files::Unusable,
    load::{Loaded, Loading},
    requests::Requests,
};

/// A message is sent once it has so many bytes ...
const TARGET_BYTES: usize = 1 << 20;

/// ... or so many items.
const TARGET_ITEMS: usize = 128;

/// Items on their way into one message.
#[derive(Debug)]
pub struct Batch<T> {
    items: Vec<T>,
    bytes: usize,
    limit: usize,
}

impl<T: Message> Batch<T> {
    /// For messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            items: Vec::new(),
            bytes: 0,
            limit,
        }
    }

    /// Refuses an item that no message can carry.
    pub fn check(&self, item: &T) -> Result<(), Unusable> {
        let size = weight(item);
        if size > self.limit {
            Err(Unusable::too_large(size as u64, self.limit))
        } else {
            Ok(())
        }
    }

    /// Adds an item; returns those before it where they must go first.
    pub fn push(&mut self, item: T) -> Option<Vec<T>> {
        let size = weight(&item);
        let target = TARGET_BYTES.min(self.limit / 2);
        let full = !self.items.is_empty()
            && (self.bytes + size > target || self.items.len() >= TARGET_ITEMS);
        let before = if full { self.take() } else { None };
        self.items.push(item);
        self.bytes += size;
        before
    }

    /// The items so far, if any.
    pub fn take(&mut self) -> Option<Vec<T>> {
        self.bytes = 0;
        Some(std::mem::take(&mut self.items)).filter(|items| !items.is_empty())
    }
}

/// An item's bytes within a message, its tag and length included.
fn weight<T: Message>(item: &T) -> usize {
    item.encoded_len() + 16
}

/// What was sent, and what could not be.
#[derive(Debug, Default)]
pub struct Fed {
    /// Examples sent.
    pub sent: u64,
    /// Examples that this side could not send.
    pub rejected: Vec<RejectedDocument>,
}

/// Sends every example as it is read: `item` makes the wire's item of one,
/// `message` a request of some. With `strict`, the first that cannot be sent
/// is a failure, and the requests then do not end.
pub async fn feed<I: Message, R>(
    mut loading: Loading,
    requests: Requests<R>,
    limit: usize,
    strict: bool,
    bar: ProgressBar,
    item: impl Fn(Loaded) -> Result<I, (String, Unusable)>,
    message: impl Fn(Vec<I>) -> R,
) -> Result<Fed, Failure> {
    let mut fed = Fed::default();
    let mut batch = Batch::new(limit);
    while let Some(loaded) = loading.recv().await {
        let loaded = loaded?;
        let id = loaded.id.clone();
        let ready = item(loaded).and_then(|it| match batch.check(&it) {
            Ok(()) => Ok(it),
            Err(why) => Err((id, why)),
        });
        bar.inc(1);
        match ready {
            Ok(it) => {
                fed.sent += 1;
                let Some(before) = batch.push(it) else {
                    continue;
                };
                // A closed channel means that the call has ended; its answer
                // says why.
                if !requests.send(message(before)).await {
                    return Ok(fed);
                }
            }
            Err((id, why)) if strict => {
                return Err(Failure::Input(format!("{id}: {} (--strict)", why.message)));
            }
            Err((id, why)) => fed.rejected.push(why.rejected(id)),
        }
    }
    if let Some(last) = batch.take() {
        requests.send(message(last)).await;
    }
    requests.finish();
    Ok(fed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipserve_api::v1::{Input, Item, input::Content};

    fn item(bytes: usize) -> Item {
        let content = Some(Content::EncodedImage(vec![0; bytes].into()));
        Item {
            id: "x".into(),
            input: Some(Input { content }),
            time_limit: None,
        }
    }

    #[test]
    fn messages_stay_below_the_limit_and_lose_nothing() {
        let limit = 10_000;
        let mut batch = Batch::new(limit);
        let mut sent = Vec::new();
        for size in [10, 3000, 3000, 9000, 10, 4900, 4900] {
            batch.check(&item(size)).unwrap();
            sent.extend(batch.push(item(size)));
        }
        sent.extend(batch.take());
        assert_eq!(sent.iter().map(Vec::len).sum::<usize>(), 7);
        for items in sent {
            let size: usize = items.iter().map(weight).sum();
            assert!(size <= limit, "{size}");
        }
        assert!(batch.check(&item(10_000)).is_err());
        assert!(batch.take().is_none());
    }
}
