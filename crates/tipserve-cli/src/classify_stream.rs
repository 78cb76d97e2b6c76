//! ClassifyStream with a bounded window: at most N items are read, sent and not
//! yet printed, however many there are, and however slow the server or the
//! reader of standard output is (backpressure).

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use tokio::sync::{Semaphore, mpsc};

use crate::{
    connect::Connection,
    documents::ItemError,
    failure::Failure,
    files::Unusable,
    labelled::Labelled,
    reader::{self, Part},
    requests::{self, RequestSender},
    upload::Batch,
};
use tipserve_api::v1::{
    Classification, ClassifyStreamConfig, ClassifyStreamRequest, Input, Item, ItemBatch,
    ItemResult, classify_stream_request::Payload, item_result,
};

/// A picture or embedding to classify, with its id.
#[derive(Debug)]
pub(crate) struct InputItem {
    /// Comes back with the reply.
    pub id: String,
    /// The picture or embedding, or why it cannot be sent.
    pub input: Result<Input, Unusable>,
}

/// The outcome of an item, as the stream reports it.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its position among the inputs, from 0.
    pub index: u64,
    /// The id of the item that it answers.
    pub id: String,
    /// The answer, or why there is none.
    pub outcome: Result<Classification, ItemError>,
    /// Seconds from handing it to the connection to its answer.
    pub seconds: f64,
}

/// How a stream is paced, and what is asked of each answer.
#[derive(Clone, Debug)]
pub(crate) struct StreamOptions {
    /// Most items in flight, at least 1.
    pub window: usize,
    /// The server's message limit in bytes.
    pub limit: usize,
    /// Time after which an answer is useless.
    pub time_limit: Option<prost_types::Duration>,
}

/// Labelled examples as items to classify, in their order, read as they are
/// taken. A file that no message of `limit` bytes can carry is unusable.
pub(crate) fn items(
    labelled: Labelled,
    limit: usize,
) -> mpsc::Receiver<Result<InputItem, Failure>> {
    let part = Part {
        labelled,
        purpose: crate::labelled::Purpose::Training,
        prefix: String::new(),
    };
    let mut loading = reader::start(vec![part], limit);
    let (sender, items) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(loaded) = loading.recv().await {
            let item = loaded.map(|it| InputItem {
                id: it.id,
                input: it.input,
            });
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    items
}

/// Items in flight, by their sequence in the server's stream: index, id, and
/// when each was sent.
type Pending = RefCell<HashMap<u64, (u64, String, Instant)>>;

/// Classifies every item and gives each one's reply to `take`: in the order of
/// the items if the configuration says so, otherwise as they are ready.
pub(crate) async fn classify(
    connection: &Connection,
    config: ClassifyStreamConfig,
    options: &StreamOptions,
    items: mpsc::Receiver<Result<InputItem, Failure>>,
    mut take: impl FnMut(Reply) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let doing = format!("classifying with {:?}", config.cache);
    let ordered = config.ordered;
    let (requests, stream) = requests::channel();
    let (unsent, mut unsent_replies) = mpsc::unbounded_channel();
    let permits = Semaphore::new(options.window.max(1));
    let pending = Pending::default();

    requests
        .send(ClassifyStreamRequest {
            payload: Some(Payload::Config(config)),
        })
        .await;
    let sender = ItemSender {
        batch: Batch::new(options.limit),
        time_limit: options.time_limit,
        requests,
        unsent,
        permits: &permits,
        pending: &pending,
    };
    let sending = sender.run(items);

    let receiving = async {
        let failed = |status| connection.failure(&doing, status);
        let mut client = connection.classify();
        let mut answers = client
            .classify_stream(stream)
            .await
            .map_err(failed)?
            .into_inner();
        let mut delivery = Delivery {
            ordered,
            early: BTreeMap::new(),
            next: 0,
            permits: &permits,
            take: &mut take,
        };
        let (mut answered, mut all_read) = (false, false);
        while !answered || !all_read {
            tokio::select! {
                reply = unsent_replies.recv(), if !all_read => match reply {
                    Some(reply) => delivery.deliver(reply)?,
                    None => all_read = true,
                },
                answer = answers.message(), if !answered => match answer.map_err(failed)? {
                    Some(answer) => {
                        for result in answer.results {
                            delivery.deliver(reply(result, &pending)?)?;
                        }
                    }
                    None => {
                        answered = true;
                        // The sender drops its channels together: while this one
                        // is open, the server has not been told the end.
                        if !pending.borrow().is_empty() || !unsent_replies.is_closed() {
                            return Err(Failure::Broken(format!(
                                "{doing}: the server ended the stream before every item was \
                                 answered"
                            )));
                        }
                    }
                },
            }
        }
        Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

/// Gives replies to the command, in their order if that is asked for; each
/// makes room for another item.
struct Delivery<'a, T> {
    ordered: bool,
    /// Replies that came before those of earlier items.
    early: BTreeMap<u64, Reply>,
    next: u64,
    permits: &'a Semaphore,
    take: &'a mut T,
}

impl<T: FnMut(Reply) -> Result<(), Failure>> Delivery<'_, T> {
    fn deliver(&mut self, reply: Reply) -> Result<(), Failure> {
        if !self.ordered {
            return self.give(reply);
        }
        self.early.insert(reply.index, reply);
        while let Some(reply) = self.early.remove(&self.next) {
            self.give(reply)?;
            self.next += 1;
        }
        Ok(())
    }

    fn give(&mut self, reply: Reply) -> Result<(), Failure> {
        (self.take)(reply)?;
        self.permits.add_permits(1);
        Ok(())
    }
}

/// The reply that a result stands for.
fn reply(result: ItemResult, pending: &Pending) -> Result<Reply, Failure> {
    let sent = pending.borrow_mut().remove(&result.sequence);
    let Some((index, id, sent)) = sent else {
        return Err(Failure::Broken(format!(
            "the server answered item {} (sequence {}) twice, or it was never sent",
            result.id, result.sequence
        )));
    };
    let outcome = match result.outcome {
        Some(item_result::Outcome::Classification(answer)) => Ok(answer),
        Some(item_result::Outcome::Error(status)) => Err(status.into()),
        None => {
            return Err(Failure::Broken(format!(
                "the server's answer to {id} is empty"
            )));
        }
    };
    Ok(Reply {
        index,
        id,
        outcome,
        seconds: sent.elapsed().as_secs_f64(),
    })
}

struct ItemSender<'a> {
    batch: Batch<Item>,
    time_limit: Option<prost_types::Duration>,
    requests: RequestSender<ClassifyStreamRequest>,
    unsent: mpsc::UnboundedSender<Reply>,
    permits: &'a Semaphore,
    pending: &'a Pending,
}

