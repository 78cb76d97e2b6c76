//! Uploads: items batched into messages that stay well below the server's
//! limit, and labelled examples sent into a call.

use std::future::Future;

use prost::Message;

use crate::{
    documents::RejectedDocument,
    failure::Failure,
    files::Unusable,
    reader::{LoadedExample, LoadedExamples},
    requests::RequestSender,
};

/// A message is closed before it has more bytes than this ...
const TARGET_BYTES: usize = 1 << 20;

/// Most items of one message.
const TARGET_ITEMS: usize = 128;

/// Items on their way into one message.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    items: Vec<T>,
    bytes: usize,
    limit: usize,
}

impl<T: Message> Batch<T> {
    /// A batch for messages of at most `limit` bytes.
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

    /// Adds an item; returns the ones before it if they must go first.
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

/// An item's bytes within a message, with its tag and length.
fn weight<T: Message>(item: &T) -> usize {
    item.encoded_len() + 16
}

/// What an upload sent, and what it could not send.
#[derive(Debug, Default)]
pub(crate) struct Uploaded {
    /// Examples that were sent.
    pub sent: u64,
    /// Examples that this side could not send.
    pub rejected: Vec<RejectedDocument>,
}

/// How examples become messages of a call.
pub(crate) struct Upload<T, M> {
    /// Makes the item of an example, or says why it cannot be sent.
    pub item: T,
    /// Makes the request that carries some items.
    pub message: M,
    /// The server's message limit in bytes.
    pub limit: usize,
    /// Whether the first example that cannot be sent is a failure; the requests
    /// then do not end.
    pub strict: bool,
    /// Called with every example that this side has dealt with.
    pub progress: Progress,
}

/// What an upload reports as it goes on.
pub(crate) type Progress = Box<dyn Fn(Handled) + Send>;

/// The outcome of an example on the client's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Handled {
    /// It is on its way.
    Sent,
    /// It cannot be sent, and was reported.
    Rejected,
}

impl<T, M> Upload<T, M> {
    /// Sends every example as it is read.
    pub(crate) async fn run<I, R>(
        self,
        mut examples: LoadedExamples,
        requests: RequestSender<R>,
    ) -> Result<Uploaded, Failure>
    where
        I: Message,
        T: Fn(LoadedExample) -> Result<I, (String, Unusable)>,
        M: Fn(Vec<I>) -> R,
    {
        let mut uploaded = Uploaded::default();
        let mut batch = Batch::new(self.limit);
        while let Some(loaded) = examples.recv().await {
            let loaded = loaded?;
            let id = loaded.id.clone();
            let item = (self.item)(loaded).and_then(|item| match batch.check(&item) {
                Ok(()) => Ok(item),
                Err(why) => Err((id, why)),
            });
            match item {
                Ok(item) => {
                    uploaded.sent += 1;
                    (self.progress)(Handled::Sent);
                    let Some(full) = batch.push(item) else {
                        continue;
                    };
                    // A closed channel means that the call has ended; its answer
                    // says why.
                    if !requests.send((self.message)(full)).await {
                        return Ok(uploaded);
                    }
                }
                Err((id, why)) if self.strict => {
                    return Err(Failure::Input(format!("{id}: {} (--strict)", why.message)));
                }
                Err((id, why)) => {
                    (self.progress)(Handled::Rejected);
                    uploaded.rejected.push(why.rejected(id));
                }
            }
        }
        if let Some(last) = batch.take() {
            requests.send((self.message)(last)).await;
        }
        requests.finish();
        Ok(uploaded)
    }
}

/// Waits for the upload and the answer of a call. If either fails, the other
/// is given up.
pub(crate) async fn with_answer<U, T>(
    upload: tokio::task::JoinHandle<Result<U, Failure>>,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<(U, T), Failure> {
    let stop = upload.abort_handle();
    let upload = async {
        upload
            .await
            .map_err(|error| Failure::Broken(error.to_string()))?
    };
    let outcome = tokio::try_join!(upload, answer);
    stop.abort();
    outcome
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
