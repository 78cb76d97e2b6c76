//! `tipserve bench`: a load generator, open and closed loop.
//!
//! ```text
//!  schedule ─► load ─► queue ─► connection ─► server
//!  (when, to    │       (waits until                │
//!   which)      │        flow control lets it)      │
//!               └─ record ◄─────────────────────────┘
//! ```
//!
//! An item's latency counts from when it was due, not from when it left, so a
//! server that holds up its clients cannot hide it (no coordinated omission).
//!
//! - [`BenchArgs`]: the load to put on the server, parsed by clap.
//! - [`run`]: runs it, and reports the outcome of every item.
//!
//! ```
//! use clap::Parser;
//! use tipserve_bench::BenchArgs;
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     bench: BenchArgs,
//! }
//!
//! // 50 pictures a second, each useful for half a second.
//! let flags = ["bench", "--cache", "pets", "photos/", "--rate", "50", "--deadline", "0.5"];
//! assert_eq!(Cli::try_parse_from(flags)?.bench.rate, Some(50.0));
//! # Ok::<(), clap::Error>(())
//! ```

#![forbid(unsafe_code)]

mod inputs;
mod load;
mod options;
mod plan;
mod queue;
mod record;
mod report;
mod schedule;
mod wire;

use std::{future::Future, process::ExitCode, time::Instant};

pub use options::BenchArgs;

use load::Load;
use options::{Arrivals, Length};
use plan::{End, Plan, Target};
use report::{BenchDocument, Cost, Setup};
use tipserve_api::v1::{ClassifyOptions, ClassifyStreamConfig, ListCachesRequest, Priority};
use tipserve_cli::{
    Global,
    connect::Connection,
    credentials::AuthChannel,
    failure::{Completion, Failure},
    interrupted,
    screen::Screen,
};

/// Caches asked for in one ListCaches call.
const PAGE: i32 = 1000;

/// Bytes of a message that are aimed for.
const MESSAGE_BYTES: usize = 1 << 20;

/// Runs `tipserve bench`. An interruption ends the load, not the report.
pub fn run(args: BenchArgs, global: &Global) -> ExitCode {
    tipserve_cli::execute(global, async |screen| {
        measure(args, global, screen, interrupted()).await
    })
}