impl ItemSender<'_> {
    async fn run(
        mut self,
        mut items: mpsc::Receiver<Result<InputItem, Failure>>,
    ) -> Result<(), Failure> {
        let (mut index, mut sequence) = (0, 0);
        loop {
            // Before waiting, what is ready is sent: a batch that waited for
            // permits that only its own answers give back would never go.
            let read = match items.try_recv() {
                Ok(read) => Some(read),
                Err(_) => {
                    self.flush().await;
                    items.recv().await
                }
            };
            let Some(read) = read else { break };
            let read = read?;
            let permit = match self.permits.try_acquire() {
                Ok(permit) => permit,
                Err(_) => {
                    self.flush().await;
                    let permit = self.permits.acquire().await;
                    permit.map_err(|error| Failure::Broken(error.to_string()))?
                }
            };
            // Given back when the reply is delivered.
            permit.forget();
            let item = read.input.map(|input| Item {
                id: read.id.chars().take(256).collect(),
                input: Some(input),
                time_limit: self.time_limit,
            });
            match item.and_then(|item| self.batch.check(&item).map(|()| item)) {
                Ok(item) => {
                    let waiting = (index, read.id, Instant::now());
                    self.pending.borrow_mut().insert(sequence, waiting);
                    sequence += 1;
                    if let Some(items) = self.batch.push(item) {
                        self.send(items).await;
                    }
                }
                Err(why) => {
                    let outcome = Err(why.error());
                    let _ = self.unsent.send(Reply {
                        index,
                        id: read.id,
                        outcome,
                        seconds: 0.0,
                    });
                }
            }
            index += 1;
        }
        self.flush().await;
        self.requests.finish();
        Ok(())
    }

    async fn flush(&mut self) {
        if let Some(items) = self.batch.take() {
            self.send(items).await;
        }
    }

    /// A closed channel means that the call has ended; its answer says why.
    async fn send(&mut self, items: Vec<Item>) {
        let payload = Some(Payload::Items(ItemBatch { items }));
        self.requests.send(ClassifyStreamRequest { payload }).await;
    }
}
