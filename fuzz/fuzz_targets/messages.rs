//! Any bytes as a request: decoded, within the memory that it was said to cost,
//! and checked as far as that needs no server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use prost::{Message, Name};
use tipserve_api::{
    decode_cost::{FACTOR, cost},
    inference, v1,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A vector that grows holds its old half beside a new whole, which may be
/// half empty; and the smallest vectors have four elements.
const GROWTH: usize = 3;
const BESIDES: usize = 16 << 10;

fn decode<M: Message + Name + Default>(bytes: &[u8]) {
    let Some(cost) = cost(&M::full_name(), bytes) else {
        return;
    };
    // What the server's codec refuses, but for its allowance.
    if cost > FACTOR * bytes.len() + BESIDES {
        return;
    }
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let message = M::decode(bytes);
    let taken = MEMORY.peak_usage() - before;
    assert!(taken <= GROWTH * cost + BESIDES, "{taken} bytes, said to cost {cost}");
    drop(message);
}

fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, bytes)) = bytes.split_first() {
        match kind % 8 {
            0 => decode::<v1::ClassifyStreamRequest>(bytes),
            1 => decode::<v1::CreateCacheRequest>(bytes),
            2 => decode::<v1::AddExamplesRequest>(bytes),
            3 => decode::<v1::EmbedRequest>(bytes),
            4 => decode::<v1::EvaluateRequest>(bytes),
            5 => decode::<v1::FineTuneRequest>(bytes),
            6 => decode::<inference::ModelInferRequest>(bytes),
            _ => decode::<v1::ImportVersionRequest>(bytes),
        }
    }
    tipserve::rpc::fuzzing::message(bytes);
});
