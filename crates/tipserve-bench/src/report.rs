//! What a load came to: one JSON document, or a few lines for people.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    options::Arrivals,
    plan::{End, Plan},
    record::{Record, Unanswered},
};
use tipserve_cli::screen::{number, table};

/// What was asked of the server.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    /// The server's address, as the user gave it.
    pub address: String,
    /// "pictures", "raw pictures", "embeddings" or "random embeddings".
    pub inputs: &'static str,
    /// Number of distinct inputs that items draw from.
    pub input_count: usize,
    /// Mean bytes of one on the wire.
    pub input_bytes: f64,
    /// Number of caches that items are spread over.
    pub caches: usize,
    /// Streams; 0 if calls are unary.
    pub streams: usize,
    /// Number of HTTP/2 connections opened.
    pub connections: usize,
}

/// The report; docs/cli.md lists the fields.
#[derive(Debug, Serialize)]
pub struct BenchDocument {
    #[serde(flatten)]
    setup: Setup,
    mode: &'static str,
    concurrency: Option<usize>,
    rate: Option<f64>,
    deadline_seconds: Option<f64>,
    warmup_seconds: f64,
    seed: u64,
    interrupted: bool,
    seconds: f64,
    sent: u64,
    answered: u64,
    in_time: u64,
    refused: u64,
    expired: u64,
    failed: u64,
    lost: u64,
    unsent: u64,
    unexpected: u64,
    caches_used: usize,
    streams_used: usize,
    reasons: Vec<ReasonDocument>,
    answers_per_second: f64,
    goodput_per_second: f64,
    latency_seconds: Option<Spread>,
    send_lag_seconds: Option<Spread>,
    server_seconds: Option<StagesDocument>,
    client_cpu_seconds: f64,
    client_cpu_cores: f64,
    client_cpu_seconds_per_item: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ReasonDocument {
    outcome: &'static str,
    code: Option<&'static str>,
    reason: Option<String>,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Spread {
    mean: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

/// Means over the answers that carried times.
#[derive(Debug, Serialize)]
struct StagesDocument {
    decode_queue: f64,
    decode: f64,
    queue: f64,
    encode: f64,
    head: f64,
    total: f64,
    batch_size: f64,
}

/// What the load itself cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor time of this process while it ran.
    pub cpu: Duration,
    /// Time that it ran, warm-up and waiting for the last answers included.
    pub wall: Duration,
    /// Items that it issued in that time, the warm-up's included.
    pub items: u64,
}

impl Spread {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |share| histogram.value_at_quantile(share) as f64 * 1e-6;
        (!histogram.is_empty()).then(|| Self {
            mean: histogram.mean() * 1e-6,
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: histogram.max() as f64 * 1e-6,
        })
    }
}

impl BenchDocument {
    /// Summarises a finished load: rates over its window, quantiles of its
    /// latency.
    pub fn new(
        setup: Setup,
        plan: &Plan,
        record: &Record,
        (caches_used, streams_used): (usize, usize),
        end: End,
        cost: Cost,
    ) -> Self {
        let seconds = record.seconds(std::time::Instant::now());
        let per_second = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        let (mode, concurrency, rate) = match plan.arrivals {
            Arrivals::Closed { concurrency } => ("closed", Some(concurrency), None),
            Arrivals::Open { rate } => ("open", None, Some(rate)),
        };
        let stages = &record.stages;
        let cpu = cost.cpu.as_secs_f64();
        Self {
            setup,
            mode,
            concurrency,
            rate,
            deadline_seconds: plan.deadline.map(|it| it.as_secs_f64()),
            warmup_seconds: plan.warmup.as_secs_f64(),
            seed: plan.seed,
            interrupted: end == End::Interrupted,
            seconds,
            sent: record.sent,
            answered: record.answered,
            in_time: record.in_time,
            refused: record.count(Unanswered::Refused),
            expired: record.count(Unanswered::Expired),
            failed: record.count(Unanswered::Failed),
            lost: record.count(Unanswered::Lost),
            unsent: record.count(Unanswered::Unsent),
            unexpected: record.unexpected,
            caches_used,
            streams_used: if plan.unary { 0 } else { streams_used },
            reasons: record
                .unanswered
                .iter()
                .map(|(reason, count)| ReasonDocument {
                    outcome: reason.kind.name(),
                    code: Some(reason.code).filter(|code| !code.is_empty()),
                    reason: Some(reason.reason.clone()).filter(|reason| !reason.is_empty()),
                    count: *count,
                })
                .collect(),
            answers_per_second: per_second(record.arrived),
            goodput_per_second: per_second(record.arrived_in_time),
            latency_seconds: Spread::of(&record.latency),
            send_lag_seconds: Spread::of(&record.lag),
            server_seconds: (stages.count > 0).then(|| {
                let count = stages.count as f64;
                let [decode_queue, decode, queue, encode, head, total] =
                    stages.seconds.map(|sum| sum / count);
                StagesDocument {
                    decode_queue,
                    decode,
                    queue,
                    encode,
                    head,
                    total,
                    batch_size: stages.batch / count,
                }
            }),
            client_cpu_seconds: cpu,
            client_cpu_cores: cpu / cost.wall.as_secs_f64().max(1e-9),
            client_cpu_seconds_per_item: (cost.items > 0).then(|| cpu / cost.items as f64),
        }
    }

