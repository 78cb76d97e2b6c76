//! Any bytes as a request: decoded, and checked as far as that needs no server.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tipserve::rpc::fuzzing::message(bytes));
