//! ClassifyStream with a bounded window: at most so many items are read, sent
//! and not yet reported, however many there are and however slow the server
//! or whoever reads the answers is.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use tokio::sync::{Semaphore, mpsc};

use super::{
    batch::Batch,
    connect::Connection,
    documents::ItemError,
    failure::Failure,
    files::Unusable,
    requests::{self, Requests},
};
use tipserve_api::v1::{
    Classification, ClassifyStreamConfig, ClassifyStreamRequest, Input, Item, ItemBatch,
    ItemResult, classify_stream_request::Payload, item_result,
};

/// Something to classify.
#[derive(Debug)]
pub struct Entry {
    /// Comes back with the reply.
    pub id: String,
    /// The picture or embedding.
    pub input: Result<Input, Unusable>,
}

/// What became of an entry.
#[derive(Debug)]
pub struct Reply {
    /// Its position among the entries, from 0.
    pub index: u64,
    /// Its id.
    pub id: String,
    /// The answer, or why there is none.
    pub outcome: Result<Classification, ItemError>,
    /// From handing it to the connection to its answer.
    pub seconds: f64,
}

/// How to stream.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Items on their way at most, at least 1.
    pub window: usize,
    /// The server's message limit in bytes.
    pub limit: usize,
    /// After how long an answer is of no use.
    pub time_limit: Option<prost_types::Duration>,
}

/// Items that were sent and not yet answered, by their position in the
/// server's stream.
type Pending = RefCell<HashMap<u64, (u64, String, Instant)>>;

/// Classifies every entry and gives each one's reply to `take`: in the order
/// of the entries where the configuration says so, else as they are ready.
pub async fn classify(
    connection: &Connection,
    config: ClassifyStreamConfig,
    flow: &Flow,
    entries: mpsc::Receiver<Result<Entry, Failure>>,
    mut take: impl FnMut(Reply) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let doing = format!("classifying with {:?}", config.cache);
    let ordered = config.ordered;
    let (requests, stream) = requests::channel();
    let (unsent, mut unsent_replies) = mpsc::unbounded_channel();
    let room = Semaphore::new(flow.window.max(1));
    let pending = Pending::default();

    requests
        .send(ClassifyStreamRequest {
            payload: Some(Payload::Config(config)),
        })
        .await;
    let feeder = Feeder {
        batch: Batch::new(flow.limit),
        time_limit: flow.time_limit,
        requests,
        unsent,
        room: &room,
        pending: &pending,
    };
    let feeding = feeder.run(entries);

    let receiving = async {
        let failed = |status| connection.failure(&doing, status);
        let mut client = connection.classify();
        let mut answers = client
            .classify_stream(stream)
            .await
            .map_err(failed)?
            .into_inner();
        let mut early = BTreeMap::new();
        let mut next = 0;
        let mut answered = false;
        let mut hand_on = |reply: Reply| -> Result<(), Failure> {
            if !ordered {
                take(reply)?;
                room.add_permits(1);
                return Ok(());
            }
            early.insert(reply.index, reply);
            while let Some(reply) = early.remove(&next) {
                take(reply)?;
                room.add_permits(1);
                next += 1;
            }
            Ok(())
        };
        let mut fed = false;
        while !answered || !fed {
            tokio::select! {
                reply = unsent_replies.recv(), if !fed => match reply {
                    Some(reply) => hand_on(reply)?,
                    None => fed = true,
                },
                answer = answers.message(), if !answered => match answer.map_err(failed)? {
                    Some(answer) => {
                        for result in answer.results {
                            hand_on(reply(result, &pending)?)?;
                        }
                    }
                    None => {
                        answered = true;
                        // The feeder drops its senders together: while this one
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
    tokio::try_join!(feeding, receiving)?;
    Ok(())
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

struct Feeder<'a> {
    batch: Batch<Item>,
    time_limit: Option<prost_types::Duration>,
    requests: Requests<ClassifyStreamRequest>,
    unsent: mpsc::UnboundedSender<Reply>,
    room: &'a Semaphore,
    pending: &'a Pending,
}

impl Feeder<'_> {
    async fn run(
        mut self,
        mut entries: mpsc::Receiver<Result<Entry, Failure>>,
    ) -> Result<(), Failure> {
        let (mut index, mut sequence) = (0, 0);
        loop {
            // Whenever this must wait, what is ready goes first: a batch that
            // waited for room that only its own answers make would never go.
            let entry = match entries.try_recv() {
                Ok(entry) => Some(entry),
                Err(_) => {
                    self.flush().await;
                    entries.recv().await
                }
            };
            let Some(entry) = entry else { break };
            let entry = entry?;
            let permit = match self.room.try_acquire() {
                Ok(permit) => permit,
                Err(_) => {
                    self.flush().await;
                    let permit = self.room.acquire().await;
                    permit.map_err(|error| Failure::Broken(error.to_string()))?
                }
            };
            // Given back where the reply is handed on.
            permit.forget();
            let item = entry.input.map(|input| Item {
                id: entry.id.chars().take(256).collect(),
                input: Some(input),
                time_limit: self.time_limit,
            });
            match item.and_then(|item| self.batch.check(&item).map(|()| item)) {
                Ok(item) => {
                    let waiting = (index, entry.id, Instant::now());
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
                        id: entry.id,
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
