//! The flags of `tipserve bench`, and what they ask for.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};

use tipserve_cli::failure::Failure;

/// What `tipserve bench` takes on its command line.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("classifiers").required(true).multiple(true).args(["cache", "caches"]))]
#[command(group = ArgGroup::new("content").required(true).args(["pictures", "embeddings", "random_embeddings"]))]
#[command(group = ArgGroup::new("arrivals").args(["concurrency", "rate"]))]
#[command(group = ArgGroup::new("length").args(["duration", "count"]))]
pub struct BenchArgs {
    /// Picture files and folders (walked) to send, over and over. They are
    /// read into memory before the load begins.
    #[arg(value_name = "FILE|DIR")]
    pub pictures: Vec<PathBuf>,
    /// A classifier: CACHE, CACHE@VERSION or CACHE@ALIAS. Several: each item
    /// goes to one of them, drawn at random.
    #[arg(long, value_name = "CACHE[@VERSION|@ALIAS]")]
    pub cache: Vec<String>,
    /// All caches whose ids match: '*' stands for any characters, '?' for one.
    #[arg(long, value_name = "PATTERN")]
    pub caches: Vec<String>,
    /// Send the rows of this file's `features` instead of pictures.
    #[arg(long, value_name = "FILE.npz")]
    pub embeddings: Option<PathBuf>,
    /// Send random embeddings of the server's width instead of pictures.
    #[arg(long)]
    pub random_embeddings: bool,
    /// Use the first N pictures or rows (of random embeddings: N different
    /// ones).
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub inputs: u32,
    /// Decode the pictures here, once, and send their pixels: the server only
    /// resizes and crops.
    #[arg(long, conflicts_with_all = ["embeddings", "random_embeddings"])]
    pub raw: bool,

    /// Closed loop: this many items in flight at every moment, over all streams
    /// together [default: 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub concurrency: Option<u32>,
    /// Open loop: this many items a second, arriving at random (Poisson),
    /// however slow the server is. Latency counts from when an item was due.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Time after which an answer is useless: the server is told, and goodput
    /// counts the answers that kept it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub deadline: Option<Duration>,
    /// How long to measure [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// How many items to measure, instead of how long.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Load before the measurement begins, which is not counted.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds_or_none)]
    pub warmup: Duration,
    /// How long to wait for outstanding answers at the end.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds_or_none)]
    pub drain: Duration,

    /// Streams for each cache.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub streams: u32,
    /// A unary call for each item instead of streams.
    #[arg(long, conflicts_with = "streams")]
    pub unary: bool,
    /// Connections that share the streams or calls [default: one for every
    /// 100 streams].
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,
    /// Most items that are due together in one message of a stream.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pack: u32,
    /// How many of the best classes each answer carries.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..))]
    pub top_k: i32,
    /// Ask the server how long each stage took, and show the means.
    #[arg(long)]
    pub timings: bool,
    /// Run as offline work, which yields to interactive work.
    #[arg(long)]
    pub bulk: bool,
    /// Seed of the arrivals, the draw of caches and the random embeddings.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
}

/// When items are sent: as answers come (closed loop), or by a clock (open
/// loop).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// A fixed number of items in flight.
    Closed {
        /// Items in flight at any time, over all streams.
        concurrency: usize,
    },
    /// Open loop: items are due at random times of a fixed mean rate, whether
    /// or not answers come.
    Open {
        /// Mean items per second, over all streams.
        rate: f64,
    },
}

/// How long the measurement runs, after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// For this long; items due later are not sent.
    Duration(Duration),
    /// Until this many counted items were issued.
    Count(u64),
}

impl BenchArgs {
    /// By default closed, with 64 items in flight.
    pub fn arrivals(&self) -> Arrivals {
        match (self.rate, self.concurrency) {
            (Some(rate), _) => Arrivals::Open { rate },
            (None, concurrency) => Arrivals::Closed {
                concurrency: concurrency.unwrap_or(64) as usize,
            },
        }
    }

    /// `--duration` or `--count`; ten seconds if neither was given.
    pub fn length(&self) -> Length {
        match (self.count, self.duration) {
            (Some(count), _) => Length::Count(count),
            (None, duration) => Length::Duration(duration.unwrap_or(Duration::from_secs(10))),
        }
    }

    /// How many connections to open for this many streams.
    ///
    /// # Errors
    /// [`Failure::Usage`] if fewer are given than the streams fit on.
    pub fn connections(&self, streams: usize) -> Result<usize, Failure> {
        /// What servers commonly allow on one connection.
        const STREAMS_PER_CONNECTION: usize = 100;
        let enough = streams.div_ceil(STREAMS_PER_CONNECTION).max(1);
        match self.connections.map(|given| given as usize) {
            // More streams than the server lets a connection have would never
            // be opened.
            Some(given) if !self.unary && given * 1000 < streams => Err(Failure::Usage(format!(
                "--connections {given} is too few for {streams} streams: at most 1000 fit on one"
            ))),
            Some(given) => Ok(given),
            None if self.unary => Ok(1),
            None => Ok(enough),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

fn seconds(text: &str) -> Result<Duration, String> {
    number(text)
        .filter(|value| *value > 0.0)
        .and_then(|value| Duration::try_from_secs_f64(value).ok())
        .filter(|value| *value <= Duration::from_secs(1_000_000))
        .ok_or_else(|| "must be a number over 0, at most 1000000".to_owned())
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    match number(text) {
        Some(0.0) => Ok(Duration::ZERO),
        _ => seconds(text).map_err(|_| "must be a number from 0 to 1000000".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    number(text)
        .filter(|value| *value > 0.0 && *value <= 1e7)
        .ok_or_else(|| "must be a number over 0, at most 10000000".to_owned())
}