async fn measure(
    args: BenchArgs,
    global: &Global,
    screen: &Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Completion, Failure> {
    let mut interrupted = std::pin::pin!(interrupted);
    let prepared = tokio::select! {
        prepared = prepare(&args, global) => prepared?,
        () = &mut interrupted => return Err(Failure::Interrupted),
    };
    let Prepared {
        connection,
        load,
        setup,
        plan,
    } = prepared;
    let streams = tokio::select! {
        streams = load.open() => {
            streams.map_err(|status| connection.failure("opening the streams", status))?
        }
        () = &mut interrupted => return Err(Failure::Interrupted),
    };

    let total = match (plan.length, plan.arrivals) {
        (Length::Count(count), _) => Some(count),
        (Length::Duration(duration), Arrivals::Open { rate }) => {
            Some((duration.as_secs_f64() * rate) as u64)
        }
        (Length::Duration(_), Arrivals::Closed { .. }) => None,
    };
    let bar = screen.bar(total, "answers");
    let (started, cpu) = (Instant::now(), processor_time());
    let end = load
        .run(streams, interrupted, |record, now| {
            bar.set_position(record.answered);
            let seconds = record.seconds(now);
            if seconds > 0.0 {
                let p99 = record.latency.value_at_quantile(0.99) as f64 * 1e-3;
                let rate = record.arrived as f64 / seconds;
                bar.set_message(format!("{rate:.0}/s p99 {p99:.0} ms"));
            }
        })
        .await;
    let cost = Cost {
        cpu: processor_time().saturating_sub(cpu),
        wall: started.elapsed(),
        items: load.issued(),
    };
    bar.finish_and_clear();

    let used = (load.caches_used(), load.targets_used());
    let document = BenchDocument::new(setup, &plan, &load.record(), used, end, cost);
    if screen.json {
        screen.document(&document)?;
    } else {
        screen.line(&document.text())?;
    }
    if end == End::Interrupted {
        return Ok(Completion::Interrupted);
    }
    Ok(Completion::with_failed(document.failures()))
}

struct Prepared {
    connection: Connection,
    load: std::sync::Arc<Load>,
    setup: Setup,
    plan: Plan,
}

async fn prepare(args: &BenchArgs, global: &Global) -> Result<Prepared, Failure> {
    let connection = Connection::open(global).await?;
    let limit = connection.message_limit().await?;
    let width = if args.random_embeddings {
        embedding_width(&connection).await?
    } else {
        0
    };
    let caches = caches(args, &connection).await?;
    let reading = args.clone();
    let inputs = tokio::task::spawn_blocking(move || inputs::read(&reading, limit, width))
        .await
        .map_err(|error| Failure::Broken(error.to_string()))??;

    let streams = if args.unary {
        0
    } else {
        caches.len().saturating_mul(args.streams as usize)
    };
    let connections = args.connections(streams)?;
    let channels = channels(&connection, global, connections).await?;
    let plan = Plan {
        arrivals: args.arrivals(),
        length: args.length(),
        warmup: args.warmup,
        drain: args.drain,
        deadline: args.deadline,
        seed: args.seed,
        pack: (MESSAGE_BYTES.min(limit / 2) / inputs.largest().max(1)).clamp(1, args.pack as usize),
        unary: args.unary,
    };
    let setup = Setup {
        address: connection.address().to_owned(),
        inputs: inputs.kind,
        input_count: inputs.encoded.len(),
        input_bytes: inputs.mean_bytes(),
        caches: caches.len(),
        streams,
        connections,
    };
    // Unary calls to any cache go over any connection.
    let each = if args.unary {
        connections
    } else {
        args.streams as usize
    };
    let targets = caches
        .iter()
        .flat_map(|cache| std::iter::repeat_n(cache, each))
        .zip(channels.iter().cycle())
        .map(|(cache, channel)| Target {
            channel: channel.clone(),
            config: config(args, cache),
        })
        .collect();
    Ok(Prepared {
        load: Load::new(plan.clone(), targets, inputs.encoded),
        connection,
        setup,
        plan,
    })
}

/// The width of the server's embeddings.
async fn embedding_width(connection: &Connection) -> Result<usize, Failure> {
    let width = connection
        .info()
        .await?
        .bundle
        .map_or(0, |bundle| bundle.width);
    usize::try_from(width)
        .ok()
        .filter(|width| *width > 0)
        .ok_or_else(|| {
            Failure::Broken(format!(
                "--random-embeddings: the server says that its embeddings have width {width}"
            ))
        })
}

fn config(args: &BenchArgs, cache: &str) -> ClassifyStreamConfig {
    ClassifyStreamConfig {
        cache: cache.to_owned(),
        options: Some(ClassifyOptions {
            top_k: args.top_k,
            timings: args.timings,
            ..Default::default()
        }),
        ordered: false,
        priority: if args.bulk {
            Priority::Bulk
        } else {
            Priority::Interactive
        }
        .into(),
    }
}

async fn channels(
    first: &Connection,
    global: &Global,
    count: usize,
) -> Result<Vec<AuthChannel>, Failure> {
    let mut channels = vec![first.channel()];
    while channels.len() < count {
        channels.push(Connection::open(global).await?.channel());
    }
    Ok(channels)
}

/// The caches that are named or match, in order, each once.
async fn caches(args: &BenchArgs, connection: &Connection) -> Result<Vec<String>, Failure> {
    let mut caches = args.cache.clone();
    if !args.caches.is_empty() {
        let patterns = args
            .caches
            .iter()
            .map(|pattern| glob(pattern))
            .collect::<Result<Vec<_>, _>>()?;
        let mut matching = list(connection).await?;
        matching.retain(|id| patterns.iter().any(|pattern| pattern.is_match(id)));
        if matching.is_empty() {
            return Err(Failure::NotFound(format!(
                "--caches {}: no cache's id matches",
                args.caches.join(", ")
            )));
        }
        caches.extend(matching);
    }
    let mut seen = std::collections::HashSet::new();
    caches.retain(|cache| seen.insert(cache.clone()));
    Ok(caches)
}

/// The ids of all caches.
async fn list(connection: &Connection) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    let mut client = connection.caches();
    let mut page_token = String::new();
    loop {
        let request = ListCachesRequest {
            page_size: PAGE,
            page_token,
            read_mask: Some(prost_types::FieldMask {
                paths: vec!["name".to_owned()],
            }),
            ..Default::default()
        };
        let page = connection
            .unary("listing caches", client.list_caches(request))
            .await?;
        ids.extend(page.caches.into_iter().map(|cache| {
            let name = cache.name;
            name.strip_prefix("caches/").unwrap_or(&name).to_owned()
        }));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(ids);
        }
    }
}

/// A pattern of ids: '*' and '?'; everything else stands for itself.
fn glob(pattern: &str) -> Result<regex::Regex, Failure> {
    let escaped = regex::escape(pattern)
        .replace(r"\*", ".*")
        .replace(r"\?", ".");
    regex::Regex::new(&format!("^{escaped}$"))
        .map_err(|error| Failure::Usage(format!("--caches {pattern:?}: {error}")))
}

/// Processor time of this process so far, user and system.
fn processor_time() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(now.tv_sec.unsigned_abs(), 0)
        + std::time::Duration::from_nanos(now.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_match_whole_ids() {
        for (pattern, id, matches) in [
            ("load-*", "load-0001", true),
            ("load-*", "load-", true),
            ("load-*", "overload-1", false),
            ("load-?", "load-1", true),
            ("load-?", "load-12", false),
            ("a.c", "abc", false),
            ("*", "anything", true),
        ] {
            assert_eq!(
                glob(pattern).unwrap().is_match(id),
                matches,
                "{pattern} {id}"
            );
        }
    }
}
