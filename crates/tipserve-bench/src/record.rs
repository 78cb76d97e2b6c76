//! The outcome of every item: each is counted once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tonic::Code;
use tonic_types::{RpcStatusExt as _, StatusExt as _};

use tipserve_api::{code_name, v1::Timings};

/// Longest latency that the histogram resolves, in microseconds.
const LONGEST: u64 = 3_600_000_000;

/// An item, sent or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadItem {
    /// When it was to be sent; latency counts from here.
    pub at: Instant,
    /// Index of its input among those loaded.
    pub input: usize,
    /// Whether it belongs to the measurement (not to the warm-up).
    pub counted: bool,
}

/// The outcome of an item that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unanswered {
    /// The server refused it: it is overloaded, or not ready.
    Refused,
    /// Its deadline passed in the server.
    Expired,
    /// Anything else that the server said.
    Failed,
    /// Sent, and its stream ended without an answer.
    Lost,
    /// Due, but the load ended before a connection took it.
    Unsent,
}

impl Unanswered {
    /// The key of this outcome in the JSON report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Unsent => "unsent",
        }
    }
}

/// Why an item was not answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// Where the item's way ended.
    pub kind: Unanswered,
    /// The gRPC code's name; empty if this side gave up.
    pub code: &'static str,
    /// `ErrorInfo.reason`, or this side's own.
    pub reason: String,
}

impl Reason {
    /// Of an item that this side gave up.
    pub fn own(kind: Unanswered, reason: &str) -> Self {
        Self {
            kind,
            code: "",
            reason: reason.to_owned(),
        }
    }

    /// Of an item that the server answered with a status.
    pub fn of_item(status: &tonic_types::Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        Self::of_code(Code::from_i32(status.code), reason)
    }

    /// Of a unary call's status. A deadline that tonic's own client enforced
    /// comes as CANCELLED.
    pub fn of_call(status: &tonic::Status) -> Self {
        let timed_out = status.code() == Code::Cancelled && status.message() == "Timeout expired";
        if timed_out {
            return Self::of_code(Code::DeadlineExceeded, Some("CLIENT_TIMEOUT".to_owned()));
        }
        if lost_connection(status) {
            return Self::of_stream(status);
        }
        let reason = status.get_details_error_info().map(|info| info.reason);
        Self::of_code(status.code(), reason)
    }

    /// Of items that were on their way when their stream broke.
    pub fn of_stream(status: &tonic::Status) -> Self {
        let reason = status
            .get_details_error_info()
            .map(|info| info.reason)
            .filter(|reason| !reason.is_empty());
        Self {
            kind: Unanswered::Lost,
            code: code_name(status.code()),
            reason: reason.unwrap_or_else(|| "STREAM_BROKEN".to_owned()),
        }
    }

    fn of_code(code: Code, reason: Option<String>) -> Self {
        Self {
            kind: match code {
                Code::ResourceExhausted | Code::Unavailable => Unanswered::Refused,
                Code::DeadlineExceeded => Unanswered::Expired,
                _ => Unanswered::Failed,
            },
            code: code_name(code),
            reason: reason.unwrap_or_default(),
        }
    }
}

/// Whether a status was made up by the transport, not sent by the server.
pub fn lost_connection(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The time that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The first moment whose items are counted.
    pub from: Instant,
    /// Its end; none if it ends with the last answer.
    pub until: Option<Instant>,
}

impl Window {
    /// Whether a moment lies in it.
    pub fn holds(&self, at: Instant) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }
}

/// Sums of the server's own times.
#[derive(Clone, Debug, Default)]
pub struct StageSums {
    /// Answers whose server sent stage timings (`--timings`).
    pub count: u64,
    /// Decode queue, decode, queue, encode, head, total: seconds.
    pub seconds: [f64; 6],
    /// Sum of the batch sizes that those answers were encoded in.
    pub batch: f64,
}

