//! The queue of texts: threads of its own that tokenise and encode, a few texts
//! at a time, each flow in its turn.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::CatalogError;
use tipserve_engine::FlowId;

/// The embedding of a text, with its tokens counted.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedText {
    /// Its raw or unit feature.
    pub feature: Vec<f32>,
    /// How many tokens were encoded, start and end tokens included.
    pub tokens: usize,
}

/// A text's feature, or the error.
pub type TextResult = Result<EncodedText, CatalogError>;

/// Texts to encode in one step.
pub struct TextBatch {
    /// The texts, as they were sent.
    pub texts: Vec<String>,
    /// Whether texts that are too long are truncated.
    pub truncate: bool,
    /// Whether features keep their length.
    pub raw: bool,
    /// Who the texts are from: flows take turns in the queue.
    pub flow: FlowId,
    /// When the features are of no more use.
    pub deadline: Option<Instant>,
    /// Set when nobody wants them any more.
    pub cancelled: Arc<AtomicBool>,
}

impl TextBatch {
    /// Checks that somebody still waits for it.
    ///
    /// # Errors
    /// [`CatalogError::DeadlineExceeded`], [`CatalogError::Cancelled`].
    pub fn check_wanted(&self) -> Result<(), CatalogError> {
        // What is given up at its deadline is cancelled, too.
        if (self.deadline).is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(CatalogError::DeadlineExceeded);
        }
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(CatalogError::Cancelled),
            false => Ok(()),
        }
    }
}

/// A batch, and where its answer goes.
struct Queued {
    batch: TextBatch,
    answer: oneshot::Sender<Result<Vec<TextResult>, CatalogError>>,
}

/// Batches that wait, by flow.
#[derive(Default)]
struct Waiting {
    flows: VecDeque<(FlowId, VecDeque<Queued>)>,
    closed: bool,
}

impl Waiting {
    fn push(&mut self, queued: Queued) {
        let flow = queued.batch.flow;
        match self.flows.iter_mut().find(|(known, _)| *known == flow) {
            Some((_, batches)) => batches.push_back(queued),
            None => self.flows.push_back((flow, VecDeque::from([queued]))),
        }
    }

    /// The next batch of the flow whose turn it is.
    fn pop(&mut self) -> Option<Queued> {
        let (flow, mut batches) = self.flows.pop_front()?;
        let next = batches.pop_front();
        if !batches.is_empty() {
            self.flows.push_back((flow, batches));
        }
        next
    }
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    pushed: Condvar,
}

/// Threads that encode texts. They end once the queue is dropped.
pub struct TextQueue(Arc<Shared>);

impl Drop for TextQueue {
    fn drop(&mut self) {
        self.0.waiting.lock().closed = true;
        self.0.pushed.notify_all();
    }
}

impl TextQueue {
    /// Starts `threads` that run `encode` on each batch.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(
        threads: usize,
        encode: impl Fn(&TextBatch) -> Result<Vec<TextResult>, CatalogError> + Send + Sync + 'static,
    ) -> io::Result<TextQueue> {
        let queue = TextQueue(Arc::default());
        let encode = Arc::new(encode);
        for index in 0..threads {
            let (shared, encode) = (Arc::clone(&queue.0), Arc::clone(&encode));
            std::thread::Builder::new()
                .name(format!("text-{index}"))
                .spawn(move || work(&shared, encode.as_ref()))?;
        }
        Ok(queue)
    }

    /// Puts a batch into the queue.
    pub fn push(
        &self,
        batch: TextBatch,
    ) -> oneshot::Receiver<Result<Vec<TextResult>, CatalogError>> {
        let (answer, receiver) = oneshot::channel();
        self.0.waiting.lock().push(Queued { batch, answer });
        self.0.pushed.notify_one();
        receiver
    }
}

fn work(
    shared: &Shared,
    encode: &(impl Fn(&TextBatch) -> Result<Vec<TextResult>, CatalogError> + ?Sized),
) {
    loop {
        let next = {
            let mut waiting = shared.waiting.lock();
            loop {
                match waiting.pop() {
                    Some(queued) => break queued,
                    None if waiting.closed => return,
                    None => shared.pushed.wait(&mut waiting),
                }
            }
        };
        let Queued { batch, answer } = next;
        let result = match batch.check_wanted() {
            Err(unwanted) => Err(unwanted),
            Ok(()) if answer.is_closed() => Err(CatalogError::Cancelled),
            // A panic costs only this batch; the hook has logged it.
            Ok(()) => catch_unwind(AssertUnwindSafe(|| encode(&batch)))
                .unwrap_or_else(|_| Err(CatalogError::internal("encoding texts panicked"))),
        };
        drop(batch);
        let _ = answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(flow: u64, text: &str) -> TextBatch {
        TextBatch {
            texts: vec![text.to_owned()],
            truncate: false,
            raw: false,
            flow: FlowId(flow),
            deadline: None,
            cancelled: Arc::default(),
        }
    }

    #[test]
    fn flows_take_turns_in_fairness_to_each_other() {
        let mut waiting = Waiting::default();
        for (flow, text) in [
            (1, "a1"),
            (1, "a2"),
            (1, "a3"),
            (2, "b1"),
            (3, "c1"),
            (2, "b2"),
        ] {
            let (answer, _) = oneshot::channel();
            let batch = batch(flow, text);
            waiting.push(Queued { batch, answer });
        }
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop())
            .map(|queued| queued.batch.texts.concat())
            .collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn cancellation_deadline_and_panics_cost_their_own_batch() {
        let queue = TextQueue::start(1, |batch| match batch.texts.concat().as_str() {
            "panic" => panic!("as asked"),
            _ => Ok(vec![Ok(EncodedText {
                feature: vec![1.0],
                tokens: 3,
            })]),
        })
        .expect("a thread");
        let cancelled = batch(1, "a");
        cancelled.cancelled.store(true, Ordering::Relaxed);
        let late = TextBatch {
            deadline: Some(Instant::now()),
            ..batch(1, "a")
        };
        let both = TextBatch {
            deadline: late.deadline,
            cancelled: Arc::clone(&cancelled.cancelled),
            ..batch(1, "a")
        };
        for (batch, outcome) in [
            (cancelled, Some("cancelled")),
            (late, Some("the call's deadline has passed")),
            (both, Some("the call's deadline has passed")),
            (
                batch(1, "panic"),
                Some("internal error: encoding texts panicked"),
            ),
            (batch(1, "a"), None),
        ] {
            let answer = queue.push(batch).blocking_recv().expect("an answer");
            let error = answer.err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), outcome);
        }
    }
}
