//! What load to put on the server, and how it ended.

use std::time::Duration;

use super::options::{Arrivals, Length};
use tipserve_api::v1::ClassifyStreamConfig;
use tipserve_cli::credentials::AuthChannel;

/// The load to put on the server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Closed or open loop, and how fast.
    pub arrivals: Arrivals,
    /// How long the measurement runs, after the warm-up.
    pub length: Length,
    /// Time under load before counting begins: the server's batch-cost model
    /// settles meanwhile.
    pub warmup: Duration,
    /// How long to wait for outstanding answers.
    pub drain: Duration,
    /// Time after which an answer is useless.
    pub deadline: Option<Duration>,
    /// Seed of the arrivals and draws.
    pub seed: u64,
    /// Most items of one message.
    pub pack: usize,
    /// A call for each item, instead of streams.
    pub unary: bool,
}

/// Where items go: a stream, or a cache by unary calls.
#[derive(Clone, Debug)]
pub struct Target {
    /// The connection that carries this target's items; several targets may
    /// share one.
    pub channel: AuthChannel,
    /// The cache, the options and the priority of every item.
    pub config: ClassifyStreamConfig,
}

/// Why a run of the load generator stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every item that was issued has ended.
    Complete,
    /// Answers were still outstanding when the time to wait for them was over.
    DrainTimeout,
    /// Ctrl-C: what was measured so far is reported.
    Interrupted,
}