/// How many items ended in which way.
#[derive(Debug)]
pub struct Record {
    window: Window,
    deadline: Option<Duration>,
    /// Counted items that were handed to a connection.
    pub sent: u64,
    /// Counted items that were answered.
    pub answered: u64,
    /// Counted items that were answered within the deadline.
    pub in_time: u64,
    /// Counted items that were not answered, by reason.
    pub unanswered: BTreeMap<Reason, u64>,
    /// Answers that came within the window, whenever their items were due.
    pub arrived: u64,
    /// Those of them that kept the deadline.
    pub arrived_in_time: u64,
    /// Answers to items that were never sent, or second ones.
    pub unexpected: u64,
    /// When the last counted item was answered.
    pub last_answer: Option<Instant>,
    /// From due to answered, microseconds.
    pub latency: Histogram<u64>,
    /// From due to handed to the connection, microseconds.
    pub lag: Histogram<u64>,
    /// Stage times of the counted items that were answered.
    pub stages: StageSums,
}

impl Record {
    /// A record of nothing yet, which counts the items due within `window`.
    pub fn new(window: Window, deadline: Option<Duration>) -> Self {
        Self {
            window,
            deadline,
            sent: 0,
            answered: 0,
            in_time: 0,
            unanswered: BTreeMap::new(),
            arrived: 0,
            arrived_in_time: 0,
            unexpected: 0,
            last_answer: None,
            latency: histogram(),
            lag: histogram(),
            stages: StageSums::default(),
        }
    }

    /// Items were handed to a connection.
    pub fn sent(&mut self, items: impl Iterator<Item = LoadItem>, now: Instant) {
        for item in items.filter(|item| item.counted) {
            self.sent += 1;
            self.lag.saturating_record(micros(now - item.at));
        }
    }

    /// Records an answer: its latency counts from when the item was due, not
    /// from when it was sent.
    pub fn answered(&mut self, item: LoadItem, now: Instant, timings: Option<&Timings>) {
        let took = now - item.at;
        let in_time = self.deadline.is_none_or(|deadline| took <= deadline);
        // With an open end the window is the counted items' own.
        let arrived = match self.window.until {
            Some(_) => self.window.holds(now),
            None => item.counted,
        };
        self.arrived += u64::from(arrived);
        self.arrived_in_time += u64::from(arrived && in_time);
        if !item.counted {
            return;
        }
        self.answered += 1;
        self.in_time += u64::from(in_time);
        self.last_answer = Some(now);
        self.latency.saturating_record(micros(took));
        if let Some(timings) = timings {
            self.stages.add(timings);
        }
    }

    /// An item will not be answered.
    pub fn not_answered(&mut self, item: LoadItem, reason: &Reason) {
        if !item.counted {
            return;
        }
        match self.unanswered.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                self.unanswered.insert(reason.clone(), 1);
            }
        }
    }

    /// How many items were not_answered in this way.
    pub fn count(&self, kind: Unanswered) -> u64 {
        self.unanswered
            .iter()
            .filter(|(reason, _)| reason.kind == kind)
            .map(|(_, count)| count)
            .sum()
    }

    /// Seconds measured, at most up to now.
    pub fn seconds(&self, now: Instant) -> f64 {
        let end = match self.window.until {
            Some(until) => until.min(now),
            None => self.last_answer.unwrap_or(now),
        };
        end.saturating_duration_since(self.window.from)
            .as_secs_f64()
    }
}

impl StageSums {
    fn add(&mut self, timings: &Timings) {
        self.count += 1;
        self.batch += f64::from(timings.batch_size);
        let stages = [
            timings.decode_queue_seconds,
            timings.decode_seconds,
            timings.queue_seconds,
            timings.encode_seconds,
            timings.head_seconds,
            timings.total_seconds,
        ];
        for (sum, seconds) in self.seconds.iter_mut().zip(stages) {
            *sum += seconds;
        }
    }
}

fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants that it takes")]
    Histogram::new_with_bounds(1, LONGEST, 3).expect("1 to LONGEST, 3 digits")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