    /// Items that failed or were lost, though the server was not full and
    /// nobody interrupted: what makes the command fail.
    pub fn failures(&self) -> u64 {
        let lost = if self.interrupted { 0 } else { self.lost };
        self.failed + lost + self.unexpected
    }

    /// The report as the lines that a terminal shows.
    pub fn text(&self) -> String {
        let setup = &self.setup;
        let load = match (self.concurrency, self.rate) {
            (Some(concurrency), _) => format!("closed loop, {concurrency} on their way"),
            (None, rate) => format!("open loop, {} a second", number(rate.unwrap_or(0.0))),
        };
        let ways = match setup.streams {
            0 => "unary calls".to_owned(),
            streams => counted(streams, "stream"),
        };
        let mut lines = vec![
            format!(
                "{} of {} ({} different, {:.1} kB each)",
                load,
                setup.inputs,
                setup.input_count,
                setup.input_bytes / 1000.0
            ),
            format!(
                "{}, {ways}, {}, measured for {:.1} s{}",
                counted(setup.caches, "cache"),
                counted(setup.connections, "connection"),
                self.seconds,
                if self.interrupted {
                    " (interrupted)"
                } else {
                    ""
                }
            ),
            String::new(),
            format!("{:>12} answers a second", rounded(self.answers_per_second)),
        ];
        if let Some(deadline) = self.deadline_seconds {
            lines.push(format!(
                "{:>12} within {} s a second (goodput)",
                rounded(self.goodput_per_second),
                number(deadline)
            ));
        }
        if let Some(spread) = &self.latency_seconds {
            lines.push(format!(
                "{:>12} p50, {} p95, {} p99, {} largest",
                milliseconds(spread.p50),
                milliseconds(spread.p95),
                milliseconds(spread.p99),
                milliseconds(spread.max)
            ));
        }
        if let Some(stages) = &self.server_seconds {
            lines.push(format!(
                "{:>12} mean batch; in the server: decode {} after {}, encode {} after {}, head {}",
                format!("{:.1}", stages.batch_size),
                milliseconds(stages.decode),
                milliseconds(stages.decode_queue),
                milliseconds(stages.encode),
                milliseconds(stages.queue),
                milliseconds(stages.head)
            ));
        }
        lines.push(format!(
            "{:>12} of a core for this client{}",
            format!("{:.3}", self.client_cpu_cores),
            self.client_cpu_seconds_per_item
                .map(|it| format!(", {:.1} µs an item", it * 1e6))
                .unwrap_or_default()
        ));
        lines.push(String::new());
        lines.push(self.counts());
        if let Some(lag) = self.send_lag_seconds.as_ref().filter(|lag| lag.p99 > 0.01) {
            lines.push(format!(
                "items left this client up to {} after they were due (p99): the server's flow \
                 control, or this machine, held them up",
                milliseconds(lag.p99)
            ));
        }
        lines.join("\n")
    }

    fn counts(&self) -> String {
        let mut rows = vec![
            vec!["sent".to_owned(), self.sent.to_string(), String::new()],
            vec![
                "answered".to_owned(),
                self.answered.to_string(),
                match self.deadline_seconds {
                    Some(_) => format!("{} in time", self.in_time),
                    None => String::new(),
                },
            ],
        ];
        for reason in &self.reasons {
            let why = [reason.code.unwrap_or_default()]
                .into_iter()
                .chain(reason.reason.as_deref())
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            rows.push(vec![
                reason.outcome.to_owned(),
                reason.count.to_string(),
                why,
            ]);
        }
        if self.unexpected > 0 {
            rows.push(vec![
                "unexpected".to_owned(),
                self.unexpected.to_string(),
                "answers to items that were never sent, or second ones".to_owned(),
            ]);
        }
        table(&["items", "count", ""], &[1], rows)
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn rounded(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// Seconds as milliseconds with three digits or so.
fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1e3;
    if value < 10.0 {
        format!("{value:.2} ms")
    } else if value < 100.0 {
        format!("{value:.1} ms")
    } else {
        format!("{value:.0} ms")
    }
}
