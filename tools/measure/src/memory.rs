//! Out of memory, survived; and no growth over many batches.

use std::sync::atomic::Ordering;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{
    Encoding,
    engine::{raw_job, start},
    first, pictures,
};
use tipserve_clip::cuda;
use tipserve_engine::{Engine, FlowId};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    encoding: Encoding,
    /// Batches, of 1 to 4 pictures, over which memory must not grow.
    #[arg(long, default_value_t = 100_000)]
    batches: u64,
    /// Bytes left on the card while it is out of memory.
    #[arg(long, default_value_t = 192 << 20)]
    leave: u64,
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let opened = args.encoding.open()?;
    let device = first(&opened.devices);
    let (engine, spec, _) = start(&opened)?;
    let side = spec.resize_to.width;
    let inputs: Vec<Bytes> = pictures::prepared(opened.settings.max_batch, side as usize, 2)
        .into_iter()
        .map(Bytes::from)
        .collect();

    let shortage = match device {
        Device::Cuda(_) => Some(shortage(&engine, side, &inputs, device, args.leave)?),
        _ => None,
    };

    // As many callers as workers, so that every stream slot is used all the
    // time.
    let run = |batches: u64| -> anyhow::Result<()> {
        let end = engine.counters().batches.load(Ordering::Relaxed) + batches;
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..opened.settings.threads.workers)
                .map(|caller| {
                    let (engine, inputs) = (&engine, &inputs);
                    scope.spawn(move || -> anyhow::Result<()> {
                        let mut number = caller;
                        while engine.counters().batches.load(Ordering::Relaxed) < end {
                            number += 1;
                            embed(engine, side, inputs.get(..number % 4 + 1).unwrap_or(inputs))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            callers.into_iter().try_for_each(|caller| {
                caller
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a caller panicked"))
            })
        })
    };
    run(args.batches / 5)?;
    let [host_before, tensors_before, allocator_before] = held(device)?;
    run(args.batches - args.batches / 5)?;
    let [host, tensors, allocator] = held(device)?;
    engine.shut_down();
    Ok(json!({
        "out_of_memory": shortage,
        "batches": args.batches,
        "grown_over_the_last": args.batches * 4 / 5,
        "host_bytes_grown": host.saturating_sub(host_before),
        "tensor_bytes_grown": tensors.saturating_sub(tensors_before),
        "allocator_bytes_grown": allocator.saturating_sub(allocator_before),
        "host_bytes": host,
        "allocator_bytes": allocator,
    }))
}

/// Fills the card but for `leave` bytes, embeds, and embeds again when the
/// memory is free: all must be answered, and as before.
fn shortage(
    engine: &Engine,
    side: u32,
    inputs: &[Bytes],
    device: Device,
    leave: u64,
) -> anyhow::Result<Value> {
    const PIECE: u64 = 64 << 20;
    let before = embed(engine, side, inputs)?;
    let batches = engine.counters().batches.load(Ordering::Relaxed);
    let mut filling = Vec::new();
    cuda::release_memory().map_err(anyhow::Error::msg)?;
    while cuda::memory(device).map_err(anyhow::Error::msg)?.free > leave + PIECE {
        // Plain allocations, to the byte: the largest that fit first.
        let free = cuda::memory(device).map_err(anyhow::Error::msg)?.free;
        let bytes = (free - leave).clamp(PIECE, 8 << 30) as i64;
        match Tensor::f_empty([bytes], (Kind::Uint8, device)) {
            Ok(piece) => filling.push(piece),
            Err(_) => break,
        }
    }
    let left = cuda::memory(device).map_err(anyhow::Error::msg)?.free;
    let during = embed(engine, side, inputs)?;
    let split = engine.counters().batches.load(Ordering::Relaxed) - batches;
    drop(filling);
    cuda::release_memory().map_err(anyhow::Error::msg)?;
    let after = embed(engine, side, inputs)?;
    let cosine = |other: &[Vec<f32>]| {
        before
            .iter()
            .zip(other)
            .map(|(a, b)| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>())
            .fold(f64::INFINITY, f64::min)
    };
    Ok(json!({
        "bytes_left": left,
        "batches_tried": split,
        "least_cosine_during": cosine(&during),
        "least_cosine_after": cosine(&after),
        "healthy": engine.is_healthy(),
    }))
}

/// The unit features of some raw pictures, all sent at once.
fn embed(engine: &Engine, side: u32, inputs: &[Bytes]) -> anyhow::Result<Vec<Vec<f32>>> {
    let flow = FlowId::next();
    let mut waiting = Vec::with_capacity(inputs.len());
    for input in inputs {
        let (done, answer) = crossbeam_channel::bounded(1);
        engine.submit(raw_job(side, input, flow, move |result| {
            let _ = done.send(result);
        }));
        waiting.push(answer);
    }
    waiting
        .into_iter()
        .map(|answer| {
            let outcome = answer.recv()??;
            let feature = outcome.feature.context("no feature came")?;
            Ok(feature.unit.to_vec())
        })
        .collect()
}

/// Bytes: of this process on the host, of its tensors on the device, and of
/// torch's allocator there.
fn held(device: Device) -> anyhow::Result<[u64; 3]> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .context("no VmRSS in /proc/self/status")?;
    let memory = match device {
        Device::Cuda(_) => cuda::memory(device).map_err(anyhow::Error::msg)?,
        _ => cuda::Memory::default(),
    };
    Ok([resident * 1024, memory.allocated, memory.reserved])
}
